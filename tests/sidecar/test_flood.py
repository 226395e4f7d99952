"""Whatever an agent writes: each once, in order, within bounds of memory and disk."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.installation import ROOT
from tests.sidecar.rig import Rig, until

pytestmark = pytest.mark.slow
FLOOD = f"{sys.executable} {ROOT / 'tests' / 'agents' / 'flood.py'}"


async def begin(rig: Rig, **env: str) -> None:
    await rig.gateway.start()
    await rig.start_sidecar(**env)
    await rig.gateway.wait("workspace.ready")
    await rig.start_agent(FLOOD)
    await rig.gateway.wait("session.started")


def peak_kilobytes(pid: int) -> int:
    """The most memory that the process has had (proc(5), VmHWM)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0])


def numbers(events: list[dict[str, Any]]) -> list[int]:
    """The numbers in brackets, in the order of the events."""
    return [int(n) for e in events for n in re.findall(r"\[(\d+)\]", json.dumps(e["payload"]))]


async def test_ten_thousand_interleaved_updates_and_a_frame_of_50_mb_arrive_once_each_in_order(
    rig: Rig,
):
    await begin(rig)
    plan = {"updates": 10_000, "big": 50 << 20, "too_big": 70 << 20}
    await rig.prompt(json.dumps(plan), seconds=180)
    events = rig.gateway.events
    turn = next(i for i, e in enumerate(events) if e["kind"] == "turn.started")
    assert numbers(events[turn + 1 :]) == list(range(10_000))
    assert rig.gateway.doubles == 0
    kinds = [event["kind"] for event in events]
    assert kinds.count("acp.other") == 2500
    assert kinds.count("agent.junk") == 2500
    big = [p for p in rig.gateway.of("tool_call") if p["tool_call_id"] == "big"]
    assert len(big) == 1
    assert big[0]["truncated"] is True
    assert big[0]["bytes"] > 50 << 20
    assert [p["bytes"] for p in rig.gateway.of("agent.oversize")] == [70 << 20]
    assert kinds.index("agent.oversize") < len(kinds) - 1 - kinds[::-1].index("message")
    assert rig.sidecar is not None
    peak = peak_kilobytes(rig.sidecar.pid)
    assert peak < 420 * 1024, f"{peak} KB of the container's 512 MB"


async def test_malformed_frames_do_not_end_the_reading(rig: Rig):
    await begin(rig)
    await rig.gateway.command("prompt", turn=1, text=json.dumps({"odd": True}))
    ended = await rig.gateway.wait("turn.ended")
    assert ended["stop_reason"] == "end_turn"
    assert rig.gateway.of("message")[-1]["text"] == "the end"
    assert len(rig.gateway.of("agent.junk")) >= 7
    assert all("NaN" not in json.dumps(event) for event in rig.gateway.events)


async def test_beyond_the_runs_limit_events_are_counted_and_the_run_still_ends(rig: Rig):
    rig.gateway.config["max_events"] = 50
    await begin(rig)
    await rig.prompt(json.dumps({"updates": 400}))
    assert len(rig.gateway.events) < 80
    dropped = rig.gateway.of("dropped")
    assert dropped[0]["count"] == 1
    assert dropped[-1]["count"] > 200
    assert rig.gateway.of("turn.ended")


async def test_a_restart_of_the_gateway_loses_and_doubles_nothing(rig: Rig):
    await begin(rig)
    await rig.gateway.command("prompt", turn=1, text=json.dumps({"updates": 4000}))
    await until(lambda: len(rig.gateway.events) > 100, 20, "the flood")
    await rig.gateway.stop()
    await asyncio.sleep(0.5)
    await rig.gateway.start()
    await rig.gateway.wait("work.staged", 60)
    events = rig.gateway.events
    turn = next(i for i, e in enumerate(events) if e["kind"] == "turn.started")
    assert numbers(events[turn + 1 :]) == list(range(4000))
    assert len(rig.gateway.hellos) == 2


async def test_events_of_a_killed_sidecar_are_sent_again(rig: Rig):
    await begin(rig)
    rig.gateway.hold_acks = True
    await rig.prompt(json.dumps({"updates": 200}))
    await rig.gateway.stop()
    before = len(rig.gateway.events)
    del rig.gateway.events[5:]  # what was never committed over there
    assert rig.sidecar is not None
    rig.sidecar.kill()
    await rig.sidecar.wait()
    rig.gateway.hold_acks = False
    rig.gateway.config["resume"] = True
    await rig.gateway.start()
    await rig.start_sidecar()
    await until(lambda: len(rig.gateway.events) >= before, 20, "the events of before")
    assert numbers(rig.gateway.events[:before])[-200:] == list(range(200))
    assert rig.gateway.doubles == 0
    assert rig.gateway.hellos[-1]["last_source_seq"] >= before


async def test_a_full_outbox_stops_the_reading_and_commands_still_pass(rig: Rig):
    await begin(rig, DEVAIPOD_OUTBOX_BYTES="200000")
    rig.gateway.hold_acks = True
    await rig.gateway.command("prompt", turn=1, text=json.dumps({"updates": 20_000}))
    await asyncio.sleep(3)
    outbox = sum(p.stat().st_size for p in (rig.folder / "state").rglob("*.ndjson"))
    assert outbox < 1 << 20
    assert not rig.gateway.of("turn.ended")
    refused = await rig.gateway.command("permission", request_id="none", outcome="cancelled")
    await rig.gateway.wait("command.refused", command=refused["id"])
    rig.gateway.hold_acks = False
    await rig.gateway.command("permission", request_id="none", outcome="cancelled")
    await rig.gateway.wait("turn.ended", 90)
    events = rig.gateway.events
    turn = next(i for i, e in enumerate(events) if e["kind"] == "turn.started")
    assert numbers(events[turn + 1 :]) == list(range(20_000))


async def test_an_idle_sidecar_is_small(rig: Rig):
    await begin(rig)
    assert rig.sidecar is not None
    memory = psutil.Process(rig.sidecar.pid).memory_full_info()
    assert memory.uss < 90 << 20, memory


async def test_an_agent_that_can_resume_is_asked_to(rig: Rig):
    rig.gateway.config |= {"session_id": "earlier", "attempt": 2}
    await begin(rig)
    assert rig.gateway.of("session.started") == [
        {"session_id": "earlier", "how": "resumed", "context_lost": False}
    ]
