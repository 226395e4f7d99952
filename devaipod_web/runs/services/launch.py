"""Ask for a run."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from devaipod_web.accounts.models import ApiToken, User
from devaipod_web.budgets.limits import amount
from devaipod_web.budgets.run_limits import open_run
from devaipod_web.health import drain
from devaipod_web.llm import demo, fit
from devaipod_web.llm.models import Provider, ProviderKind
from devaipod_web.projects.models import PermissionPolicy, Project
from devaipod_web.runs import events, untrusted
from devaipod_web.runs.errors import BadRequest, Draining
from devaipod_web.runs.models import Run
from devaipod_web.runs.services import labels as labelling
from devaipod_web.runs.services.command import Command, check_labels
from devaipod_web.runs.services.command import check as check_command
from devaipod_web.runs.services.notes import note
from devaipod_web.runs.services.prompt import add_turn
from devaipod_web.runs.states import State
from devaipod_web.targets import queries as targets
from devaipod_web.targets.models import Target
from pods.agents import PROFILES
from pods.command import COMMAND, is_ours

MAX_TASK_CHARACTERS = 200_000
MAX_TITLE_CHARACTERS = 100
MIN_WALL_SECONDS = 30
MAX_WALL_SECONDS = 7 * 24 * 3600


def launch(
    project: Project,
    owner: User,
    *,
    task: str = "",
    title: str = "",
    agent: str = "",
    command: Command | None = None,
    provider: Provider | None = None,
    model: str = "",
    permission_policy: str = "",
    wall_seconds: int | None = None,
    idempotency_key: str | None = None,
    labels: Mapping[str, str] | None = None,
    unique_label: str = "",
    token: ApiToken | None = None,
    limits: Mapping[str, Decimal | int] | None = None,
    target: str = "",
) -> Run:
    """Queue a run of `project` with its first turn, and return it.

    What is not given is the project's. With `command` the run executes that, and its task is how a person would type it unless one is
    given. The same `idempotency_key` of the same owner returns the run that is there. Raises BadRequest with a sentence when
    the task is empty or too long, the project is archived, or a limit is out of its range; Taken when a run that has not ended
    has the same text under the label `unique_label`; and Draining while no new runs are taken. `token` is the API token that it
    is asked with. `limits` of its own budgets by metric (`usd`, `requests`, `tokens`) can only lower the project's.
    """
    if command is not None:
        task = task.strip() or command.text[:MAX_TASK_CHARACTERS]
    task = untrusted.text(task, MAX_TASK_CHARACTERS + 1).strip()
    wall = wall_seconds if wall_seconds is not None else project.wall_seconds
    policy = permission_policy or project.permission_policy
    given = dict(labels or {})
    _check_agent(project, agent, command)
    _check(project, task, wall=wall, policy=policy)
    check_labels(given)
    asked_target = _target(target)
    if idempotency_key:
        known = _known(owner, idempotency_key)
        if known is not None:
            return known
    if drain.since() is not None:
        raise Draining
    chosen = provider or project.provider
    model = model or project.model
    # A project that names no provider: routes decide by the model's name, else it is the demo.
    who = fit.answerer(project, chosen, model)
    executes = COMMAND if command is not None else agent or project.agent
    misfit = fit.misfit(executes, who)
    if misfit is not None:
        raise BadRequest(misfit.message, next_step=misfit.next_step)
    is_real = who.kind != ProviderKind.DEMO or (chosen is None and bool(who.model))
    try:
        with transaction.atomic():
            if unique_label:
                labelling.claim(project, given, unique_label)
            run = Run.objects.create(
                project=project,
                owner=owner,
                token=token,
                title=(untrusted.text(title, 200).strip() or title_of(task)),
                task=task,
                agent=executes,
                provider=chosen,
                model=model if is_real else demo.MODEL,
                permission_policy=policy,
                wall_seconds=wall,
                idempotency_key=idempotency_key or None,
                labels=given,
                **_fields(command),
                asked_target=asked_target,
                queued_at=timezone.now(),
                reason="Waits for a place.",
            )
            Run.objects.filter(pk=run.pk).update(branch=f"agent/{run.key}/work")
            events.record(
                run,
                events.Kind.STATE,
                {"from": "", "to": State.QUEUED, "reason": "", "next_step": "", "finding": ""},
            )
            open_run(run.pk, project.pk, lower=_units(limits or {}))
            add_turn(run, owner, task)
            if command is not None and command.overruled:
                names = ", ".join(command.overruled)
                note(run.pk, "info", f"Set by devaipod, and not as given: {names}.")
    except IntegrityError:
        known = _known(owner, idempotency_key) if idempotency_key else None
        if known is None:
            raise
        return known
    run.refresh_from_db()
    return run


def _target(name: str) -> Target | None:
    found = targets.find(name) if name else None
    if name and found is None:
        there = ", ".join(row.name for row in targets.targets()) or "none"
        raise BadRequest(
            f"There is no target {name[:40]!r}.",
            next_step=f"Choose one of: {there}; or leave it out for the project's.",
        )
    return found


def _check_agent(project: Project, agent: str, command: Command | None) -> None:
    if command is not None:
        check_command(command, project)
    elif agent == COMMAND:
        raise BadRequest(
            "A run of the profile command needs argv: its program and that program's arguments.",
            next_step='Give, for instance, ["sh", "-c", "make test"].',
        )
    elif agent and agent not in PROFILES:
        raise BadRequest(
            f"There is no agent called {agent[:40]!r}.",
            next_step=f"Choose one of: {', '.join(sorted(PROFILES))}.",
        )


def _fields(command: Command | None) -> dict[str, Any]:
    if command is None:
        return {}
    return {
        "argv": command.argv,
        "env": {name: command.env[name] for name in command.env if not is_ours(name)},
        "workdir": command.workdir,
        "asked_image": command.image,
        "interactive": command.interactive,
    }


def _units(limits: Mapping[str, Decimal | int]) -> dict[str, int]:
    try:
        return {metric: amount(metric, limit) for metric, limit in limits.items()}
    except ValueError as error:
        raise BadRequest(
            f"A limit of the run cannot be as it is: {error}",
            next_step="Leave it out for the project's.",
        ) from None


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
