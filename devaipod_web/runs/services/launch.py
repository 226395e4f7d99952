"""Ask for a run."""

from __future__ import annotations

from django.db import IntegrityError, transaction
from django.utils import timezone

from devaipod_web.accounts.models import User
from devaipod_web.llm import demo
from devaipod_web.llm.models import Provider, ProviderKind
from devaipod_web.projects.models import PermissionPolicy, Project
from devaipod_web.runs import events, untrusted
from devaipod_web.runs.errors import BadRequest
from devaipod_web.runs.models import Run
from devaipod_web.runs.services.prompt import add_turn
from devaipod_web.runs.states import State

MAX_TASK_CHARACTERS = 200_000
MAX_TITLE_CHARACTERS = 100
MIN_WALL_SECONDS = 30
MAX_WALL_SECONDS = 7 * 24 * 3600


def launch(
    project: Project,
    owner: User,
    *,
    task: str,
    title: str = "",
    agent: str = "",
    provider: Provider | None = None,
    model: str = "",
    permission_policy: str = "",
    wall_seconds: int | None = None,
    idempotency_key: str | None = None,
) -> Run:
    """Queue a run of `project` with its first turn, and return it.

    What is not given is the project's. The same `idempotency_key` of the same owner returns the run that is
    there. Raises BadRequest with a sentence when the task is empty or too long, the project is archived, or a limit is out
    of its range.
    """
    task = untrusted.text(task, MAX_TASK_CHARACTERS + 1).strip()
    wall = wall_seconds if wall_seconds is not None else project.wall_seconds
    policy = permission_policy or project.permission_policy
    _check(project, task, wall=wall, policy=policy)
    if idempotency_key:
        known = _known(owner, idempotency_key)
        if known is not None:
            return known
    chosen = provider or project.provider
    is_real = chosen is not None and chosen.kind != ProviderKind.DEMO
    try:
        with transaction.atomic():
            run = Run.objects.create(
                project=project,
                owner=owner,
                title=(untrusted.text(title, 200).strip() or title_of(task)),
                task=task,
                agent=agent or project.agent,
                provider=chosen,
                model=(model or project.model) if is_real else demo.MODEL,
                permission_policy=policy,
                wall_seconds=wall,
                idempotency_key=idempotency_key or None,
                queued_at=timezone.now(),
                reason="Waits for a place.",
            )
            Run.objects.filter(pk=run.pk).update(branch=f"agent/{run.key}/work")
            events.record(
                run,
                events.Kind.STATE,
                {"from": "", "to": State.QUEUED, "reason": "", "next_step": "", "finding": ""},
            )
            add_turn(run, owner, task)
    except IntegrityError:
        known = _known(owner, idempotency_key) if idempotency_key else None
        if known is None:
            raise
        return known
    run.refresh_from_db()
    return run


def _known(owner: User, idempotency_key: str) -> Run | None:
    return Run.objects.filter(owner=owner, idempotency_key=idempotency_key).first()


def _check(project: Project, task: str, *, wall: int, policy: str) -> None:
    if not task:
        raise BadRequest("The task is empty.", next_step="Say what the agent should do.")
    if len(task) > MAX_TASK_CHARACTERS:
        raise BadRequest(
            f"The task is longer than {MAX_TASK_CHARACTERS:,} characters.",
            next_step="Put long material into the repository and name its path in the task.",
        )
    if project.archived_at is not None:
        raise BadRequest(
            f"The project {project.name} is archived.", next_step="Choose another project."
        )
    if not MIN_WALL_SECONDS <= wall <= MAX_WALL_SECONDS:
        raise BadRequest(
            f"The wall time must be between {MIN_WALL_SECONDS} seconds and 7 days.",
            next_step=f"Leave it empty for the project's {project.wall_seconds // 60} minutes.",
        )
    if policy not in PermissionPolicy.values:
        raise BadRequest(
            f"There is no permission policy {policy!r}.",
            next_step=f"Choose one of: {', '.join(PermissionPolicy.values)}.",
        )


def title_of(task: str) -> str:
    """The first line of a task that says something, without Markdown's signs, cut at a word."""
    lines = (line.strip().lstrip("#*->` ").strip() for line in task.splitlines())
    line = next((line for line in lines if line), task.strip())
    if len(line) <= MAX_TITLE_CHARACTERS:
        return line
    return line[: MAX_TITLE_CHARACTERS - 1].rsplit(" ", 1)[0] + "…"
