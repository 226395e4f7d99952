"""An installation with some of everything in it, for tests that go over the whole API."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal

from django.utils import timezone

from devaipod_web.accounts import tokens
from devaipod_web.accounts.models import User
from devaipod_web.budgets import services as budgets
from devaipod_web.budgets.incidents import open_hard
from devaipod_web.budgets.models import Budget
from devaipod_web.llm.models import LlmCall, Provider
from devaipod_web.projects.models import Project
from devaipod_web.reviews.models import Promotion, Review
from devaipod_web.runs import events
from devaipod_web.runs.log_writer import Writer
from devaipod_web.runs.models import PermissionRequest, Run, RunPod, Turn
from devaipod_web.runs.states import ENDED, State
from pods.spec import LogLine

LINES = ("starting", "\x1b[31mred\x1b[0m", "half \udcff", "<script>alert(1)</script>")


@dataclass
class Things:
    """What there is of one project: keys and names as an address has them."""

    project: Project
    runs: dict[str, Run] = field(default_factory=dict)
    pods: dict[str, RunPod] = field(default_factory=dict)
    review: Review | None = None
    asked: PermissionRequest | None = None
    budgets: list[Budget] = field(default_factory=list)

    @property
    def ended(self) -> list[Run]:
        return [run for run in self.runs.values() if run.state in ENDED]


def fill(project: Project, owner: User) -> Things:
    """Runs in every state, with events, turns, pods, logs, an open question, a review and model calls."""
    found = Things(project)
    now = timezone.now()
    for number, state in enumerate(State):
        run = Run.objects.create(
            project=project,
            owner=owner,
            title=f"{project.slug} {state}",
            task="Retry webhooks with back-off.",
            agent="opencode",
            model="scripted-demo",
            wall_seconds=3600,
            state=state,
            queued_at=now,
            started_at=None if state == State.QUEUED else now - timedelta(minutes=number),
            ended_at=now if state in ENDED else None,
            # As after its retention: nothing of it is left on a container backend.
            volumes_pruned_at=now,
            cost=Decimal(number) / 100,
        )
        found.runs[state] = run
        Turn.objects.create(
            run=run,
            number=1,
            prompt=run.task,
            by=owner,
            started_at=run.started_at,
            ended_at=run.ended_at,
        )
        Run.objects.filter(pk=run.pk).update(last_turn=1)
        for text in ("I'll look.", "half \u2028 <b>bold</b>"):
            events.record(run, "message", {"message_id": "m", "text": text})
        calls(run, number)
    for state in (State.RUNNING, State.WAITING, State.SUCCEEDED, State.FAILED):
        found.pods[state] = pod_of(found.runs[state], removed=state in ENDED)
    asked_at = found.runs[State.WAITING]
    found.asked = PermissionRequest.objects.create(
        run=asked_at,
        pod=found.pods[State.WAITING],
        request_id="r1",
        title="Run ls",
        asked_at=now,
        expires_at=now + timedelta(minutes=5),
        options=[
            {"id": "once", "name": "Allow once", "kind": "allow_once"},
            {"id": "no", "name": "Refuse", "kind": "reject_once"},
        ],
    )
    found.review = Review.objects.create(
        run=found.runs[State.SUCCEEDED],
        base="a" * 40,
        head="b" * 40,
        diff_digest="c" * 64,
        commits=1,
        files=1,
        additions=3,
        updated_at=now,
        risks=[{"id": "r1", "code": "ci", "path": ".ci/run", "text": "Runs.", "tick": True}],
    )
    Promotion.objects.create(
        review=found.review,
        head="b" * 40,
        diff_digest="c" * 64,
        target_url="https://forge.example/acme/payments.git",
        target_branch="devaipod/x",
        by=owner,
        state="refused",
        message="refused",
        ended_at=now,
    )
    found.budgets = [
        budgets.create(
            owner, scope="project", subject=project, metric=metric, window="month", limit=5
        )
        for metric in ("usd", "requests")
    ]
    for row in found.budgets:
        open_hard(row.windows.get().pk, found.runs[State.PAUSED].pk, 10)
    return found


def pod_of(run: Run, *, removed: bool) -> RunPod:
    """A pod of the run with a log of its agent's."""
    now = timezone.now()
    name = f"devaipod-{run.project.slug}-{run.key}-1"
    pod = RunPod.objects.create(
        run=run,
        attempt=1,
        name=name,
        backend="podman",
        image="localhost/devaipod-agent:dev",
        control_digest=run.key.ljust(64, "c"),
        data_digest=run.key.ljust(64, "d"),
        steps={"pod": now.isoformat()},
        ended_at=now if removed else None,
        removed_at=now if removed else None,
        diagnostics={"reason": "ended"} if removed else {},
    )
    writer = Writer(run.key, name, "agent")
    writer.append(
        LogLine("stdout", now, text.encode("utf-8", "surrogateescape"), cursor=str(number))
        for number, text in enumerate(LINES)
    )
    writer.close(finished=removed)
    return pod


def calls(run: Run, number: int) -> None:
    """Two calls to a model, one of them without a price."""
    provider = Provider.objects.filter(name="Acme").first()
    for cost in (Decimal("0.0123") * number, None):
        LlmCall.objects.create(
            run=run,
            provider=provider,
            provider_kind="openai" if provider else "demo",
            model=f"model-{number % 3}",
            at=timezone.now() - timedelta(days=number % 4),
            status=200 if cost is not None else 502,
            tokens_in=100,
            tokens_out=10,
            cost=cost,
        )


def token(user: User, **given: object) -> str:
    """The text of a token."""
    return tokens.create(user, "tests", **given)[1]  # type: ignore[arg-type]
