"""Runs over the API: create, list, read, follow, and steer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal

from django.db.models import Case, DurationField, ExpressionWrapper, F, QuerySet, Value, When
from django.db.models.expressions import Combinable
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from ninja import Field, Query, Router, Schema
from ninja.responses import Status

from devaipod_web import db
from devaipod_web.accounts.models import User
from devaipod_web.api import streams
from devaipod_web.api.auth import caller
from devaipod_web.api.filters import CommaSeparated, Moment
from devaipod_web.api.problems import Problem
from devaipod_web.api.reach import nothing
from devaipod_web.api.routing import Order, operation, paged
from devaipod_web.api.schemas.common import MAX_CURSOR, RunState
from devaipod_web.api.schemas.pods import DiagnosisOut
from devaipod_web.api.schemas.runs import (
    AnswerIn,
    EventOut,
    InputIn,
    InputOut,
    LabelsIn,
    LabelsOut,
    PauseIn,
    PermissionOut,
    PodIn,
    PromptIn,
    ResumeIn,
    RunBrief,
    RunIn,
    RunOut,
    StopIn,
    TurnOut,
)
from devaipod_web.llm.models import Provider
from devaipod_web.projects.models import Project
from devaipod_web.runs import diagnosis, events, queries, wake
from devaipod_web.runs.models import PermissionRequest, Run, RunEvent, Turn
from devaipod_web.runs.services import labels, permissions
from devaipod_web.runs.services.command import Command
from devaipod_web.runs.services.delete import delete
from devaipod_web.runs.services.input import send_input
from devaipod_web.runs.services.launch import launch
from devaipod_web.runs.services.pause import pause_by_hand, resume
from devaipod_web.runs.services.prompt import prompt
from devaipod_web.runs.services.stop import cancel_turn, stop
from devaipod_web.runs.states import ENDED, State
from pods.command import COMMAND

router = Router(tags=["runs"])

EVENTS_AT_ONCE = 500


def find(key: str) -> Run:
    """The run of this key. Raises Http404."""
    run = queries.rows().filter(key=key).first()
    if run is None:
        raise nothing("run", key)
    return run


def _duration(moment: datetime) -> Combinable:
    """How long a run has been at work: until it ended, or until `moment`. Nothing before it has started."""
    until = Coalesce(F("ended_at"), Value(moment))
    return Case(
        When(started_at=None, then=Value(timedelta(0))),
        default=ExpressionWrapper(until - F("started_at"), output_field=DurationField()),
        output_field=DurationField(),
    )


ORDERS = {
    "newest": Order("created_at", descending=True),
    "oldest": Order("created_at"),
    "activity": Order(Coalesce("last_event_at", "created_at"), descending=True),
    "cost": Order("cost", descending=True),
    "duration": Order(_duration, descending=True),
    "state": Order("state"),
    "project": Order("project__name"),
    "title": Order("title"),
}


class Filters(Schema):
    """Which runs."""

    project: str = Field("", description="The short name or key of a project.", max_length=60)
    state: Annotated[list[Literal[RunState, "active", "ended"]], CommaSeparated] = Field(
        [],
        description="Any of these states; repeated, or with commas between. `active` is every state before the end, `ended` "
        "every one after it.",
    )
    owner: str = Field("", description="A name for signing in, or `me`.", max_length=150)
    agent: str = Field("", description="The agent profile.", max_length=40)
    text: str = Field(
        "",
        description="Words of the title, task or last line, or the beginning of a key.",
        max_length=200,
    )
    created_after: Moment | None = Field(None, description="Asked for at this time or later.")
    created_before: Moment | None = Field(None, description="Asked for before this time.")
    label: str = Field("", description="A label: `name`, or `name=text`.", max_length=4200)


@operation(router, "GET", "", operation_id="runs_list", response=list[RunBrief])
@paged(ORDERS)
def runs_list(request: HttpRequest, filters: Query[Filters]) -> QuerySet[Run]:
    """List runs.

    Newest first, unless `sort` says otherwise. Filters narrow each other; unknown words are refused.
    """
    rows = queries.list_runs(
        project=filters.project,
        owner=caller(request).username if filters.owner == "me" else filters.owner,
        text=filters.text,
    )
    if filters.state:
        rows = rows.filter(state__in=_states(filters.state))
    if filters.label:
        rows = labels.having(rows, filters.label)
    if filters.agent:
        rows = rows.filter(agent=filters.agent)
    if filters.created_after is not None:
        rows = rows.filter(created_at__gte=filters.created_after)
    if filters.created_before is not None:
        rows = rows.filter(created_at__lt=filters.created_before)
    return rows


def _states(words: Iterable[str]) -> set[State]:
    found: set[State] = set()
    for word in words:
        if word == "active":
            found |= set(State) - ENDED
        elif word == "ended":
            found |= ENDED
        else:
            found.add(State(word))
    return found


@operation(
    router,
    "POST",
    "",
    operation_id="run_create",
    response={201: RunOut},
    once=True,
    problems=(409,),
)
def run_create(request: HttpRequest, body: RunIn) -> Any:
    """Ask for a run.

    It is queued at once and starts when there is a place. Follow it by its events.
    """
    owner = caller(request)
    provider = None
    if body.provider:
        provider = Provider.objects.filter(key=body.provider).first()
        if provider is None:
            raise Problem(404, "no-such-provider", f"There is no provider {body.provider[:20]!r}.")
    command = command_of(body)
    if body.agent != COMMAND and command != Command(argv=[]):
        raise Problem(
            400,
            "bad-request",
            "Only a run of the agent command has argv, image, env, workdir and interactive of its own.",
            next_step='Send "agent": "command" with them.',
        )
    return launched(
        owner,
        body.project,
        task=body.task and body.task + body.words_of_paperclip,
        title=body.title,
        agent=body.agent,
        command=command if body.agent == COMMAND else None,
        provider=provider,
        model=body.model,
        permission_policy=body.permission_policy,
        wall_seconds=body.wall_seconds,
        idempotency_key=body.idempotency_key_of_paperclip,
        labels={**body.labels, **body.labels_of_paperclip},
        unique_label=body.unique_label,
        token=owner.through,
        limits=limits_of(body),
        target=body.target,
    )


def limits_of(body: RunIn) -> dict[str, Decimal | int]:
    """The limits of its own that a body gives its run."""
    found: dict[str, Decimal | int] = {}
    if body.budget_usd is not None:
        found["usd"] = Decimal(body.budget_usd)
    if body.budget_requests is not None:
        found["requests"] = body.budget_requests
    return found


def launched(owner: User, project_slug: str, **more: Any) -> Any:
    """Launch and answer with the run. Raises Problem for a project that is not there, and what `launch` raises."""
    project = Project.objects.filter(slug=project_slug).first()
    if project is None:
        raise Problem(
            404,
            "no-such-project",
            f"There is no project {project_slug[:60]!r}.",
            next_step="`devaipod project list` lists them, as GET /api/devaipod/projects does.",
        )
    return Status(201, find(launch(project, owner, **more).key))


def command_of(given: RunIn | PodIn) -> Command:
    """The command of a request's body."""
    return Command(
        argv=given.argv,
        image=given.image,
        env={**given.env, **given.env_of_paperclip} if given.argv else given.env,
        workdir=given.workdir,
        interactive=given.interactive,
    )


@operation(router, "GET", "/{key}", operation_id="run_get", response=RunOut)
def run_get(request: HttpRequest, key: str) -> Run:
    """One run with everything.

    The permission requests that wait for an answer are among it.
    """
    return find(key)


@operation(
    router, "DELETE", "/{key}", operation_id="run_delete", response={204: None}, problems=(409, 503)
)
def run_delete(request: HttpRequest, key: str) -> Any:
    """Remove an ended run with everything of it.

    Transcript, logs, workspace and home, its repository and its review go; what was promoted stays where it is, and so do its
    entry in the audit log and what it cost (`usage`). A run that has not ended is refused (409): stop it first. A pod that is
    kept warm is ended. Another person's run needs the role manager.
    """
    delete(find(key), caller(request))
    return Status(204, None)


class OfAttempt(Schema):
    """Which attempt."""

    attempt: int | None = Field(
        None, ge=1, le=MAX_CURSOR, description="The attempt; without it the present one."
    )


def diagnosed(document: diagnosis.Document) -> HttpResponse:
    """A diagnosis as JSON, written as it is: checking it against its schema took as long as asking podman (a test does)."""
    return JsonResponse(document)


@operation(
    router, "GET", "/{key}/diagnostics", operation_id="run_diagnostics", response=DiagnosisOut
)
def run_diagnostics(request: HttpRequest, key: str, which: Query[OfAttempt]) -> HttpResponse:
    """What is wrong with a run and what to do.

    The diagnosis of its pod, or of the run alone while it has none.
    """
    run = find(key)
    if which.attempt is not None and not run.pods.filter(attempt=which.attempt).exists():
        raise nothing("attempt", str(which.attempt))
    return diagnosed(diagnosis.of_run(run, which.attempt))


@operation(
    router,
    "POST",
    "/{key}/prompt",
    operation_id="run_prompt",
    response={202: TurnOut},
    once=True,
    problems=(409,),
)
def run_prompt(request: HttpRequest, key: str, body: PromptIn) -> Any:
    """Say something more to the run's agent.

    An ended run goes on: in its warm pod, or queued for a new one. A paused one takes no prompt (409): resume it with the text.
    """
    turn: Turn = prompt(find(key), caller(request), body.text)
    return Status(202, turn)


@operation(
    router,
    "POST",
    "/{key}/permission",
    operation_id="run_permission",
    response=PermissionOut,
    problems=(409,),
)
def run_permission(request: HttpRequest, key: str, body: AnswerIn) -> PermissionRequest:
    """Answer a permission request.

    Of two answers the first counts; the second is told who was first (409).
    """
    asked = PermissionRequest.objects.filter(run=find(key), key=body.request).first()
    if asked is None:
        raise nothing("permission request of the run", body.request)
    return permissions.answer(asked, caller(request), option_id=body.option_id)


@operation(router, "POST", "/{key}/stop", operation_id="run_stop", response=RunOut, problems=(409,))
def run_stop(request: HttpRequest, key: str, body: StopIn | None = None) -> Run:
    """Stop a run.

    What its agent has done so far is staged.
    """
    stop(find(key), caller(request), reason=body.reason if body is not None else "")
    return find(key)


@operation(
    router,
    "POST",
    "/{key}/cancel-turn",
    operation_id="run_cancel_turn",
    response=RunOut,
    problems=(409,),
)
def run_cancel_turn(request: HttpRequest, key: str) -> Run:
    """End the present turn.

    The run stays and waits for a prompt.
    """
    cancel_turn(find(key), caller(request))
    return find(key)


@operation(
    router, "POST", "/{key}/pause", operation_id="run_pause", response=RunOut, problems=(409,)
)
def run_pause(request: HttpRequest, key: str, body: PauseIn | None = None) -> Run:
    """Pause a run.

    Its turn is cancelled and staged, its model is closed to it and its wall time stands still until it is resumed.
    """
    pause_by_hand(find(key), caller(request), reason=body.reason if body is not None else "")
    return find(key)


@operation(
    router,
    "POST",
    "/{key}/resume",
    operation_id="run_resume",
    response={202: RunOut},
    once=True,
    problems=(409, 503),
)
def run_resume(request: HttpRequest, key: str, body: ResumeIn | None = None) -> Any:
    """Let a paused run go on.

    In the same session; when its pod is gone it is queued for a new one. While an incident of a budget holds it, it is refused (409):
    resolve that.
    """
    resume(find(key), caller(request), text=body.text if body is not None else "")
    return Status(202, find(key))


@operation(
    router,
    "POST",
    "/{key}/input",
    operation_id="run_input",
    response={202: InputOut},
    once=True,
    problems=(409,),
)
def run_input(request: HttpRequest, key: str, body: InputIn) -> Any:
    """Write to the standard input of an interactive command."""
    return Status(202, send_input(find(key), caller(request), body.text))


@operation(router, "PATCH", "/{key}/labels", operation_id="run_labels", response=LabelsOut)
def run_labels(request: HttpRequest, key: str, body: LabelsIn) -> dict[str, Any]:
    """Set and remove labels of a run."""
    return {"labels": labels.change(find(key), body.labels)}


class Window(Schema):
    """Which events."""

    after: int = Field(
        0, ge=0, le=MAX_CURSOR, description="Those after this number: the last one that you have."
    )
    follow: bool = Field(
        False, description="Go on with those that are still to come, until the run has ended."
    )


@operation(
    router,
    "GET",
    "/{key}/events",
    operation_id="run_events",
    media={streams.CONTENT_TYPE: EventOut},
)
def run_events(request: HttpRequest, key: str, window: Query[Window]) -> HttpResponseBase:
    """The run's events as NDJSON.

    One document a line, in order of `seq`, which is the cursor: after a break ask again with `after` the last one, and nothing
    is lost and nothing comes twice. With `follow` the stream goes on until the run has ended and all of its events are sent,
    or the caller's token, session or role ends. A blank line comes every 15 quiet seconds, so that both ends notice a dead
    connection; skip it.
    """
    run = find(key)
    return streams.respond(_events(request, run, window.after, follow=window.follow))


async def _events(
    request: HttpRequest, run: Run, after: int, *, follow: bool
) -> AsyncIterator[bytes]:
    guard = streams.Guard(request)
    with wake.listening(run.key) as woken:
        while True:
            # The state is read before the events: what an ended run said last is then among them.
            ended = await db.read(_has_ended, run.pk)
            rows = await db.read(events.after, run.pk, after, limit=EVENTS_AT_ONCE)
            if rows:
                after = rows[-1].seq
                yield streams.lines(event_document(row) for row in rows)
                guard.wrote()
                if len(rows) == EVENTS_AT_ONCE:
                    continue
            if not follow or ended or not await guard.counts():
                return
            if guard.blank_due():
                yield b"\n"
                guard.wrote()
            await wake.pause(woken)


def _has_ended(run_id: int) -> bool:
    # A deleted run has ended as well.
    return not Run.objects.filter(pk=run_id).exclude(state__in=ENDED).exists()


def event_document(row: RunEvent) -> dict[str, Any]:
    """An event as the API shows it; the raw frame stays inside."""
    return {
        "seq": row.seq,
        "kind": row.kind,
        "v": row.v,
        "at": row.at.isoformat(),
        "payload": row.payload,
    }
