"""A provider that fails in every way, in every wire form: told to the agent as its API does, to people on the run, and settled."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal

import pytest

from devaipod_web import db
from devaipod_web.llm import cut_off, upstream
from tests.llm.conftest import payloads, stored_calls
from tests.llm.provider import KEY
from tests.llm.test_wire_forms import ask

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    ("behaviour", "status", "code", "words", "next_step"),
    [
        ("unauthorized", 401, "credential-refused", "refused its key", "Providers page"),
        ("limited", 429, "rate-limited", "at its limit", "Wait"),
        ("unpaid", 402, "budget-used-up", "is used up (402)", "Add credit"),
        ("no_quota", 402, "budget-used-up", "is used up (429)", "Add credit"),
        ("fail", 500, "provider-failed", "failed (500)", "status page"),
        ("redirect", 400, "not-configured", "redirects are not followed", "base address"),
    ],
)
async def test_a_provider_that_refuses(
    gateway, pod, scripted, its_provider, spoken, behaviour, status, code, words, next_step
):
    scripted.behaviour = behaviour
    for stream in (False, True):
        got, body = await ask(gateway, pod, spoken, stream=stream)
        assert got == status
        assert words in spoken.words_of(json.loads(body))
        assert KEY not in body.decode()
    (event,) = await payloads(pod.row.run, "model.refused")
    assert event["code"] == code
    assert words in event["message"]
    assert next_step in event["next_step"]
    assert KEY not in json.dumps(event)
    for call in await stored_calls(pod.row.run, 2):
        assert call.status == status
        assert words in call.error
        assert (call.tokens_in, call.cost) == (0, Decimal(0))


async def test_a_budget_that_has_no_room(gateway, pod, scripted, its_provider, spoken, settings):
    settings.RUN_BUDGET_USD = Decimal("0.001")
    status, body = await ask(gateway, pod, spoken)
    assert status == 402
    assert "budget of this run has no room" in spoken.words_of(json.loads(body))
    assert scripted.seen == []
    (event,) = await payloads(pod.row.run, "model.refused")
    assert event["code"] == "budget-used-up"
    assert "raise the budget" in event["next_step"]


async def test_a_request_that_it_refuses_gets_the_providers_own_words(
    gateway, pod, scripted, its_provider, spoken
):
    scripted.behaviour = "unknown_model"
    status, body = await ask(gateway, pod, spoken)
    assert status == 404
    # Its own error, as its clients know it, without its secrets.
    own = spoken.error(404, "The model does not exist (…)")
    assert json.loads(body) == own
    (event,) = await payloads(pod.row.run, "model.refused")
    assert "The model does not exist" in event["message"]


@pytest.mark.parametrize("behaviour", ["garbage", "garbage_stream"])
async def test_a_provider_that_sends_garbage(
    gateway, pod, scripted, its_provider, spoken, behaviour
):
    scripted.behaviour = behaviour
    stream = behaviour == "garbage_stream"
    status, body = await ask(gateway, pod, spoken, stream=stream)
    if stream:
        assert status == 200
        assert "no answer that can be read" in spoken.last_error(body)
    else:
        assert status == 502
        assert "not an answer in the form" in spoken.words_of(json.loads(body))
    await _seen_and_settled(pod, spoken)


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("break_off", "broke off in the middle"),
        ("close_early", "broke off in the middle"),
        ("error_event", "overloaded"),
        ("stall", "fell silent"),
    ],
)
async def test_a_stream_that_goes_wrong_ends_with_an_error_event(
    gateway, pod, scripted, its_provider, spoken, monkeypatch, behaviour, words
):
    monkeypatch.setattr(upstream, "IDLE_SECONDS", 0.3)
    scripted.behaviour = behaviour
    status, body = await ask(gateway, pod, spoken, stream=True)
    assert status == 200
    said = b"".join((*spoken.starts(), spoken.says("Hel")))
    assert body.startswith(said)
    last = spoken.last_error(body)
    assert words in last
    assert KEY not in last
    (event,) = await payloads(pod.row.run, "model.refused")
    assert words in event["message"]
    assert KEY not in json.dumps(event)
    await _seen_and_settled(pod, spoken)


async def test_a_provider_that_hangs_before_its_answer(
    gateway, pod, scripted, its_provider, spoken, monkeypatch
):
    monkeypatch.setattr(upstream, "IDLE_SECONDS", 0.3)
    scripted.behaviour = "hang"
    status, body = await ask(gateway, pod, spoken, stream=True)
    assert status == 504
    assert "did not answer within" in spoken.words_of(json.loads(body))
    # It may have been at work on it: the input is charged.
    await _seen_and_settled(pod, spoken)


async def test_a_provider_whose_name_is_gone(gateway, pod, its_provider, spoken):
    its_provider.base_url = "https://models.invalid/v1"
    await db.write(its_provider.save)
    status, body = await ask(gateway, pod, spoken)
    assert status == 504
    assert "not known to the name server" in spoken.words_of(json.loads(body))
    (call,) = await stored_calls(pod.row.run)
    assert (call.status, call.tokens_in, call.cost) == (504, 0, 0)
    (event,) = await payloads(pod.row.run, "model.refused")
    assert event["code"] == "provider-unreachable"


async def test_a_provider_that_nobody_listens_for(
    gateway, pod, its_provider, spoken, unused_tcp_port
):
    its_provider.base_url = f"http://127.0.0.1:{unused_tcp_port}/v1"
    await db.write(its_provider.save)
    status, body = await ask(gateway, pod, spoken)
    assert status == 504
    assert "cannot be reached" in spoken.words_of(json.loads(body))


async def test_answers_cut_off_again_and_again_are_charged_in_full(
    gateway, pod, scripted, its_provider, spoken
):
    scripted.behaviour = "close_early"
    for _ in range(cut_off.MAX_CUT_OFF):
        await ask(gateway, pod, spoken, stream=True)
    calls = await stored_calls(pod.row.run, cut_off.MAX_CUT_OFF)
    first, second, third = (call.cost for call in calls)
    assert first == second
    # 32,000 tokens of output (16,384 of gpt-4o) may have been answered.
    assert third > 50 * first
    notes = await payloads(pod.row.run, "run.note")
    assert any("charged what they may cost at most" in note["text"] for note in notes)
    scripted.behaviour = "answer"
    await ask(gateway, pod, spoken, stream=True)
    scripted.behaviour = "close_early"
    await ask(gateway, pod, spoken, stream=True)
    assert (await stored_calls(pod.row.run, 5))[-1].cost == first


async def test_an_agent_that_hangs_up_again_and_again_is_charged_in_full(
    gateway, pod, scripted, its_provider, spoken
):
    scripted.behaviour = "slowly"
    path = getattr(spoken, "stream_path", spoken.path)
    for _ in range(cut_off.MAX_CUT_OFF):
        async with gateway.http.post(
            path, json=spoken.request(stream=True), headers=pod.bearer
        ) as answer:
            await answer.content.readline()
            answer.close()
        await asyncio.wait_for(scripted.hung_up.wait(), 5)
        scripted.hung_up.clear()
    calls = await stored_calls(pod.row.run, cut_off.MAX_CUT_OFF)
    assert calls[-1].cost > 50 * calls[0].cost


async def test_hanging_up_between_the_words_and_the_counts_is_charged_in_full_too(
    gateway, pod, scripted, its_provider, spoken
):
    """The model may have thought for long, unseen; a cheap request between makes up for nothing."""
    scripted.behaviour = "all_but_counts"
    path = getattr(spoken, "stream_path", spoken.path)
    for _ in range(cut_off.MAX_CUT_OFF):
        async with gateway.http.post(
            path, json=spoken.request(stream=True), headers=pod.bearer
        ) as answer:
            async for line in answer.content:
                if b"the end" in line:
                    break
            answer.close()
        await asyncio.wait_for(scripted.hung_up.wait(), 5)
        scripted.hung_up.clear()
        scripted.behaviour = "answer"
        assert (await ask(gateway, pod, spoken))[0] == 200
        scripted.behaviour = "all_but_counts"
    calls = await stored_calls(pod.row.run, 2 * cut_off.MAX_CUT_OFF)
    cut = [call.cost for call in calls if call.status == cut_off.HUNG_UP]
    assert len(cut) == cut_off.MAX_CUT_OFF
    assert cut[-1] > 50 * cut[0]


async def test_words_that_no_database_takes_are_told_and_kept_all_the_same(
    gateway, pod, scripted, its_provider, spoken
):
    scripted.behaviour = "odd_words"
    status, body = await ask(gateway, pod, spoken, stream=True)
    assert status == 200
    assert "odd" in spoken.last_error(body)
    (event,) = await payloads(pod.row.run, "model.refused")
    (call,) = await stored_calls(pod.row.run)
    for words in (event["message"], call.error):
        assert "odd" in words
        assert words.isprintable()


async def test_what_was_cut_off_long_ago_does_not_count(monkeypatch):
    cut_off.forget_all()
    for _ in range(cut_off.MAX_CUT_OFF - 1):
        cut_off.again(1, by_agent=True)
    cut_off.ended_well(1)
    assert cut_off.again(1, by_agent=True) == cut_off.MAX_CUT_OFF
    cut_off.ended_well(1)
    monkeypatch.setattr(cut_off, "MEMORY_SECONDS", 0.0)
    assert cut_off.again(1, by_agent=True) == 1
    cut_off.forget_all()


async def _seen_and_settled(pod, spoken):
    """The call is stored with what it may have cost, marked as an estimate, and people can see what happened."""
    (call,) = await stored_calls(pod.row.run)
    assert call.error
    assert call.estimated
    assert call.tokens_in > 0
    assert call.cost > 0
    assert len(await payloads(pod.row.run, "model.refused")) == 1
