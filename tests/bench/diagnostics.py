"""How long a diagnosis takes beside the calls that it is made of, on podman's own socket: both in turn, in one process, 30 times."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from pathlib import Path
from typing import Any

import aiohttp

from tests.e2e.installation import Installation

ROUNDS = 30
WARM_UP = 3
BOUND = 1.5
LINES = 50
LIBPOD = "http://podman/v4.0.0/libpod"


def measure(place: Installation, project: str) -> bool:
    """Print both medians and their ratio; whether it is within the bound."""
    ours, podmans = pairs(place, project)
    ratio = statistics.median(ours) / statistics.median(podmans)
    print(
        f"diagnostics       {statistics.median(ours) * 1000:.1f} ms against {statistics.median(podmans) * 1000:.1f} ms of the same "
        f"calls on podman's socket, medians of {ROUNDS} (ratio {ratio:.2f}, at most {BOUND})",
        flush=True,
    )
    return ratio <= BOUND


def pairs(place: Installation, project: str) -> tuple[list[float], list[float]]:
    """Seconds of each round, ours and podman's, for a pod at work whose agent has written more than is shown."""
    task = "log 200 2000\nwrite note.txt done\nsleep 300"
    key = place.api("POST", "/runs", {"project": project, "task": task})["key"]
    place.wait_for_event(key, "tool_call", seconds=90)
    pod = place.run(key)["pods"][-1]
    socket = Path(
        place.python("from devaipod_web import home; print(home.podman_socket())").strip()
    )
    try:
        return asyncio.run(_rounds(place, pod, socket))
    finally:
        place.api("POST", f"/runs/{key}/stop", {})


async def _rounds(place: Installation, pod: str, socket: Path) -> tuple[list[float], list[float]]:
    ours: list[float] = []
    podmans: list[float] = []
    headers = {"Authorization": f"Bearer {place.token}"}
    address = f"{place.url}/api/devaipod/pods/{pod}/diagnostics"
    async with (
        aiohttp.ClientSession(headers=headers) as web,
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as podman,
    ):
        for number in range(ROUNDS + WARM_UP):
            begun = time.monotonic()
            async with web.get(address) as answer:
                document = await answer.json()
            between = time.monotonic()
            raw = await same_calls(podman, pod)
            ended = time.monotonic()
            assert document["state"] == "running", document
            assert [len(one["logs"]) for one in document["containers"]][0] == LINES
            assert len(raw) == 5
            if number >= WARM_UP:
                ours.append(between - begun)
                podmans.append(ended - between)
    return ours, podmans


async def same_calls(podman: aiohttp.ClientSession, pod: str) -> list[Any]:
    """What a diagnosis is made of: the pod, and of each container its state and its last lines, on one kept connection."""
    names = [f"{pod}-agent", f"{pod}-sidecar"]
    tail = f"logs?stdout=true&stderr=true&tail={LINES}"
    paths = [f"/pods/{pod}/json", *(f"/containers/{name}/json" for name in names)]
    paths += [f"/containers/{name}/{tail}" for name in names]
    answers = []
    for path in paths:
        async with podman.get(f"{LIBPOD}{path}") as answer:
            assert answer.status == 200, path
            answers.append(await answer.read())
    return [json.loads(text) for text in answers[:3]] + list(answers[3:])
