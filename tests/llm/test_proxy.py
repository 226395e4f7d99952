"""A run's requests to its model through the gateway: a real client, a real socket, a real (scripted) provider."""

from __future__ import annotations

import asyncio
import json
import time
from decimal import Decimal

import pytest

from devaipod_web import db
from devaipod_web.gateway import app
from devaipod_web.llm import meter, pace, upstream
from devaipod_web.llm.models import LlmCall
from devaipod_web.runs.models import Run, RunEvent
from tests.llm.provider import KEY

pytestmark = pytest.mark.django_db(transaction=True)

CHAT = "/llm/v1/chat/completions"
ASKED = {"model": "whatever", "messages": [{"role": "user", "content": "Say hello"}]}


async def ask(gateway, pod, **more):
    async with gateway.http.post(CHAT, json={**ASKED, **more}, headers=pod.bearer) as answer:
        return answer.status, await answer.read()


async def refusals(run):
    return await db.read(
        lambda: list(
            RunEvent.objects.filter(run=run, kind="model.refused").values_list("payload", flat=True)
        )
    )


async def stored(run):
    for _ in range(100):
        calls = await db.read(lambda: list(LlmCall.objects.filter(run=run)))
        if calls:
            return calls[-1]
        await asyncio.sleep(0.02)
    raise AssertionError("no call was stored")


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


async def test_a_model_without_a_known_price_counts_as_unpriced(
    gateway, pod, scripted, real_provider
):
    await db.write(Run.objects.filter(pk=pod.row.run_id).update, model="house-llm-7")
    await ask(gateway, pod)
    call = await stored(pod.row.run)
    assert call.cost is None
    run = await db.read(Run.objects.get, pk=pod.row.run_id)
    assert run.unpriced_calls == 1
    assert run.tokens_in == 1000


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
    assert all(gap > 0.02 for gap in gaps), gaps


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


async def test_an_agent_that_hangs_up_ends_the_request_at_the_provider(
    gateway, pod, scripted, real_provider
):
    scripted.behaviour = "slowly"
    async with gateway.http.post(
        CHAT, json={**ASKED, "stream": True}, headers=pod.bearer
    ) as answer:
        await answer.content.readline()
        answer.close()
    await asyncio.wait_for(scripted.hung_up.wait(), 5)
    call = await stored(pod.row.run)
    assert call.status == 499
    assert call.estimated
    assert call.tokens_out > 0


@pytest.mark.parametrize(
    ("behaviour", "status", "code", "words", "next_step"),
    [
        ("unauthorized", 401, "credential-refused", "refused its key", "Providers page"),
        ("limited", 429, "rate-limited", "at its limit", "Wait"),
        ("unpaid", 402, "budget-used-up", "is used up (402)", "Add credit"),
        ("no_quota", 402, "budget-used-up", "is used up (429)", "Add credit"),
        ("fail", 502, "provider-failed", "failed (500)", "status page"),
        ("unknown_model", 404, "provider-refused", "The model does not exist", "model's name"),
        ("redirect", 400, "not-configured", "redirects are not followed", "base address"),
        ("garbage", 502, "provider-failed", "not a chat completion", "/v1"),
    ],
)
async def test_a_provider_that_refuses_is_told_to_the_agent_and_to_people(
    gateway, pod, scripted, real_provider, behaviour, status, code, words, next_step
):
    scripted.behaviour = behaviour
    for stream in (False, True):
        got, body = await ask(gateway, pod, stream=stream)
        assert got == status
        error = json.loads(body)["error"]
        assert words in error["message"]
        assert error["code"] == code
        assert KEY not in body.decode()
    (event,) = await refusals(pod.row.run)
    assert words in event["message"]
    assert next_step in event["next_step"]
    assert KEY not in json.dumps(event)
    call = await stored(pod.row.run)
    assert call.status == status
    assert call.tokens_in == 0
    assert call.cost == Decimal(0)


async def test_the_wait_that_a_provider_asks_for_reaches_the_agent(
    gateway, pod, scripted, real_provider
):
    scripted.behaviour = "limited"
    async with gateway.http.post(CHAT, json=ASKED, headers=pod.bearer) as answer:
        assert answer.headers["Retry-After"] == "7"


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("break_off", "broke off in the middle"),
        ("error_event", "overloaded"),
        ("stall", "fell silent"),
        ("garbage_stream", "no answer that can be read"),
    ],
)
async def test_a_stream_that_goes_wrong_ends_with_an_error_event(
    gateway, pod, scripted, real_provider, monkeypatch, behaviour, words
):
    monkeypatch.setattr(upstream, "IDLE_SECONDS", 0.3)
    scripted.behaviour = behaviour
    status, body = await ask(gateway, pod, stream=True)
    assert status == 200
    last = [line for line in body.splitlines() if line.startswith(b"data:")][-1]
    assert words in json.loads(last[5:])["error"]["message"]
    assert KEY.encode() not in last
    (event,) = await refusals(pod.row.run)
    assert words in event["message"]


async def test_a_provider_that_hangs_is_given_up(
    gateway, pod, scripted, real_provider, monkeypatch
):
    monkeypatch.setattr(upstream, "FIRST_BYTE_SECONDS", 0.3)
    scripted.behaviour = "hang"
    status, body = await ask(gateway, pod, stream=True)
    assert status == 504
    assert b"did not answer within" in body


async def test_a_provider_that_is_not_there_is_named(gateway, pod, scripted, real_provider):
    real_provider.base_url = "http://127.0.0.1:9/v1"
    await db.write(real_provider.save)
    status, body = await ask(gateway, pod)
    assert status == 504
    assert b"Acme cannot be reached" in body


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


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b'{"messages": 1}', b"\xff", b"[" * 50_000])
async def test_what_is_no_request_gets_a_sentence(gateway, pod, real_provider, body):
    async with gateway.http.post(CHAT, data=body, headers=pod.bearer) as answer:
        assert answer.status == 400
        assert "request" in (await answer.json())["error"]["message"]


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
    gateway, pod, scripted, real_provider, monkeypatch
):
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
