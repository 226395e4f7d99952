"""The door to the model of a paused run: closed in every wire form, without a provider asked, and open again at once."""

from __future__ import annotations

import asyncio

import pytest

from devaipod_web import db
from devaipod_web.llm import snapshot
from devaipod_web.llm.models import LlmCall
from devaipod_web.runs.models import Run
from devaipod_web.runs.services.pause import pause_by_hand, resume
from tests.llm.conftest import payloads

pytestmark = pytest.mark.django_db(transaction=True)


async def ask(gateway, pod, spoken):
    async with gateway.http.post(spoken.path, json=spoken.request(), headers=pod.bearer) as answer:
        return answer.status, await answer.json()


@pytest.fixture
def paused(pod):
    Run.objects.filter(pk=pod.row.run_id).update(state="running")
    pause_by_hand(pod.row.run, None, reason="Enough for now.")
    snapshot.forget_all()
    return pod


async def test_each_form_says_so_in_its_own_words(gateway, paused, spoken, its_provider, scripted):
    status, body = await ask(gateway, paused, spoken)
    assert status == 403
    words = spoken.words_of(body)
    assert "The run is paused and may ask its model nothing. Paused. Enough for now." in words
    assert scripted.seen == []
    assert await db.read(LlmCall.objects.count) == 0
    (told,) = await payloads(paused.row.run, "model.refused")
    assert told["code"] == "run-paused"


async def test_it_is_open_as_soon_as_the_run_goes_on(gateway, paused, spoken, its_provider):
    for _ in range(3):
        assert (await ask(gateway, paused, spoken))[0] == 403
        await db.write(resume, paused.row.run, None)
        assert (await ask(gateway, paused, spoken))[0] == 200
        await db.write(Run.objects.filter(pk=paused.row.run_id).update, state="running")
        await db.write(pause_by_hand, paused.row.run, None)
        await asyncio.sleep(1.2)  # the gateway's view of a run is at most a second old
