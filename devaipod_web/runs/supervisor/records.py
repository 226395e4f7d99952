"""What the supervisor writes: each function is one short transaction, called through `db.write`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Max, Q
from django.utils import timezone

from devaipod_web.runs import events
from devaipod_web.runs.models import CommandState, Run, RunCommand, RunPod, Turn
from devaipod_web.runs.services.commands import OPEN, enqueue
from devaipod_web.runs.services.notes import note
from devaipod_web.runs.services.prompt import is_stopping
from devaipod_web.runs.services.stop import end, end_with, withdraw_questions
from devaipod_web.runs.services.transition import transition
from devaipod_web.runs.states import ACTIVE, ENDED, State
from devaipod_web.runs.supervisor import lease
from devaipod_web.runs.wake import wake
from devaipod_web.targets import queries
from devaipod_web.targets.choice import give
from devaipod_web.targets.services import ensure_own, note_full, note_room
from pods import causes
from pods.findings import CODES, Finding
from pods.sidecar.protocol import CommandKind

#: Key of the advisory lock under which places are counted (any number of our own).
ADMISSION_LOCK = 0xDE7A1D0D
#: After so many refusals in a row for want of room a run fails; the target's growing pauses make that some twenty minutes.
MAX_REFUSALS = 8
#: Findings that have an event of their own (`run.stuck`, `model.refused`).
SAID_ELSEWHERE = frozenset(
    {"stuck", "budget-used-up", *(code for code in CODES if code.startswith("provider-"))}
)
CONTINUE = (
    "The sandbox was lost while you were working on this and was started anew; the workspace is as you left it. "
    "Look at what is done already and go on with:\n\n"
)


@dataclass(frozen=True)
class View:
    """A run as its driver sees it: `pods` are those that the backend may still have something of, the oldest first."""

    run: Run
    pods: list[RunPod]
    now: datetime
    stop_asked_at: datetime | None
    stop_applied: bool

    @property
    def current(self) -> RunPod | None:
        """The pod of the present attempt while its tokens are alive."""
        for pod in reversed(self.pods):
            if pod.ended_at is None and pod.attempt == self.run.attempts:
                return pod
        return None


def view(run_id: int) -> View | None:
    """Read what a driver needs; None when the run is gone."""
    related = ("project", "owner", "provider", "target")
    run = Run.objects.select_related(*related).filter(pk=run_id).first()
    if run is None:
        return None
    pods = list(RunPod.objects.filter(run=run, removed_at=None).order_by("attempt"))
    stop = None
    if pods:
        stop = RunCommand.objects.filter(pod=pods[-1], kind=CommandKind.STOP).first()
    return View(
        run=run,
        pods=pods,
        now=timezone.now(),
        stop_asked_at=stop.created_at if stop else None,
        stop_applied=stop is not None and stop.state not in OPEN,
    )


def to_drive() -> list[tuple[int, str]]:
    """(id, key) of runs that need a driver: those at work, and those with a pod that is not removed yet."""
    live = RunPod.objects.filter(removed_at=None).values("run_id")
    found = Run.objects.filter(Q(state__in=ACTIVE - {State.PAUSED}) | Q(pk__in=live))
    return list(found.order_by("pk").values_list("pk", "key"))


@transaction.atomic
def admit(owner: str, places: int) -> list[tuple[int, str]]:
    """Give free places at the targets to the runs that wait longest, under a lease of `owner`; returns (id, key) of those admitted.

    `places` are podman's.
    Whoever counts keeps others from counting until it has committed: on SQLite the transaction is the only writer, on
    PostgreSQL it holds an advisory lock. A run whose last pod is still going waits until that is gone.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [ADMISSION_LOCK])
    ensure_own()  # without a target nobody would ever have a place
    now = timezone.now()
    rooms = queries.rooms(now, podman_places=places)
    if not any(room.is_open for room in rooms.values()):
        return []
    going = set(RunPod.objects.filter(removed_at=None).values_list("run_id", flat=True))
    queue = [asking for asking in queries.waiting() if asking.run not in going]
    admitted = []
    for run_id, target in give(queue, rooms):
        run = Run.objects.get(pk=run_id)
        if _give_place(run, target, owner, now):
            admitted.append((run.pk, run.key))
    return admitted


def _give_place(run: Run, target: int, owner: str, now: datetime) -> bool:
    return transition(
        run.pk,
        State.PREPARING,
        reason="",
        expect=frozenset({State.QUEUED}),
        target_id=target,
        waits_for="",
        step="",
        stuck_since=None,
        deadline_at=now
        + timedelta(seconds=run.wall_seconds if run.wall_left is None else run.wall_left),
        wall_left=None,
        lease_owner=owner,
        lease_until=now + lease.LEASE,
    )


def may_be_elsewhere(run_id: int) -> bool:
    """Whether waiting may help: on a cluster room comes and goes, and a run with several targets has another to try."""
    run = Run.objects.select_related("project", "target", "asked_target").get(pk=run_id)
    if run.target is not None and not run.target.is_podman:
        return True
    return run.asked_target is None and len(run.project.targets) > 1


def send_back(run_id: int, pod_id: int | None, reason: str) -> bool:
    """A target had no room for a pod after all: the run waits again, at the head of the queue, and the target is passed over for a while.

    After `MAX_REFUSALS` in a row, False: it is to fail with what the target said.
    """
    with transaction.atomic():
        run = Run.objects.select_for_update().get(pk=run_id)
        if run.target_id is not None:
            note_full(run.target_id, reason)
        if run.refusals + 1 >= MAX_REFUSALS:
            return False
        if pod_id is not None:
            now = timezone.now()
            RunPod.objects.filter(pk=pod_id, ended_at=None).update(ended_at=now)
        waited_since = run.queued_at
        was_there = RunPod.objects.filter(
            run=run, target=run.target_id, steps__pod__isnull=False
        ).exists()
        wall_left = run.deadline_at and int((run.deadline_at - timezone.now()).total_seconds())
        transition(
            run_id,
            State.QUEUED,
            reason=f"{run.target or 'The target'} had no room: {reason} It is tried again."[:1000],
            expect=frozenset({State.PREPARING, State.STARTING}),
            queued_at=waited_since,
            # Where a pod of it was its workspace may be; else it may go anywhere.
            target_id=run.target_id if was_there else None,
            refusals=run.refusals + 1,
            wall_left=max(wall_left, 1) if wall_left is not None else None,
            deadline_at=None,
            waits_for="",
            step="",
        )
    return True


def begin_step(run_id: int, step: str) -> None:
    """Show which step of starting the run is in."""
    Run.objects.filter(pk=run_id, state__in=[State.PREPARING, State.STARTING]).update(step=step)
    wake(Run.objects.values_list("key", flat=True).get(pk=run_id))


def progress(run_id: int, step: str, text: str) -> None:
    """Tell how far a slow step is."""
    events.record(Run.objects.get(pk=run_id), events.Kind.STEP, {"step": step, "text": text[:500]})


def finish_step(
    run_id: int, pod_id: int | None, step: str, *, text: str, seconds: float, **pod_fields: Any
) -> None:
    """Note that a step is done and how many seconds it took."""
    with transaction.atomic():
        if pod_id is not None:
            steps = RunPod.objects.values_list("steps", flat=True).get(pk=pod_id)
            RunPod.objects.filter(pk=pod_id).update(
                steps={**steps, step: timezone.now().isoformat()}, **pod_fields
            )
        Run.objects.filter(pk=run_id).exclude(waits_for="").filter(
            state__in=[State.PREPARING, State.STARTING]
        ).update(waits_for="")
        events.record(
            Run.objects.get(pk=run_id),
            events.Kind.STEP,
            {"step": step, "text": text, "seconds": round(max(seconds, 0.0), 3)},
        )


def agent_started(run_id: int, pod_id: int, *, cloned: float, started: float) -> None:
    """Note the seconds that the clone and the start of the agent's container took, and that the agent is on its way."""
    with transaction.atomic():
        finish_step(run_id, pod_id, "clone", text="The workspace is ready", seconds=cloned)
        finish_step(
            run_id,
            pod_id,
            "start",
            text="Started the agent's container",
            seconds=started,
            agent_started_at=timezone.now(),
        )
        begin_step(run_id, "agent")


def waits_for(run_id: int, text: str) -> None:
    """Say what the run waits for; writes only a change."""
    changed = (
        Run.objects.filter(pk=run_id).exclude(waits_for=text[:300]).update(waits_for=text[:300])
    )
    if changed:
        wake(Run.objects.values_list("key", flat=True).get(pk=run_id))


def set_base(run_id: int, commit: str) -> None:
    """Fix the commit that the run starts from."""
    Run.objects.filter(pk=run_id, base_commit="").update(base_commit=commit)


def new_pod(
    run_id: int,
    *,
    attempt: int,
    name: str,
    backend: str,
    image: str,
    key: str,
    control_digest: str,
    data_digest: str,
    target: int | None = None,
) -> bool:
    """Make the attempt's row and move the run to `starting`, in one transaction: no second pod is ever made for it.

    False when the run has moved on meanwhile.
    """
    with transaction.atomic():
        moved = transition(
            run_id,
            State.STARTING,
            reason="",
            expect=frozenset({State.PREPARING}),
            attempts=attempt,
            image=image[:300],
        )
        if not moved:
            return False
        RunPod.objects.create(
            run_id=run_id,
            key=key,
            attempt=attempt,
            name=name,
            backend=backend,
            image=image[:300],
            control_digest=control_digest,
            data_digest=data_digest,
            target_id=target,
        )
    return True


def pod_made(run_id: int, target_id: int | None) -> None:
    """The target took the pod: what it and the run were refused before counts no more."""
    Run.objects.filter(pk=run_id).exclude(refusals=0).update(refusals=0)
    if target_id is not None:
        note_room(target_id)


def fail(run_id: int, found: Finding) -> bool:
    """End a run as failed with what was found; its pod, if there is one, is asked to stage what is there."""
    return end_as(run_id, State.FAILED, found.message, found.next_step, code=found.code)


def end_as(run_id: int, state: State, reason: str, next_step: str = "", *, code: str = "") -> bool:
    """End a run; `code` is the finding that the two sentences are of. False when it had ended already."""
    with transaction.atomic():
        run = Run.objects.select_for_update().get(pk=run_id)
        return end(run, state, reason=reason[:1000], next_step=next_step[:500], code=code)


def degrade(run_id: int, found: Finding | None) -> None:
    """Show on a run in progress what is wrong with it, or that nothing is any more; writes only a change, and notes each finding once."""
    with transaction.atomic():
        run = Run.objects.select_for_update().get(pk=run_id)
        code, reason, next_step = (
            (found.code, found.message, found.next_step) if found else ("", "", "")
        )
        # A sentence that counts seconds is no news; the page that is open counts by itself.
        if run.state in ENDED or run.state == State.PAUSED or run.finding_code == code:
            return
        Run.objects.filter(pk=run_id).update(
            finding_code=code, reason=reason[:1000], next_step=next_step[:500]
        )
        wake(run.key)
    if found is not None and found.code not in SAID_ELSEWHERE:
        note(run_id, str(found.severity), found.message, next_step=found.next_step)


def lose(run_id: int, pod_id: int, reason: str) -> None:
    """Give up a pod that was lost without the run's fault, and start a new attempt while there are any left.

    The tokens die at once. A turn that the lost agent was in is asked again, with the session resumed where the agent can.
    """
    with transaction.atomic():
        run = Run.objects.select_for_update().get(pk=run_id)
        now = timezone.now()
        ended = RunPod.objects.filter(pk=pod_id, ended_at=None).update(ended_at=now)
        if not ended or run.state in ENDED:
            return
        pod = RunPod.objects.get(pk=pod_id)
        events.record(run, events.Kind.POD_LOST, {"pod": pod.name, "reason": reason[:1000]})
        withdraw_questions(run)
        if run.state == State.PAUSED:
            # Whoever resumes it asks for a new attempt.
            ask_again(run, pod)
            return
        lost = run.lost_pods + 1
        Run.objects.filter(pk=run_id).update(lost_pods=lost)
        if lost >= settings.MAX_ATTEMPTS:
            close_turns(pod, "interrupted")
            end_with(run, State.FAILED, causes.pod_lost(reason, times=lost))
            return
        ask_again(run, pod)
        transition(
            run_id,
            State.PREPARING,
            reason=f"The pod was lost: {reason} A new one is started."[:1000],
            waits_for="",
            stuck_since=None,
            keep_warm_until=None,
        )


def ask_again(run: Run, pod: RunPod) -> None:
    """Queue the prompt of each turn that began in `pod` and did not end, and of each that was on its way to it."""
    for turn in Turn.objects.filter(run=run, pod=pod, ended_at=None).exclude(started_at=None):
        _withdraw_sent(run, turn)
        Turn.objects.filter(pk=turn.pk).update(started_at=None, pod=None)
        enqueue(run.pk, CommandKind.PROMPT, {"turn": turn.number, "text": CONTINUE + turn.prompt})
    send_anew(run)


def send_anew(run: Run) -> None:
    """Queue again, under new numbers, the prompts that were sent and of which nothing was heard.

    A sidecar passes over a number that it has done, also one of an earlier attempt whose word of it was lost.
    """
    for turn in Turn.objects.filter(run=run, started_at=None, ended_at=None).order_by("number"):
        if _withdraw_sent(run, turn):
            enqueue(run.pk, CommandKind.PROMPT, {"turn": turn.number, "text": turn.prompt})


def _withdraw_sent(run: Run, turn: Turn) -> bool:
    sent = RunCommand.objects.filter(
        run=run, kind=CommandKind.PROMPT, state=CommandState.SENT, payload__turn=turn.number
    )
    return bool(
        sent.update(state=CommandState.REFUSED, reason="the pod was lost", done_at=timezone.now())
    )


def close_turns(pod: RunPod, stop_reason: str) -> None:
    """End the turns that will not end any more, as nobody is left to end them."""
    Turn.objects.filter(pod=pod, ended_at=None).exclude(started_at=None).update(
        ended_at=timezone.now(), stop_reason=stop_reason
    )


def let_go(run_id: int) -> None:
    """The pod of a paused run is of no use any more (one of its containers has ended): it is not kept longer."""
    Run.objects.filter(pk=run_id, state=State.PAUSED).update(keep_warm_until=timezone.now())


def cool(run_id: int) -> None:
    """Keep the pod of a succeeded run warm no longer."""
    Run.objects.filter(pk=run_id, state=State.SUCCEEDED).update(keep_warm_until=None)


def last_staged(run_id: int) -> datetime | None:
    """When work of the run was last staged."""
    found: datetime | None = Turn.objects.filter(run_id=run_id).aggregate(at=Max("staged_at"))["at"]
    return found


def ask_to_stop(pod_id: int, reason: str) -> None:
    """Queue the STOP command of a pod, once."""
    with transaction.atomic():
        pod = RunPod.objects.get(pk=pod_id)
        if pod.ended_at is None and not is_stopping(pod):
            enqueue(pod.run_id, CommandKind.STOP, {"reason": reason[:500]}, pod=pod)


def keep_diagnostics(pod_id: int, diagnostics: dict[str, Any]) -> None:
    """Keep what the pod was, once: the first look after its end is the one that tells."""
    RunPod.objects.filter(pk=pod_id, diagnostics={}).update(diagnostics=diagnostics)


def pod_ended(pod_id: int) -> None:
    """The pod's containers are stopped: its tokens die."""
    with transaction.atomic():
        RunPod.objects.filter(pk=pod_id, ended_at=None).update(ended_at=timezone.now())
        pod = RunPod.objects.select_related("run").get(pk=pod_id)
        RunCommand.objects.filter(pod=pod, state__in=OPEN).update(
            state=CommandState.REFUSED, reason="the pod has ended", done_at=timezone.now()
        )
        if pod.run.state in ENDED or pod.run.state == State.PAUSED:
            close_turns(pod, "interrupted")
            send_anew(pod.run)
        withdraw_of(pod)
        wake(pod.run.key)


def withdraw_of(pod: RunPod) -> None:
    """Close the questions of a pod that is no more."""
    if not RunPod.objects.filter(run_id=pod.run_id, ended_at=None).exists():
        withdraw_questions(pod.run)


def pod_removed(pod_id: int) -> None:
    """The backend has nothing of the pod any more."""
    RunPod.objects.filter(pk=pod_id).update(removed_at=timezone.now())
    key = RunPod.objects.values_list("run__key", flat=True).get(pk=pod_id)
    wake(key)


def name_stuck(run_id: int, what: str) -> bool:
    """Name a run stuck and say what it waits for, once until its next event."""
    with transaction.atomic():
        run = Run.objects.select_for_update().get(pk=run_id)
        if run.stuck_since is not None or run.state != State.RUNNING:
            return False
        Run.objects.filter(pk=run_id).update(
            stuck_since=run.last_event_at or timezone.now(), waits_for=what[:300]
        )
        events.record(run, events.Kind.STUCK, {"waits_for": what[:300]})
    return True


def set_addresses(addresses: Mapping[str, str]) -> None:
    """Note where the backend sees these pods (address by name), and wake whoever waits for it."""
    for pod in RunPod.objects.filter(name__in=list(addresses)).select_related("run"):
        if pod.address != addresses[pod.name]:
            RunPod.objects.filter(pk=pod.pk).update(address=addresses[pod.name][:45])
            wake(pod.run.key)


def known_pods() -> set[str]:
    """Names of the pods that this installation still answers for."""
    return set(RunPod.objects.filter(removed_at=None).values_list("name", flat=True))


def known_run_keys(keys: Iterable[str]) -> set[str]:
    """Those of these keys that are runs of ours."""
    return set(Run.objects.filter(key__in=list(keys)).values_list("key", flat=True))


def anyone_queued() -> bool:
    """Whether any run waits for a place."""
    return Run.objects.filter(state=State.QUEUED).exists()
