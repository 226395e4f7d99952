"""Which provider takes a model, and who answers when it cannot."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from decimal import Decimal

import pytest

from devaipod_web import db
from devaipod_web.llm import vault
from devaipod_web.llm.models import Price, Provider, Route
from devaipod_web.projects.models import Project
from devaipod_web.runs.models import Run
from tests.llm.conftest import payloads, stored_calls
from tests.llm.provider import KEY, provider_running

pytestmark = pytest.mark.django_db(transaction=True)

CHAT = "/llm/v1/chat/completions"
ASKED = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Say hello"}]}


@pytest.fixture
async def second():
    async with provider_running() as provider:
        yield provider


@pytest.fixture
def acme(real_provider, run):
    """The provider, and a run that names none: routes decide."""
    Run.objects.filter(pk=run.pk).update(provider=None, model="gpt-4o")
    return real_provider


@pytest.fixture
def other(acme, second):
    return Provider.objects.create(
        name="Other", base_url=second.base_url, credential=vault.seal(KEY.encode())
    )


async def route(pattern, provider, position=1, **more):
    return await db.write(
        Route.objects.create, pattern=pattern, provider=provider, position=position, **more
    )


async def ask(gateway, pod, **more):
    async with gateway.http.post(CHAT, json={**ASKED, **more}, headers=pod.bearer) as answer:
        return answer.status, await answer.read()


async def test_the_first_route_that_matches_takes_it(gateway, pod, scripted, second, acme, other):
    await route("gpt-4o", other, 2)
    await route("gpt-*", acme, 1)
    await route("*", other, 3)
    await ask(gateway, pod)
    await ask(gateway, pod, model="claude-sonnet-4-5")
    assert [body["model"] for body in scripted.seen] == ["gpt-4o"]
    assert [body["model"] for body in second.seen] == ["claude-sonnet-4-5"]


async def test_routes_that_are_off_or_another_projects_are_passed_over(
    gateway, pod, scripted, second, acme, other
):
    foreign = await db.write(Project.objects.create, slug="x", name="X", upstream_url="https://x/x")
    await route("*", acme, 1, enabled=False)
    await route("*", acme, 2, project=foreign)
    await route("*", other, 3, project=pod.row.run.project)
    await ask(gateway, pod)
    assert scripted.seen == []
    assert len(second.seen) == 1


async def test_the_name_is_rewritten(gateway, pod, scripted, acme, run):
    await route("team/*", acme, rewrite="*-mini")
    await ask(gateway, pod, model="team/gpt-4o")
    assert scripted.seen[0]["model"] == "gpt-4o-mini"
    (call,) = await stored_calls(run)
    assert call.model == "gpt-4o-mini"
    assert call.route == (await db.read(Route.objects.get)).key


async def test_a_model_that_no_route_takes_is_the_runs_own(gateway, pod, scripted, acme):
    await route("gpt-4o", acme)
    await ask(gateway, pod, model="agents-own-small-model")
    assert scripted.seen[0]["model"] == "gpt-4o"


async def test_a_model_that_nobody_takes_is_said(gateway, pod, scripted, acme, run):
    status, body = await ask(gateway, pod)
    assert status == 400
    assert b"no route takes the model gpt-4o" in body


@pytest.mark.parametrize(
    "model",
    ["gpt-4o:online", "openai/gpt-4o:online", "gpt-4o-search-preview", "gpt-5-search-api", "o3-deep-research"],
)  # fmt: skip
async def test_a_glob_gives_an_agent_no_model_that_searches_the_web(
    gateway, pod, scripted, acme, run, model
):
    await route("*", acme)
    assert (await ask(gateway, pod, model=model))[0] == 200
    assert scripted.seen[0]["model"] == "gpt-4o"


async def test_a_model_that_searches_is_there_for_who_named_it(gateway, pod, scripted, acme, run):
    named = "gpt-4o-search-preview"
    await route(named, acme)
    await route("*", acme, 2)
    await ask(gateway, pod, model=named)
    await db.write(Run.objects.filter(pk=run.pk).update, model="gpt-5-search-api")
    await asyncio.sleep(1.1)
    await ask(gateway, pod, model="gpt-5-search-api")
    assert [body["model"] for body in scripted.seen] == [named, "gpt-5-search-api"]


async def test_the_routes_limit_counts_for_requests_without_one(gateway, pod, scripted, acme):
    await route("*", acme, output_limit=99)
    await ask(gateway, pod)
    await ask(gateway, pod, max_tokens=7)
    assert [body["max_tokens"] for body in scripted.seen] == [99, 7]


@pytest.mark.parametrize("behaviour", ["limited", "fail"])
@pytest.mark.parametrize("stream", [False, True])
async def test_another_provider_is_asked_before_the_first_byte(
    gateway, pod, scripted, second, acme, other, run, behaviour, stream
):
    scripted.behaviour = behaviour
    await route("*", acme, fallbacks=[{"provider": other.key, "model": "gpt-4o-mini"}])
    status, body = await ask(gateway, pod, stream=stream)
    assert status == 200
    assert b"Hello" in body
    assert second.seen[0]["model"] == "gpt-4o-mini"
    (call,) = await stored_calls(run)
    assert (call.model, call.provider_id, call.status) == ("gpt-4o-mini", other.pk, 200)
    (note,) = await payloads(run, "run.note")
    assert "goes to Other instead" in note["text"]


async def test_a_provider_that_nobody_listens_for_is_passed_over(
    gateway, pod, second, acme, other, unused_tcp_port
):
    acme.base_url = f"http://127.0.0.1:{unused_tcp_port}/v1"
    await db.write(acme.save)
    await route("*", acme, fallbacks=[{"provider": other.key, "model": ""}])
    assert (await ask(gateway, pod))[0] == 200
    assert second.seen[0]["model"] == "gpt-4o"


@pytest.mark.parametrize("behaviour", ["unauthorized", "unknown_model", "redirect", "close_early"])
async def test_what_another_provider_would_not_mend_is_not_tried_again(
    gateway, pod, scripted, second, acme, other, behaviour
):
    scripted.behaviour = behaviour
    await route("*", acme, fallbacks=[{"provider": other.key, "model": ""}])
    await ask(gateway, pod, stream=True)
    assert second.seen == []


async def test_when_all_fail_the_last_one_is_told(gateway, pod, scripted, second, acme, other, run):
    scripted.behaviour, second.behaviour = "limited", "fail"
    await route("*", acme, fallbacks=[{"provider": other.key, "model": ""}])
    status, body = await ask(gateway, pod)
    assert status == 500
    assert b"Other failed" in body
    (call,) = await stored_calls(run)
    assert (call.tokens_in, call.cost) == (0, 0)


async def test_a_route_to_the_demo_plays_it(gateway, pod, acme, run):
    demo = await db.write(Provider.objects.create, name="Demo", kind="demo")
    await route("*", demo)
    status, body = await ask(gateway, pod)
    assert status == 200
    assert b"scripted demo" in body
    (call,) = await stored_calls(run)
    assert (call.provider_kind, call.cost, call.model) == ("demo", 0, "scripted-demo")


async def test_models_that_routes_name_are_listed(gateway, pod, acme):
    await route("gpt-4o", acme, 1)
    await route("o3", acme, 2)
    await route("claude-*", acme, 3)
    async with gateway.http.get("/llm/v1/models", headers=pod.bearer) as answer:
        assert [m["id"] for m in (await answer.json())["data"]] == ["gpt-4o", "o3"]


async def test_a_ceiling_lets_a_model_without_a_price_pass_and_marks_it(
    gateway, pod, scripted, acme, run
):
    await route("*", acme)
    await db.write(Price.objects.create, pattern="*", is_ceiling=True, sent=10, received=20)
    status, _ = await ask(gateway, pod, model="house-llm-7")
    assert status == 200
    (call,) = await stored_calls(run)
    assert call.unpriced
    # 1,000 in (400 of them cached, at the input's price) and 200 out
    assert call.cost == Decimal("0.014")
    assert (await db.read(Run.objects.get, pk=run.pk)).unpriced_calls == 1


# --- The view that counts for a second --------------------------------------------------------------------------


async def test_requests_do_not_wait_for_the_database(gateway, pod, scripted, acme, monkeypatch):
    await route("*", acme)
    assert (await ask(gateway, pod))[0] == 200
    real = db.read
    readers = Counter[str]()

    async def counted(fn, *args, **kwargs):
        task = asyncio.current_task()
        readers[task.get_name() if task else ""] += 1
        return await real(fn, *args, **kwargs)

    monkeypatch.setattr(db, "read", counted)
    for _ in range(5):
        await asyncio.sleep(0.6)
        assert (await ask(gateway, pod))[0] == 200
    # What requests need is read on the beat; a machine under load may be late with one or two.
    assert readers["fresh-runs-beat"] >= 3, readers
    assert readers["fresh-runs"] <= 2, readers


async def test_what_a_manager_changes_counts_within_a_second(
    gateway, pod, scripted, second, acme, other
):
    made = await route("*", acme)
    began = time.monotonic()
    await ask(gateway, pod)
    await db.write(Route.objects.filter(pk=made.pk).update, provider=other)
    while not second.seen:
        assert time.monotonic() - began < 10
        await asyncio.sleep(0.05)
        await ask(gateway, pod)
    assert second.seen
