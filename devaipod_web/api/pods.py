"""Pods over the API: which there were, what was kept of them, and their containers' logs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from ninja import Query, Router, Schema

from devaipod_web import db
from devaipod_web.api import streams
from devaipod_web.api.routing import operation, paged
from devaipod_web.api.schemas import DiagnosisOut, PodDetail, PodOut
from devaipod_web.runs import diagnosis, logs, wake
from devaipod_web.runs.models import RunPod
from pods.spec import AGENT

router = Router(tags=["pods"])

LINES_AT_ONCE = 1000
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


@operation(
    router,
    "GET",
    "/{name}/diagnostics",
    operation_id="pod_diagnostics",
    response=DiagnosisOut,
)
def pod_diagnostics(request: HttpRequest, name: str) -> HttpResponse:
    """What is wrong with a pod and what to do: its containers with their last lines, and findings.

    Answers for a pod that runs, has exited or is gone; a container backend that does not answer is a finding.
    """
    pod = find(name)
    return diagnosed(diagnosis.of_pod(pod.run, pod))


def diagnosed(document: diagnosis.Document) -> HttpResponse:
    """A diagnosis as JSON, written as it is: checking it against its schema took as long as asking podman (a test does)."""
    return JsonResponse(document)


class Window(Schema):
    """Which lines: after the number `after`, or the last `tail`; with `follow` also those still to come."""

    container: str = AGENT
    after: int = 0
    tail: int | None = None
    follow: bool = False


@operation(router, "GET", "/{name}/logs", operation_id="pod_logs")
def pod_logs(request: HttpRequest, name: str, window: Query[Window]) -> HttpResponseBase:
    """A container's log as NDJSON: {n, at, stream, text, partial, gap}; `n` is the cursor.

    With `follow` the stream goes on until the pod has ended and all of its lines are sent.
    """
    pod = find(name)
    if window.container not in _containers(pod):
        raise Http404(f"The pod has no log of a container {window.container[:40]!r}.")
    after = window.after
    if window.tail is not None:
        last = logs.last_number(pod.run.key, pod.name, window.container)
        after = max(after, last - max(0, window.tail))
    return streams.respond(
        _lines(request, pod, window.container, max(0, after), follow=window.follow)
    )


def _containers(pod: RunPod) -> set[str]:
    known = {container for name, container in logs.containers(pod.run.key) if name == pod.name}
    # A pod that has only just been made has no log yet, and will have these.
    return known | {"agent", "sidecar"}


async def _lines(
    request: HttpRequest, pod: RunPod, container: str, after: int, *, follow: bool
) -> AsyncIterator[bytes]:
    guard = streams.Guard(request)
    with wake.listening(pod.run.key) as woken:
        while True:
            ended = await db.read(_has_ended, pod.pk)
            found = await asyncio.to_thread(
                logs.read, pod.run.key, pod.name, container, after=after, limit=LINES_AT_ONCE
            )
            if found:
                after = found[-1].n
                yield streams.lines(line_document(line) for line in found)
                guard.wrote()
                if len(found) == LINES_AT_ONCE:
                    continue
            if not follow or ended or not await guard.counts():
                return
            if guard.blank_due():
                yield b"\n"
                guard.wrote()
            await _soon(woken)


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
