"""A run's requests to its model through the gateway: a real client, a real socket, a real (scripted) provider."""

from __future__ import annotations

import asyncio
import json
import time
from decimal import Decimal

import pytest

from devaipod_web import db
from devaipod_web.gateway import app
from devaipod_web.llm import meter, pace
from devaipod_web.llm.models import LlmCall
from devaipod_web.runs.models import Run, RunEvent
from tests.llm.conftest import payloads, stored_calls
from tests.llm.provider import KEY

pytestmark = pytest.mark.django_db(transaction=True)

CHAT = "/llm/v1/chat/completions"
ASKED = {"model": "whatever", "messages": [{"role": "user", "content": "Say hello"}]}


async def ask(gateway, pod, **more):
    async with gateway.http.post(CHAT, json={**ASKED, **more}, headers=pod.bearer) as answer:
        return answer.status, await answer.read()


async def refusals(run):
    return await payloads(run, "model.refused")


async def stored(run):
    return (await stored_calls(run))[-1]


async def test_the_key_is_added_here_and_the_model_is_the_runs(
    gateway, pod, scripted, real_provider
):
    async with gateway.http.post(
        CHAT,
        json=ASKED,
        headers={**pod.bearer, "Cookie": "a=b", "X-Evil": "1", "OpenAI-Organization": "mine"},
    ) as answer:
        assert answer.status == 200
        assert (await answer.json())["choices"][0]["message"]["content"] == "Hello there."
        assert answer.headers["x-request-id"] == "req-1"
        assert "Set-Cookie" not in answer.headers
    sent = scripted.headers[0]
    assert sent["Authorization"] == f"Bearer {KEY}"
    assert {"Cookie", "X-Evil", "OpenAI-Organization"}.isdisjoint(sent)
    assert pod.data not in json.dumps(sent)
    assert scripted.seen[0]["model"] == "gpt-4o"


async def test_tokens_and_list_price_are_kept_of_each_call(gateway, pod, scripted, real_provider):
    await ask(gateway, pod)
    call = await stored(pod.row.run)
    assert (call.tokens_in, call.tokens_cached, call.tokens_out) == (1000, 400, 200)
    assert call.status == 200
    assert not call.estimated
    # gpt-4o: 600 at 2.50, 400 cached at 1.25 and 200 at 10.00 dollars a million
    assert call.cost == Decimal("0.004")
    run = await db.read(Run.objects.get, pk=pod.row.run_id)
    assert (run.tokens_in, run.tokens_out, run.cost) == (1000, 200, Decimal("0.004"))
    assert run.unpriced_calls == 0


async def test_a_stream_arrives_piece_by_piece(gateway, pod, scripted, real_provider):
    scripted.behaviour = "slowly"
    times = []
    async with gateway.http.post(
        CHAT, json={**ASKED, "stream": True}, headers=pod.bearer
    ) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        async for line in answer.content:
            if line.startswith(b"data:"):
                times.append(time.monotonic())
            if len(times) == 5:
                break
    gaps = [b - a for a, b in zip(times, times[1:], strict=False)]
    assert all(gap > 0.02 for gap in gaps[1:]), gaps


async def test_a_stream_is_metered_though_the_agent_did_not_ask_for_usage(
    gateway, pod, scripted, real_provider
):
    status, body = await ask(gateway, pod, stream=True)
    assert status == 200
    assert body.rstrip().endswith(b"data: [DONE]")
    assert scripted.seen[0]["stream_options"] == {"include_usage": True}
    call = await stored(pod.row.run)
    assert call.tokens_out == 200
    assert call.first_byte_milliseconds is not None


async def test_the_wait_that_a_provider_asks_for_reaches_the_agent(
    gateway, pod, scripted, real_provider
):
    scripted.behaviour = "limited"
    async with gateway.http.post(CHAT, json=ASKED, headers=pod.bearer) as answer:
        assert answer.headers["Retry-After"] == "7"


async def test_a_provider_in_a_private_network_needs_a_managers_word(
    gateway, pod, scripted, real_provider, settings
):
    settings.ALLOWED_PRIVATE_NETWORKS = []
    status, body = await ask(gateway, pod)
    assert status == 400
    assert b"cannot be used" in body
    assert scripted.seen == []


async def test_the_same_trouble_fills_no_transcript(gateway, pod, scripted, real_provider):
    scripted.behaviour = "fail"
    for _ in range(5):
        await ask(gateway, pod)
    assert len(await refusals(pod.row.run)) == 1
    while await db.read(LlmCall.objects.count) < 5:  # noqa: ASYNC110 - the database knows
        await asyncio.sleep(0.02)
    meter.forget_all()
    await ask(gateway, pod)
    assert len(await refusals(pod.row.run)) == 2


async def test_what_reaches_further_than_the_model_is_refused(
    gateway, pod, scripted, real_provider
):
    status, body = await ask(gateway, pod, web_search_options={"search_context_size": "low"})
    assert status == 400
    assert b"searches the web" in body
    assert scripted.seen == []


async def test_what_agents_send_unasked_is_taken_out_and_noted_once(
    gateway, pod, scripted, real_provider
):
    tools = [
        {"type": "web_search"},
        {"type": "function", "function": {"name": "bash", "parameters": {}}},
    ]
    for _ in range(2):
        status, _ = await ask(gateway, pod, store=True, metadata={"a": "b"}, tools=tools)
        assert status == 200
    assert "store" not in scripted.seen[0]
    assert "metadata" not in scripted.seen[0]
    assert [tool["type"] for tool in scripted.seen[0]["tools"]] == ["function"]
    notes = await db.read(
        lambda: list(
            RunEvent.objects.filter(run=pod.row.run, kind="run.note").values_list(
                "payload", flat=True
            )
        )
    )
    assert len(notes) == 1
    assert "web_search" in notes[0]["text"]


async def test_a_request_above_16_mb_is_refused(gateway, pod, real_provider):
    async with gateway.http.post(
        CHAT, data=b"x" * (16 * 1024 * 1024 + 1), headers=pod.bearer
    ) as answer:
        assert answer.status == 413


async def test_a_body_of_nothing_but_brackets_is_refused_unparsed(gateway, pod, real_provider):
    body = b'{"messages": [' + b"[]," * 1_000_001 + b"[]]}"
    async with gateway.http.post(CHAT, data=body, headers=pod.bearer) as answer:
        assert answer.status == 413
        assert "million values" in (await answer.json())["error"]["message"]


async def test_large_bodies_of_one_run_are_taken_at_a_bounded_rate(
    gateway, pod, scripted, real_provider, monkeypatch, settings
):
    settings.RUN_BUDGET_USD = Decimal(0)
    monkeypatch.setattr(pace, "BYTES_PER_SECOND", 4_000_000)
    monkeypatch.setattr(pace, "BURST_BYTES", 2_000_000)
    pace._budgets.clear()
    large = [{"role": "user", "content": "x" * 1_000_000}]
    began = time.monotonic()
    for _ in range(4):
        assert (await ask(gateway, pod, messages=large))[0] == 200
    assert time.monotonic() - began > 0.4


@pytest.mark.parametrize("model", ["gpt-4o", ""])
async def test_a_removed_provider_is_not_replaced_by_the_demo(
    gateway, pod, run, real_provider, model
):
    await db.write(Run.objects.filter(pk=run.pk).update, model=model)
    await db.write(real_provider.delete)
    status, body = await ask(gateway, pod)
    assert status == 400
    assert b"provider was removed" in body


async def test_a_credential_sealed_with_another_key_is_named(
    gateway, pod, real_provider, monkeypatch
):
    monkeypatch.setenv("DEVAIPOD_ENCRYPTION_KEY", "another")
    status, body = await ask(gateway, pod)
    assert status == 400
    assert b"encryption key" in body


async def test_one_run_cannot_take_everybodys_room(gateway, pod, scripted, real_provider):
    scripted.behaviour = "hang"
    hanging = [asyncio.create_task(ask(gateway, pod)) for _ in range(app.MAX_MODEL_REQUESTS)]
    while len(scripted.seen) < app.MAX_MODEL_REQUESTS:  # noqa: ASYNC110 - what the provider saw
        await asyncio.sleep(0.02)
    status, body = await ask(gateway, pod)
    assert status == 429
    assert b"under way" in body
    for task in hanging:
        task.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)
