"""Pods over the API: which there were, what was kept of them, and their containers' logs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponseBase
from ninja import Query, Router, Schema

from devaipod_web import db
from devaipod_web.api import streams
from devaipod_web.api.problems import Problem
from devaipod_web.api.routing import operation, paged
from devaipod_web.api.schemas import PodDetail, PodOut
from devaipod_web.runs import logs, logs_hub, wake
from devaipod_web.runs.log_records import StoredLine
from devaipod_web.runs.models import RunPod
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
    pod = RunPod.objects.select_related("run", "run__project").filter(name=name).first()
    if pod is None:
        raise Http404(f"There is no pod {name[:63]}.")
    return pod


class Filters(Schema):
    """Which pods: of one run, and with `live` only those that have not ended."""

    run: str = ""
    live: bool = False


@operation(router, "GET", "", operation_id="pods_list", response=list[PodOut])
@paged("-created_at", "-id")
def pods_list(request: HttpRequest, filters: Query[Filters]) -> QuerySet[RunPod]:
    """List pods (attempts of runs), newest first."""
    rows = RunPod.objects.select_related("run", "run__project")
    if filters.run:
        rows = rows.filter(run__key=filters.run)
    if filters.live:
        rows = rows.filter(ended_at=None)
    return rows


@operation(router, "GET", "/{name}", operation_id="pod_get", response=PodDetail)
def pod_get(request: HttpRequest, name: str) -> RunPod:
    """One pod: its steps, and what was kept when it ended."""
    return find(name)


class Window(Schema):
    """Which lines: after the number `after`, or the last `tail`; with `follow` also those still to come.

    `format` is `ndjson`, or `text` for a plain text file: lines without numbers, times and streams.
    """

    container: str = AGENT
    after: int = 0
    tail: int | None = None
    follow: bool = False
    format: Literal["ndjson", "text"] = "ndjson"


@operation(router, "GET", "/{name}/logs", operation_id="pod_logs")
def pod_logs(request: HttpRequest, name: str, window: Query[Window]) -> HttpResponseBase:
    """A container's log as NDJSON: {n, at, stream, text, partial, gap}; `n` is the cursor.

    With `follow` the stream goes on until the pod has ended and all of its lines are sent. With `format=text` it is a file of plain
    text to be saved. Logs of ended pods are read from their archive, until retention removes them (410).
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
        raise Http404(f"The pod has no log of a container {window.container[:40]!r}.")
    after = window.after
    if window.tail is not None:
        last = logs.last_number(pod.run.key, pod.name, window.container)
        after = max(after, last - max(0, window.tail))
    reader = logs.Reader(pod.run.key, pod.name, window.container, after=max(0, after))
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
    return RunPod.objects.filter(pk=pod_id, removed_at__isnull=False).exists()


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
