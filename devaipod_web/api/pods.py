"""Pods over the API: which there were, what was kept of them, and their containers' logs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from ninja import Field, Query, Router, Schema
from ninja.responses import Status

from devaipod_web import db
from devaipod_web.api import streams
from devaipod_web.api.auth import caller
from devaipod_web.api.problems import Problem
from devaipod_web.api.reach import nothing
from devaipod_web.api.routing import Order, operation, paged
from devaipod_web.api.runs import command_of, diagnosed, launched
from devaipod_web.api.schemas.common import MAX_CURSOR
from devaipod_web.api.schemas.pods import DiagnosisOut, LogLineOut, PodDetail, PodOut
from devaipod_web.api.schemas.runs import PodIn, PodMade, StopIn
from devaipod_web.runs import diagnosis, logs, logs_hub, wake
from devaipod_web.runs.log_records import StoredLine
from devaipod_web.runs.models import RunPod
from devaipod_web.runs.services.destroy import destroy_pod, stop_pod
from pods.spec import AGENT

router = Router(tags=["pods"])

LINES_AT_ONCE = 1000
#: And characters of them: a line may be as long as it likes, and a slow caller holds no more than this.
CHARACTERS_AT_ONCE = 256 * 1024
GAP_TEXT = "[lines before this one were discarded]\n"
#: How soon a follower looks again while the log is quiet; a wake of the run makes it sooner.
LOOK_EVERY_SECONDS = 0.25


def find(name: str) -> RunPod:
    """The pod of this name among this installation's rows; never asked of the backend. Raises Http404."""
    pod = RunPod.objects.select_related("run", "run__project", "target").filter(name=name).first()
    if pod is None:
        raise nothing("pod", name)
    return pod


ORDERS = {
    "newest": Order("created_at", descending=True),
    "oldest": Order("created_at"),
    "attempt": Order("attempt", descending=True),
    "name": Order("name"),
    "project": Order("run__project__name"),
}


class Filters(Schema):
    """Which pods."""

    run: str = Field("", description="The key of a run.", max_length=20)
    project: str = Field("", description="The short name or key of a project.", max_length=60)
    state: Literal["", "live", "ended", "removed"] = Field(
        "",
        description="`live`: its tokens count; `ended`: they don't, and the backend may still have something of it; `removed`: "
        "it has nothing any more.",
    )
    live: bool = Field(False, description="Only those that live: the same as `state=live`.")
    attempt: int | None = Field(None, ge=1, le=32767, description="This attempt of its run.")
    backend: str = Field("", description="What made it: podman or kubernetes.", max_length=40)
    target: str = Field("", description="The name of a target.", max_length=40)


@operation(router, "GET", "", operation_id="pods_list", response=list[PodOut])
@paged(ORDERS)
def pods_list(request: HttpRequest, filters: Query[Filters]) -> QuerySet[RunPod]:
    """List pods.

    Each is an attempt of a run. Newest first, unless `sort` says otherwise.
    """
    rows = RunPod.objects.select_related("run", "run__project", "target")
    if filters.run:
        rows = rows.filter(run__key=filters.run)
    if filters.project:
        rows = rows.filter(
            Q(run__project__slug=filters.project) | Q(run__project__key=filters.project)
        )
    if filters.live or filters.state == "live":
        rows = rows.filter(ended_at=None)
    if filters.state == "ended":
        rows = rows.filter(ended_at__isnull=False, removed_at=None)
    elif filters.state == "removed":
        rows = rows.filter(removed_at__isnull=False)
    if filters.attempt is not None:
        rows = rows.filter(attempt=filters.attempt)
    if filters.backend:
        rows = rows.filter(backend=filters.backend)
    if filters.target:
        rows = rows.filter(target__name=filters.target)
    return rows


@operation(
    router,
    "POST",
    "",
    operation_id="pod_create",
    response={201: PodMade},
    once=True,
    problems=(409,),
)
def pod_create(request: HttpRequest, body: PodIn) -> Any:
    """Ask for a pod that executes a command.

    It is a run of the profile `command`. It may have to wait for a place; `pod` is null until it is made.
    """
    return launched(
        caller(request),
        body.project,
        command=command_of(body),
        title=body.title,
        wall_seconds=body.wall_seconds,
        idempotency_key=body.idempotency_key_of_paperclip,
        labels={**body.labels, **body.labels_of_paperclip},
        unique_label=body.unique_label,
        target=body.target,
    )


@operation(
    router, "POST", "/{name}/stop", operation_id="pod_stop", response=PodDetail, problems=(409,)
)
def pod_stop(request: HttpRequest, name: str, body: StopIn | None = None) -> RunPod:
    """Stop the run whose present attempt this pod is.

    What was done so far is staged, and then the pod goes.
    """
    stop_pod(find(name), caller(request), reason=body.reason if body is not None else "")
    return find(name)


@operation(
    router,
    "DELETE",
    "/{name}",
    operation_id="pod_destroy",
    response={200: PodDetail, 202: PodDetail},
)
def pod_destroy(request: HttpRequest, name: str) -> Any:
    """Have a pod go, and stop its run when it is at work.

    202 while it is going, 200 when it is gone; safe to repeat.

    What was done so far is staged first. Pod, FIFOs, socket and tokens go; rows, logs, transcript, workspace and what was staged stay.
    """
    destroy_pod(find(name), caller(request))
    pod = find(name)
    return Status(200 if pod.removed_at is not None else 202, pod)


@operation(router, "GET", "/{name}", operation_id="pod_get", response=PodDetail)
def pod_get(request: HttpRequest, name: str) -> RunPod:
    """One pod.

    Its steps, and what was kept when it ended.
    """
    return find(name)


@operation(
    router,
    "GET",
    "/{name}/diagnostics",
    operation_id="pod_diagnostics",
    response=DiagnosisOut,
)
def pod_diagnostics(request: HttpRequest, name: str) -> HttpResponse:
    """What is wrong with a pod and what to do.

    Its containers with their last lines, and findings.

    Answers for a pod that runs, has exited or is gone; a container backend that does not answer is a finding.
    """
    pod = find(name)
    return diagnosed(diagnosis.of_pod(pod.run, pod))


class Window(Schema):
    """Which lines."""

    container: str = Field(AGENT, description="The container's name.", max_length=63)
    after: int = Field(
        0, ge=0, le=MAX_CURSOR, description="Those after this number: the last one that you have."
    )
    tail: int | None = Field(
        None, ge=0, le=MAX_CURSOR, description="The last so many, of those after `after`."
    )
    follow: bool = Field(
        False, description="Go on with those that are still to come, until the pod is removed."
    )
    format: Literal["ndjson", "text"] = Field(
        "ndjson",
        description="`text` is a plain text file to be saved: lines without numbers, times and streams.",
    )


@operation(
    router,
    "GET",
    "/{name}/logs",
    operation_id="pod_logs",
    media={streams.CONTENT_TYPE: LogLineOut, "text/plain": None},
    problems=(410,),
)
def pod_logs(request: HttpRequest, name: str, window: Query[Window]) -> HttpResponseBase:
    """A container's log as NDJSON.

    One record a line; `n` is the cursor: after a break ask again with `after` the last one, and nothing is lost and nothing
    comes twice. `gap` says that the container's log limit discarded lines before this one. With `follow` the stream goes on
    until the pod is removed and all of its lines are sent, or the caller's token, session or role ends. A blank line comes
    every 15 quiet seconds; skip it. A pod that has ended is read from what was kept. Logs are removed when the
    installation keeps them no longer (410).
    """
    pod = find(name)
    if pod.run.logs_pruned_at is not None:
        raise Problem(
            410,
            "logs-removed",
            "The logs of this run were removed to save room.",
            next_step="The transcript is kept; DEVAIPOD_KEEP_LOGS_DAYS says how long logs are.",
        )
    if window.container not in _containers(pod):
        raise nothing("log of a container", window.container)
    after = window.after
    if window.tail is not None:
        last = logs.last_number(pod.run.key, pod.name, window.container)
        after = max(after, last - window.tail)
    reader = logs.Reader(pod.run.key, pod.name, window.container, after=after)
    is_text = window.format == "text"
    response = streams.respond(_lines(request, pod, reader, window.follow, is_text=is_text))
    if is_text:
        response.headers["Content-Type"] = "text/plain; charset=utf-8"
        response.headers["Content-Disposition"] = (
            f'attachment; filename="{pod.name}-{window.container}.log"'
        )
    return response


def _containers(pod: RunPod) -> set[str]:
    known = {container for name, container in logs.containers(pod.run.key) if name == pod.name}
    # A pod that has only just been made has no log yet, and will have these.
    return known | {"agent", "sidecar"}


async def _lines(
    request: HttpRequest, pod: RunPod, reader: logs.Reader, follow: bool, *, is_text: bool
) -> AsyncIterator[bytes]:
    guard = streams.Guard(request)
    encode = _text if is_text else _documents
    try:
        with wake.listening(pod.run.key) as woken:
            while True:
                ended = not follow or await db.read(_has_ended, pod.pk)
                while piece := await logs_hub.in_thread(_piece, reader, encode):
                    yield piece
                    guard.wrote()
                    if not await guard.counts():
                        return
                if ended or not await guard.counts():
                    return
                if guard.blank_due() and not is_text:
                    yield b"\n"
                    guard.wrote()
                await _soon(woken)
    finally:
        reader.close()


def _piece(reader: logs.Reader, encode: Callable[[list[StoredLine]], bytes]) -> bytes:
    """In a reader's thread: the next lines, encoded."""
    return encode(reader.read(LINES_AT_ONCE, characters=CHARACTERS_AT_ONCE))


def _documents(found: list[StoredLine]) -> bytes:
    return streams.lines(line_document(line) for line in found)


def _text(found: list[StoredLine]) -> bytes:
    return "".join(
        f"{GAP_TEXT if line.gap else ''}{line.text}{'' if line.partial else chr(10)}"
        for line in found
    ).encode("utf-8", "replace")


async def _soon(woken: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(LOOK_EVERY_SECONDS):
            await woken.wait()
    except TimeoutError:
        return
    woken.clear()


def _has_ended(pod_id: int) -> bool:
    # One whose run was deleted has ended as well.
    return not RunPod.objects.filter(pk=pod_id, removed_at=None).exists()


def line_document(line: Any) -> dict[str, Any]:
    """A stored line as the API shows it."""
    return {
        "n": line.n,
        "at": line.at,
        "stream": line.stream,
        "text": line.text,
        "partial": line.partial,
        "gap": line.gap,
    }
