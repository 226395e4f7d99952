"""Runs over the API: create, list, read, follow, and steer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from ninja import Header, Query, Router, Schema
from ninja.responses import Status

from devaipod_web import db
from devaipod_web.api import streams
from devaipod_web.api.auth import caller
from devaipod_web.api.pods import diagnosed
from devaipod_web.api.problems import Problem
from devaipod_web.api.routing import operation, paged
from devaipod_web.api.schemas import (
    AnswerIn,
    DiagnosisOut,
    PermissionOut,
    PromptIn,
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
from devaipod_web.runs.services import permissions
from devaipod_web.runs.services.launch import launch
from devaipod_web.runs.services.prompt import prompt
from devaipod_web.runs.services.stop import cancel_turn, stop
from devaipod_web.runs.states import ENDED, State

router = Router(tags=["runs"])

EVENTS_AT_ONCE = 500
MAX_IDEMPOTENCY_KEY = 100


def find(key: str) -> Run:
    """The run of this key. Raises Http404."""
    run = queries.rows().filter(key=key).first()
    if run is None:
        raise Http404(f"There is no run {key[:20]}.")
    return run


class Filters(Schema):
    """Which runs. `state` may be `active` (not ended), `ended`, or several states with commas between."""

    project: str = ""
    state: str = ""
    owner: str = ""
    text: str = ""


@operation(router, "GET", "", operation_id="runs_list", response=list[RunBrief])
@paged("-created_at", "-id")
def runs_list(request: HttpRequest, filters: Query[Filters]) -> QuerySet[Run]:
    """List runs, newest first."""
    owner = caller(request).username if filters.owner == "me" else filters.owner
    rows = queries.list_runs(project=filters.project, owner=owner, text=filters.text[:200])
    return rows.filter(state__in=_states(filters.state)) if filters.state else rows


def _states(words: str) -> set[State]:
    found: set[State] = set()
    for word in words.split(","):
        if word == "active":
            found |= set(State) - ENDED
        elif word == "ended":
            found |= ENDED
        elif word in State.values:
            found.add(State(word))
        else:
            raise Problem(
                400,
                "no-such-state",
                f"There is no state {word[:30]!r}.",
                next_step=f"States are {', '.join(State.values)}; also active and ended.",
            )
    return found


@operation(router, "POST", "", operation_id="run_create", response={200: RunOut, 201: RunOut})
def run_create(
    request: HttpRequest,
    body: RunIn,
    idempotency_key: str | None = Header(None, alias="Idempotency-Key"),  # type: ignore[type-arg]
) -> Any:
    """Ask for a run. The same Idempotency-Key of the same caller answers with the same run (200 instead of 201)."""
    owner = caller(request)
    if idempotency_key is not None and not 1 <= len(idempotency_key) <= MAX_IDEMPOTENCY_KEY:
        raise Problem(
            400,
            "bad-idempotency-key",
            f"An Idempotency-Key has 1 to {MAX_IDEMPOTENCY_KEY} characters.",
        )
    project = Project.objects.filter(slug=body.project).first()
    if project is None:
        raise Problem(
            404,
            "no-such-project",
            f"There is no project {body.project[:60]!r}.",
            next_step="GET /api/devaipod/projects lists them.",
        )
    provider = None
    if body.provider:
        provider = Provider.objects.filter(key=body.provider).first()
        if provider is None:
            raise Problem(404, "no-such-provider", f"There is no provider {body.provider[:20]!r}.")
    newest = Run.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    run = launch(
        project,
        owner,
        task=body.task,
        title=body.title,
        agent=body.agent,
        provider=provider,
        model=body.model,
        permission_policy=body.permission_policy,
        wall_seconds=body.wall_seconds,
        idempotency_key=idempotency_key,
    )
    # Rows are never deleted and renumbered: an id that was there before the launch is an earlier answer's.
    return Status(201 if run.pk > newest else 200, find(run.key))


@operation(router, "GET", "/{key}", operation_id="run_get", response=RunOut)
def run_get(request: HttpRequest, key: str) -> Run:
    """One run with everything, its open permission requests among it."""
    return find(key)


class OfAttempt(Schema):
    """Which attempt of the run; without it the present one."""

    attempt: int | None = None


@operation(
    router,
    "GET",
    "/{key}/diagnostics",
    operation_id="run_diagnostics",
    response=DiagnosisOut,
)
def run_diagnostics(request: HttpRequest, key: str, which: Query[OfAttempt]) -> HttpResponse:
    """What is wrong with a run and what to do: the diagnosis of its pod, or of the run alone while it has none."""
    run = find(key)
    if which.attempt is not None and not run.pods.filter(attempt=which.attempt).exists():
        raise Http404(f"The run has no attempt {which.attempt}.")
    return diagnosed(diagnosis.of_run(run, which.attempt))


@operation(router, "POST", "/{key}/prompt", operation_id="run_prompt", response={202: TurnOut})
def run_prompt(request: HttpRequest, key: str, body: PromptIn) -> Any:
    """Say something more to the run's agent. An ended run goes on: in its warm pod, or queued for a new one."""
    turn: Turn = prompt(find(key), caller(request), body.text)
    return Status(202, turn)


@operation(
    router, "POST", "/{key}/permission", operation_id="run_permission", response=PermissionOut
)
def run_permission(request: HttpRequest, key: str, body: AnswerIn) -> PermissionRequest:
    """Answer a permission request. Of two answers the first counts; the second is told who was first (409)."""
    asked = PermissionRequest.objects.filter(run=find(key), key=body.request).first()
    if asked is None:
        raise Http404(f"The run has no permission request {body.request[:20]!r}.")
    return permissions.answer(asked, caller(request), option_id=body.option_id)


@operation(router, "POST", "/{key}/stop", operation_id="run_stop", response=RunOut)
def run_stop(request: HttpRequest, key: str, body: StopIn | None = None) -> Run:
    """Stop a run. What its agent has done so far is staged."""
    stop(find(key), caller(request), reason=body.reason if body is not None else "")
    return find(key)


@operation(router, "POST", "/{key}/cancel-turn", operation_id="run_cancel_turn", response=RunOut)
def run_cancel_turn(request: HttpRequest, key: str) -> Run:
    """End the present turn; the run stays and waits for a prompt."""
    cancel_turn(find(key), caller(request))
    return find(key)


class Window(Schema):
    """Which events: those after `after`; with `follow`, also those that are still to come until the run has ended."""

    after: int = 0
    follow: bool = False


@operation(router, "GET", "/{key}/events", operation_id="run_events")
def run_events(request: HttpRequest, key: str, window: Query[Window]) -> HttpResponseBase:
    """The run's events as NDJSON, in order of `seq`, which is the cursor.

    With `follow` the stream goes on until the run has ended and all of its events are sent.
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
    return Run.objects.filter(pk=run_id, state__in=ENDED).exists()


def event_document(row: RunEvent) -> dict[str, Any]:
    """An event as the API shows it; the raw frame stays inside."""
    return {
        "seq": row.seq,
        "kind": row.kind,
        "v": row.v,
        "at": row.at.isoformat(),
        "payload": row.payload,
    }
