"""How much later than `podman logs -f` our page's socket has a line: both follow the same container at once."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time

import aiohttp

from tests.bench.browser import cookie, log_address
from tests.e2e.installation import Installation

LINES = 2000
PER_SECOND = 200
BOUND_SECONDS = 0.050


def measure(place: Installation, project: str) -> bool:
    """Print the median of the paired differences; whether it is within the bound."""
    task = f"sleep 2\nlog {LINES} {PER_SECOND}\nsleep 2"
    key = place.api("POST", "/runs", {"project": project, "task": task})["key"]
    place.wait_for_event(key, "turn.started", seconds=60)
    pod = place.run(key)["pods"][-1]
    ours, podman = asyncio.run(_both(place, key, pod, cookie(place)))
    differences = [ours[n] - podman[n] for n in range(LINES)]
    median = statistics.median(differences)
    place.wait_for_state(key, "succeeded", seconds=90)
    print(
        f"log latency       {median * 1000:+.1f} ms against podman logs -f, median of {LINES} paired lines "
        f"(p95 {sorted(differences)[int(LINES * 0.95)] * 1000:+.1f} ms; at most {BOUND_SECONDS * 1000:.0f} ms)",
        flush=True,
    )
    return median <= BOUND_SECONDS


async def _both(
    place: Installation, key: str, pod: str, session: str
) -> tuple[dict[int, float], dict[int, float]]:
    ours, podman = await asyncio.gather(
        _socket(place, key, pod, session), _podman(place, f"{pod}-agent")
    )
    return ours, podman


async def _socket(place: Installation, key: str, pod: str, session: str) -> dict[int, float]:
    seen: dict[int, float] = {}
    async with (
        aiohttp.ClientSession() as client,
        client.ws_connect(
            log_address(place, key, pod), headers={"Cookie": session, "Origin": place.url}
        ) as socket,
    ):
        async for message in socket:
            now = time.monotonic()
            for line in json.loads(message.data):
                words = line["text"].split()
                if words[:1] == ["line"]:
                    seen[int(words[1])] = now
            if len(seen) == LINES:
                break
    return seen


async def _podman(place: Installation, container: str) -> dict[int, float]:
    seen: dict[int, float] = {}
    process = await asyncio.create_subprocess_exec(
        "podman",
        "logs",
        "-f",
        container,
        env={**os.environ, "CONTAINERS_CONF": str(place.home / "podman" / "containers.conf")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    while len(seen) < LINES:
        words = (await process.stdout.readline()).decode().split()
        if words[:1] == ["line"]:
            seen[int(words[1])] = time.monotonic()
    process.kill()
    await process.wait()
    return seen
