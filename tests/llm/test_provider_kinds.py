"""The test button asks each kind of provider in its own way."""

from __future__ import annotations

import asyncio

import pytest
from django.db import connections

from devaipod_web import db
from devaipod_web.llm import provider_test, vault

pytestmark = [pytest.mark.django_db(transaction=True)]


def ask(provider):
    try:
        return provider_test.test(provider)
    finally:
        connections.close_all()


@pytest.mark.parametrize(
    ("kind", "models", "path"),
    [
        ("openai", ["gpt-1"], "/v1/models"),
        ("anthropic", ["claude-1"], "/v1/models?limit=1000"),
        ("gemini", ["gemini-2.5-pro"], "/v1beta/models?pageSize=1000"),
    ],
)
async def test_each_kind_is_asked_for_its_models_with_its_key(
    real_provider, scripted, kind, models, path
):
    real_provider.kind = kind
    real_provider.base_url = scripted.base_url if kind == "openai" else scripted.root
    found = await asyncio.to_thread(ask, real_provider)
    assert found.ok, found
    assert found.models == models
    assert scripted.paths == [path]
    real_provider.credential = vault.seal(b"sk-wrong")
    found = await asyncio.to_thread(ask, real_provider)
    assert "refuses the key" in found.message


async def test_one_that_answers_in_another_way_is_named(real_provider, scripted):
    real_provider.kind, real_provider.base_url = "gemini", scripted.base_url
    found = await asyncio.to_thread(ask, real_provider)
    assert not found.ok
    assert found.next_step
    await db.close_connections()
