"""Every wire form through the gateway: a real client, a real socket, a provider that speaks it."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

import pytest

from devaipod_web import db
from devaipod_web.runs.models import Run
from tests.llm.conftest import payloads, stored_calls
from tests.llm.languages import LANGUAGES, events
from tests.llm.provider import KEY

pytestmark = pytest.mark.django_db(transaction=True)

#: US dollars of 600 fresh, 400 cached (of Anthropic's 100 more are written) and 200 output tokens by the price list.
COSTS = {
    "openai-chat": Decimal("0.004"),
    "openai-responses": Decimal("0.004"),
    "anthropic-messages": Decimal("0.004995"),
    "gemini": Decimal("0.0028"),
}
KEY_HEADERS = {
    "openai": ("Authorization", f"Bearer {KEY}"),
    "anthropic": ("X-Api-Key", KEY),
    "gemini": ("X-Goog-Api-Key", KEY),
}


def where(spoken, stream):
    return getattr(spoken, "stream_path", spoken.path) if stream else spoken.path


async def ask(gateway, pod, spoken, *, stream=False, headers=None, raw=None, **more):
    data = raw if raw is not None else json.dumps(spoken.request(stream=stream, **more)).encode()
    sent = {**pod.bearer, "Content-Type": "application/json", **(headers or {})}
    async with gateway.http.post(where(spoken, stream), data=data, headers=sent) as answer:
        return answer.status, await answer.read()


async def test_the_key_and_the_model_are_put_in_here(gateway, pod, scripted, its_provider, spoken):
    status, body = await ask(
        gateway, pod, spoken, headers={"Cookie": "a=b", "X-Evil": "1", "OpenAI-Organization": "x"}
    )
    assert status == 200, body
    assert spoken.text_of(body) == "Hello there."
    name, value = KEY_HEADERS[spoken.kind]
    sent = {k.title(): v for k, v in scripted.headers[0].items()}
    assert sent[name.title()] == value
    assert {"Cookie", "X-Evil", "Openai-Organization"}.isdisjoint(sent)
    assert pod.data not in json.dumps(sent)
    assert scripted.paths[0] == spoken.provider_path
    if spoken.name != "gemini":
        assert scripted.seen[0]["model"] == spoken.model


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_passes_byte_for_byte_and_is_metered_exactly(
    gateway, pod, scripted, its_provider, spoken, stream
):
    status, body = await ask(gateway, pod, spoken, stream=stream)
    assert status == 200
    if stream:
        said = (*spoken.starts(), spoken.says("Hello "), spoken.says("there."), *spoken.ends())
        assert body == b"".join(said)
    else:
        assert json.loads(body) == spoken.whole()
    (call,) = await stored_calls(pod.row.run)
    assert (call.tokens_in, call.tokens_cached, call.tokens_out) == (1000, 400, 200)
    assert call.tokens_cache_written == (100 if spoken.name == "anthropic-messages" else 0)
    assert call.tokens_reasoning == (0 if spoken.name == "anthropic-messages" else 50)
    assert not call.estimated
    assert not call.unpriced
    assert call.cost == COSTS[spoken.name]
    assert (call.status, call.form, call.model) == (200, spoken.name, spoken.model)
    assert call.first_byte_milliseconds is not None
    run = await db.read(Run.objects.get, pk=pod.row.run_id)
    assert (run.tokens_in, run.tokens_out, run.cost) == (1000, 200, COSTS[spoken.name])


async def test_fields_that_nobody_here_knows_pass_untouched(
    gateway, pod, scripted, its_provider, spoken
):
    text = json.dumps(spoken.request(), indent=3)
    raw = ('{ "invented_tomorrow" : [1.50, {"é":"\\u00e9 \\/"}],\n' + text[1:]).encode()
    status, _ = await ask(gateway, pod, spoken, raw=raw)
    assert status == 200
    sent = scripted.raw[0]
    assert '"invented_tomorrow" : [1.50, {"é":"\\u00e9 \\/"}],\n'.encode() in sent
    content = b'"contents": [' if spoken.name == "gemini" else b'"role": "user"'
    assert content in sent or b'"input": "Say hello"' in sent


async def test_a_missing_output_limit_is_set(gateway, pod, scripted, its_provider, spoken):
    request = spoken.request()
    request.pop("max_tokens", None)
    await ask(gateway, pod, spoken, raw=json.dumps(request).encode())
    sent = scripted.seen[0]
    limits = {
        "openai-chat": lambda: sent["max_tokens"],
        "openai-responses": lambda: sent["max_output_tokens"],
        "anthropic-messages": lambda: sent["max_tokens"],
        "gemini": lambda: sent["generationConfig"]["maxOutputTokens"],
    }
    assert limits[spoken.name]() == (16_384 if spoken.model == "gpt-4o" else 32_000)


async def test_a_limit_that_is_there_stays(gateway, pod, scripted, its_provider, spoken):
    limits: dict[str, dict[str, Any]] = {
        "openai-chat": {"max_tokens": 77},
        "openai-responses": {"max_output_tokens": 77},
        "anthropic-messages": {"max_tokens": 77},
        "gemini": {"generation_config": {"max_output_tokens": 77}},
    }
    limit = limits[spoken.name]
    await ask(gateway, pod, spoken, **limit)
    sent = scripted.seen[0]
    assert {name: sent[name] for name in limit} == limit
    assert json.dumps(sent).count("77") == 1


async def test_an_agent_that_hangs_up_ends_the_request_at_the_provider(
    gateway, pod, scripted, its_provider, spoken
):
    scripted.behaviour = "slowly"
    body = json.dumps(spoken.request(stream=True)).encode()
    async with gateway.http.post(where(spoken, True), data=body, headers=pod.bearer) as answer:
        await answer.content.readline()
        answer.close()
    await asyncio.wait_for(scripted.hung_up.wait(), 5)
    (call,) = await stored_calls(pod.row.run)
    assert call.status == 499
    assert call.estimated
    assert call.tokens_in > 0
    assert call.tokens_out > 0
    assert call.cost > 0


# Gemini says its counts in every event.
@pytest.mark.parametrize("spoken", [v for k, v in LANGUAGES.items() if k != "gemini"])
async def test_a_provider_that_sends_no_counts_is_estimated_and_marked(
    gateway, pod, scripted, its_provider, spoken
):
    scripted.behaviour = "no_usage"
    for _ in range(4):
        status, _ = await ask(gateway, pod, spoken, stream=True)
        assert status == 200
    calls = await stored_calls(pod.row.run, 4)
    assert all(call.estimated and call.tokens_out > 0 and call.cost > 0 for call in calls)
    # A stream that came to its end is no flight from the meter: the fourth costs what the first did.
    assert calls[3].cost == calls[0].cost


async def test_what_is_no_request_gets_a_sentence(gateway, pod, its_provider, spoken):
    for raw in (b"{", b"[]", b"\xff", b"[" * 50_000, b'{"a":1,"a":2}'):
        status, body = await ask(gateway, pod, spoken, raw=raw)
        assert status == 400
        assert "request" in spoken.words_of(json.loads(body))


async def test_a_model_without_a_price_is_refused(
    gateway, pod, scripted, its_provider, spoken, run
):
    await db.write(Run.objects.filter(pk=run.pk).update, model="house-llm-7")
    status, body = await ask(gateway, pod, spoken)
    assert status == 402
    assert "house-llm-7" in spoken.words_of(json.loads(body))
    assert scripted.seen == []
    (event,) = await payloads(run, "model.refused")
    assert "Prices page" in event["next_step"]


async def test_an_agent_whose_form_the_provider_does_not_speak_is_told(
    gateway, pod, scripted, its_provider, spoken
):
    other = LANGUAGES["openai-chat" if spoken.kind == "gemini" else "gemini"]
    status, body = await ask(gateway, pod, other)
    assert status == 400
    assert "speaks" in other.words_of(json.loads(body))
    assert scripted.seen == []


async def test_a_token_that_is_unknown_is_refused_in_the_form(gateway, pod, spoken):
    async with gateway.http.post(
        spoken.path, json=spoken.request(), headers={"Authorization": "Bearer no"}
    ) as answer:
        assert answer.status == 401
        assert "token" in spoken.words_of(await answer.json())


async def test_anthropics_tokens_are_counted_for_nothing(
    gateway, pod, scripted, real_provider, run
):
    await _become(real_provider, run, scripted, "anthropic-messages")
    spoken = LANGUAGES["anthropic-messages"]
    request = {**spoken.request(), "metadata": {"user_id": "x"}}
    del request["max_tokens"]
    async with gateway.http.post(
        "/llm/v1/messages/count_tokens?beta=true", json=request, headers=pod.bearer
    ) as answer:
        assert await answer.json() == {"input_tokens": 7}
    assert scripted.paths == ["/v1/messages/count_tokens"]
    assert "metadata" not in scripted.seen[0]
    assert "max_tokens" not in scripted.seen[0]
    (call,) = await stored_calls(run)
    assert (call.status, call.tokens_in, call.cost) == (200, 0, 0)


async def test_geminis_tokens_are_counted_for_nothing(gateway, pod, scripted, real_provider, run):
    await _become(real_provider, run, scripted, "gemini")
    inner = {"model": "models/other", **LANGUAGES["gemini"].request()}
    async with gateway.http.post(
        "/llm/v1beta/models/x:countTokens",
        json={"generateContentRequest": inner},
        headers=pod.bearer,
    ) as answer:
        assert await answer.json() == {"totalTokens": 7}
    assert scripted.paths == ["/v1beta/models/gemini-2.5-pro:countTokens"]
    assert scripted.seen[0]["generateContentRequest"]["model"] == "models/gemini-2.5-pro"


async def test_geminis_stream_as_one_array_passes_and_is_metered(
    gateway, pod, scripted, real_provider, run
):
    await _become(real_provider, run, scripted, "gemini")
    async with gateway.http.post(
        "/llm/v1beta/models/x:streamGenerateContent",
        json=LANGUAGES["gemini"].request(),
        headers=pod.bearer,
    ) as answer:
        assert len(await answer.json()) == 2
    (call,) = await stored_calls(run)
    assert (call.tokens_in, call.tokens_out, call.estimated) == (1000, 200, False)


async def test_anthropics_version_and_betas_go_along_but_those_that_reach_further(
    gateway, pod, scripted, real_provider, run
):
    await _become(real_provider, run, scripted, "anthropic-messages")
    betas = "context-1m-2025-08-07,mcp-client-2025-04-04, files-api-2025-04-14,web-fetch-2025-09-10"
    await ask(gateway, pod, LANGUAGES["anthropic-messages"], headers={"anthropic-beta": betas})
    sent = {name.lower(): value for name, value in scripted.headers[0].items()}
    assert sent["anthropic-version"] == "2023-06-01"
    assert sent["anthropic-beta"] == "context-1m-2025-08-07"
    # A list that was cut in the middle of a name would be refused.
    many = ",".join(f"some-beta-{number:03}-2025-08-07" for number in range(40))
    await ask(gateway, pod, LANGUAGES["anthropic-messages"], headers={"anthropic-beta": many})
    assert {n.lower(): v for n, v in scripted.headers[1].items()}["anthropic-beta"] == many


@pytest.mark.parametrize(
    ("path", "headers", "read"),
    [
        ("/llm/v1/models", {}, lambda v: [m["id"] for m in v["data"] if m["object"] == "model"]),
        (
            "/llm/v1/models",
            {"anthropic-version": "2023-06-01"},
            lambda v: [m["id"] for m in v["data"] if m["type"] == "model"],
        ),
        ("/llm/v1beta/models", {}, lambda v: [m["name"].split("/")[1] for m in v["models"]]),
    ],
)
async def test_models_are_listed_in_each_form(gateway, pod, real_provider, path, headers, read):
    async with gateway.http.get(path, headers={**pod.bearer, **headers}) as answer:
        assert read(await answer.json()) == ["gpt-4o"]


async def test_the_demo_speaks_every_form(gateway, pod, spoken):
    status, body = await ask(gateway, pod, spoken)
    assert status == 200
    assert "scripted demo" in spoken.text_of(body)
    status, body = await ask(gateway, pod, spoken, stream=True)
    assert status == 200
    assert len(events(body)) > 1
    calls = await stored_calls(pod.row.run, 2)
    assert all(call.status == 200 and call.cost == 0 and not call.estimated for call in calls)
    assert all(call.tokens_in > 0 and call.tokens_out > 0 for call in calls)


async def _become(provider, run, scripted, name):
    """Make the run's provider one that speaks this form."""
    spoken = LANGUAGES[name]
    provider.kind, provider.base_url, run.model = spoken.kind, scripted.root, spoken.model
    await db.write(provider.save)
    await db.write(run.save, update_fields=["model"])
