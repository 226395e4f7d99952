"""A container writes a gigabyte of lines, then one line of 100 MB, then binary: the server's memory stays flat and its pages answer.

Everything is real: the container's standard error, conmon and its k8s-file of 16 MiB, our follower, the store, and beside them a page's
socket, a reader of the API who takes one piece a second, and somebody who opens another page again and again.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import aiohttp

from tests.bench.browser import cookie, log_address
from tests.bench.viewers import resident
from tests.e2e.installation import Installation

BOUND_GROWTH_BYTES = 64e6
BOUND_KEPT_BYTES = 48e6
BOUND_MB_PER_SECOND = 2.0
BOUND_MEDIAN_SECONDS = 0.25
BOUND_P95_SECONDS = 1.0
#: How the first line of the flood begins.
FIRST = "0 2026"
#: (name, directive, what its last line begins with, megabytes)
KINDS = [
    ("lines", "flood {}", "flood ", 1000),
    ("one line", "longline {}", "longline ends", 100),
    ("binary", "noise {}", "noise ends", 20),
]


@dataclass
class Watched:
    """What was seen of the server while a container wrote."""

    peak: int = 0
    took: list[float] = field(default_factory=list)


def measure(place: Installation, project: str, *, scale: float = 1.0) -> bool:
    """Print memory, throughput and latency for each kind; whether all are within their bounds. `scale` 0.1 is a tenth of it."""
    good = True
    for name, directive, last, megabytes in KINDS:
        amount = max(int(megabytes * scale), 1)
        good &= _one(place, project, name, directive.format(amount), last, amount)
    return good


def _one(
    place: Installation, project: str, name: str, directive: str, last: str, megabytes: int
) -> bool:
    assert place.server is not None
    pid = place.server.pid
    key = place.api(
        "POST", "/runs", {"project": project, "task": f"sleep 6\n{directive}\nsleep 2"}
    )["key"]
    place.wait_for_event(key, "turn.started", seconds=60)
    pod = place.run(key)["pods"][-1]
    session = cookie(place)
    before = resident(pid)
    watched, stop = Watched(), threading.Event()
    threads = [
        threading.Thread(target=_look, args=(place, pid, watched, stop), daemon=True),
        threading.Thread(target=_slow, args=(place, pod, stop), daemon=True),
        threading.Thread(
            target=lambda: asyncio.run(_page(place, key, pod, session, stop)), daemon=True
        ),
    ]
    for thread in threads:
        thread.start()
    seconds = _until_stored(place, pod, last)
    stop.set()
    for thread in threads:
        thread.join(30)
    place.wait_for_state(key, "succeeded", seconds=300)
    place.wait(lambda: place.api("GET", f"/pods/{pod}")["ended_at"], 120, "the pod's end")
    # What is still held when nothing happens any more.
    time.sleep(5)
    after = resident(pid)
    read_seconds, lines, gaps, whole = _read_back(place, pod)
    rate = megabytes / seconds
    median = statistics.median(watched.took)
    p95 = sorted(watched.took)[int(len(watched.took) * 0.95)]
    disk = place.home.joinpath("logs", key, pod, "agent")
    kept = sum(path.stat().st_size for path in disk.iterdir())
    print(
        f"log of {megabytes} MB, {name}: memory {before / 1e6:.0f} MB before, {watched.peak / 1e6:.0f} at the peak, "
        f"{after / 1e6:.0f} after (at most {BOUND_GROWTH_BYTES / 1e6:.0f} more, {BOUND_KEPT_BYTES / 1e6:.0f} kept)\n"
        f"    worked off at {rate:.1f} MB/s (at least {BOUND_MB_PER_SECOND:.0f}); {whole / 1e6:.0f} MB stored in {lines} records with "
        f"{gaps} gaps, {kept / 1e6:.0f} MB of disk; read back as a file at {whole / read_seconds / 1e6:.1f} MB/s\n"
        f"    another page meanwhile: {median * 1000:.0f} ms median of {len(watched.took)}, {p95 * 1000:.0f} ms p95 "
        f"(at most {BOUND_MEDIAN_SECONDS * 1000:.0f} and {BOUND_P95_SECONDS * 1000:.0f})",
        flush=True,
    )
    return (
        watched.peak - before <= BOUND_GROWTH_BYTES
        and after - before <= BOUND_KEPT_BYTES
        and rate >= BOUND_MB_PER_SECOND
        and median <= BOUND_MEDIAN_SECONDS
        and p95 <= BOUND_P95_SECONDS
    )


def _until_stored(place: Installation, pod: str, last: str) -> float:
    """Seconds from when the container wrote the first piece until the last line is in the store."""
    deadline = time.monotonic() + 1800
    while time.monotonic() < deadline:
        if any(
            line["text"].startswith(last) for line in place.api("GET", f"/pods/{pod}/logs?tail=3")
        ):
            ended = time.time()
            first = next(
                line
                for line in _documents(place, pod)
                if line["text"].startswith(FIRST) or line["partial"]
            )
            return ended - datetime.fromisoformat(first["at"]).timestamp()
        time.sleep(0.2)
    raise AssertionError(f"the log of {pod} does not end with {last!r}")


def _look(place: Installation, pid: int, watched: Watched, stop: threading.Event) -> None:
    """Open another page again and again, and note how long it took and how big the server is."""
    while not stop.is_set():
        began = time.monotonic()
        place.api("GET", "/projects")
        watched.took.append(time.monotonic() - began)
        watched.peak = max(watched.peak, resident(pid))
        stop.wait(0.1)


def _slow(place: Installation, pod: str, stop: threading.Event) -> None:
    """Follow the log over the API and take 64 KiB a second."""
    connection = http.client.HTTPConnection("127.0.0.1", place.port, timeout=60)
    connection.request(
        "GET",
        f"/api/devaipod/pods/{pod}/logs?follow=true",
        headers={"Authorization": f"Bearer {place.token}"},
    )
    answer = connection.getresponse()
    while not stop.is_set():
        answer.read(64 * 1024)
        stop.wait(1)
    connection.close()


async def _page(
    place: Installation, key: str, pod: str, session: str, stop: threading.Event
) -> None:
    """A page's socket, read as fast as it comes."""
    headers = {"Cookie": session, "Origin": place.url}
    async with (
        aiohttp.ClientSession() as client,
        client.ws_connect(
            log_address(place, key, pod), headers=headers, max_msg_size=1 << 24
        ) as socket,
    ):
        while not stop.is_set():
            try:
                message = await socket.receive(timeout=1)
            except TimeoutError:
                continue
            if message.type is not aiohttp.WSMsgType.TEXT:
                return
            json.loads(message.data)


def _read_back(place: Installation, pod: str) -> tuple[float, int, int, int]:
    """Read the archive: seconds for the whole as text, its records, gaps, and bytes. Each number once, and no hole without its mark."""
    began = time.monotonic()
    whole = sum(len(piece) for piece in _pieces(place, f"/pods/{pod}/logs?format=text"))
    seconds = time.monotonic() - began
    lines = gaps = 0
    expected = 1
    for line in _documents(place, pod):
        lines, gaps = lines + 1, gaps + line["gap"]
        assert line["gap"] or line["n"] == expected, (line["n"], expected)
        expected = line["n"] + 1
    return seconds, lines, gaps, whole


def _documents(place: Installation, pod: str) -> Iterator[dict[str, Any]]:
    rest = b""
    for piece in _pieces(place, f"/pods/{pod}/logs"):
        *documents, rest = (rest + piece).split(b"\n")
        yield from (json.loads(document) for document in documents)


def _pieces(place: Installation, path: str) -> Iterator[bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", place.port, timeout=120)
    connection.request(
        "GET", f"/api/devaipod{path}", headers={"Authorization": f"Bearer {place.token}"}
    )
    answer = connection.getresponse()
    while piece := answer.read(256 * 1024):
        yield piece
    connection.close()
