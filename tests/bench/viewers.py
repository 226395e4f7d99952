"""200 people look at one run's log at 500 lines a second: nothing lost, nothing doubled, little memory each."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import aiohttp

from tests.bench.browser import cookie, log_address
from tests.e2e.installation import Installation

VIEWERS = 200
LINES = 10_000
PER_SECOND = 500
BOUND_BYTES = 0.5e6


def measure(place: Installation, project: str) -> bool:
    """Print lost, doubled and bytes a viewer; whether all are within their bounds."""
    assert place.server is not None
    task = f"sleep 20\nlog {LINES} {PER_SECOND}\nsleep 2"
    key = place.api("POST", "/runs", {"project": project, "task": task})["key"]
    place.wait_for_event(key, "turn.started", seconds=60)
    pod = place.run(key)["pods"][-1]
    before = resident(place.server.pid)
    address, session = log_address(place, key, pod), cookie(place)
    lost, doubled, peak = asyncio.run(_watch(address, session, place.url, place.server.pid))
    place.wait_for_state(key, "succeeded", seconds=120)
    each = (peak - before) / VIEWERS
    print(
        f"{VIEWERS} viewers       {lost} lost, {doubled} doubled of {VIEWERS} × {LINES} lines at {PER_SECOND} a second, "
        f"{each / 1e6:.2f} MB a viewer at the peak (at most {BOUND_BYTES / 1e6:.1f})",
        flush=True,
    )
    return lost == 0 and doubled == 0 and each <= BOUND_BYTES


def resident(pid: int) -> int:
    """Resident memory of a process in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


async def _watch(address: str, session: str, origin: str, pid: int) -> tuple[int, int, int]:
    """Let every viewer read to the end; returns lost, doubled and the server's peak of resident bytes."""
    peak = 0
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
        viewers = [
            asyncio.create_task(_view(client, address, session, origin)) for _ in range(VIEWERS)
        ]
        while not all(task.done() for task in viewers):
            peak = max(peak, resident(pid))
            await asyncio.sleep(0.25)
        counts = [task.result() for task in viewers]
    return sum(LINES - seen for seen, _ in counts), sum(doubled for _, doubled in counts), peak


async def _view(
    client: aiohttp.ClientSession, address: str, session: str, origin: str
) -> tuple[int, int]:
    """One viewer: how many different lines came, and how many came again. Ends with the last line or after two minutes."""
    seen = bytearray(LINES)
    count = doubled = 0
    try:
        async with (
            asyncio.timeout(180),
            client.ws_connect(
                address, headers={"Cookie": session, "Origin": origin}, max_msg_size=1 << 24
            ) as socket,
        ):
            async for message in socket:
                for line in json.loads(message.data):
                    words = line["text"].split()
                    if words[:1] != ["line"]:
                        continue
                    number = int(words[1])
                    doubled += seen[number]
                    count += 1 - seen[number]
                    seen[number] = 1
                if count == LINES:
                    break
    except (TimeoutError, aiohttp.ClientError) as error:
        print(f"a viewer ended early: {error}", file=sys.stderr)
    return count, doubled
