"""One run that floods: nobody else waits for it, and nothing grows with what it sends."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal

import pytest

from devaipod_web.llm import meter, pace, telling
from tests.llm.conftest import payloads

RUN, OTHER = 1, 2


@pytest.fixture(autouse=True)
def forgetful():
    meter.forget_all()
    pace._budgets.clear()
    yield
    meter.forget_all()
    pace._budgets.clear()


def test_an_agent_that_invents_kinds_of_messages_fills_neither_memory_nor_transcript():
    began = time.monotonic()
    said = sum(meter.due(RUN, f"reach {number}") for number in range(100_000))
    assert said == meter.MAX_KINDS
    # With a look through all that was said at each, this took hours.
    assert time.monotonic() - began < 20
    assert meter.due(OTHER, "reach 1")
    assert not meter.due(OTHER, "reach 1")


def test_a_kind_is_said_again_when_its_time_is_over(monkeypatch):
    monkeypatch.setattr(meter, "QUIET_SECONDS", 0.05)
    assert all(meter.due(RUN, f"{number}") for number in range(meter.MAX_KINDS))
    time.sleep(0.06)
    assert meter.due(RUN, "0")
    assert meter.due(RUN, "new")


def test_runs_that_are_long_gone_are_forgotten(monkeypatch):
    monkeypatch.setattr(meter, "MAX_REMEMBERED", 10)
    for run in range(100):
        assert meter.due(run, "x")
    assert len(meter._said) == 10


async def test_a_small_body_of_nothing_but_values_is_paid_for_by_what_reading_it_takes(monkeypatch):
    monkeypatch.setattr(pace, "BURST_BYTES", 20_000_000)
    monkeypatch.setattr(pace, "BYTES_PER_SECOND", 100_000_000)
    brackets = b"[" + b",".join([b"{}"] * 80_000) + b"]"
    assert len(brackets) < pace.FREE_BYTES
    began = time.monotonic()
    for _ in range(3):
        await pace.wait_turn(RUN, brackets)
    assert time.monotonic() - began > 0.2
    # The same size as one text costs nothing.
    before = pace._budgets[RUN].left
    await pace.wait_turn(RUN, b"x" * len(brackets))
    assert pace._budgets[RUN].left == before


async def test_one_run_that_waits_for_its_turn_holds_up_no_other(monkeypatch):
    monkeypatch.setattr(pace, "BURST_BYTES", 1_000_000)
    monkeypatch.setattr(pace, "BYTES_PER_SECOND", 10_000)
    large = b"x" * 2_000_000
    waiting = asyncio.create_task(pace.wait_turn(RUN, large))
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await pace.wait_turn(OTHER, large[:900_000])
    assert not waiting.done()
    waiting.cancel()


async def test_too_many_values_are_refused():
    with pytest.raises(pace.TooManyValues):
        await pace.wait_turn(RUN, b"," * (pace.MAX_ELEMENTS + 1))


@pytest.mark.django_db(transaction=True)
async def test_a_request_with_thousands_of_foreign_tools_is_answered_as_quickly_as_any(
    gateway, pod, scripted, real_provider, settings
):
    settings.RUN_BUDGET_USD = Decimal(0)
    tools = [{"type": f"invented-{number}"} for number in range(20_000)]
    for _ in range(3):
        async with (
            asyncio.timeout(20),
            gateway.http.post(
                "/llm/v1/chat/completions",
                json={"messages": [{"role": "user", "content": "x"}], "tools": tools},
                headers=pod.bearer,
            ) as answer,
        ):
            assert answer.status == 200
    await telling.drain()
    notes = await payloads(pod.row.run, "run.note")
    assert len(notes) == 1
    assert "invented-0" in notes[0]["text"]
