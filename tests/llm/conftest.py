from __future__ import annotations

import asyncio

import pytest

from devaipod_web import db
from devaipod_web.llm import upstream, vault
from devaipod_web.llm.models import LlmCall, Provider
from devaipod_web.runs.models import RunEvent
from tests.gateway.conftest import gateway, pod  # noqa: F401 - fixtures
from tests.llm.languages import LANGUAGES
from tests.llm.provider import KEY, provider_running


@pytest.fixture
async def scripted():
    async with provider_running() as provider:
        yield provider
        await upstream.close()


@pytest.fixture
def real_provider(transactional_db, scripted, run, settings):
    """The run's provider is the scripted one, on this host, as a manager has allowed it."""
    settings.ALLOWED_PRIVATE_NETWORKS = ["127.0.0.0/8"]
    provider = Provider.objects.create(
        name="Acme", base_url=scripted.base_url, credential=vault.seal(KEY.encode())
    )
    run.provider = provider
    run.model = "gpt-4o"
    run.save(update_fields=["provider", "model"])
    return provider


@pytest.fixture(params=sorted(LANGUAGES))
def spoken(request):
    """Each wire form in turn."""
    return LANGUAGES[request.param]


@pytest.fixture
def its_provider(spoken, real_provider, scripted, run):
    """The run's provider speaks that form."""
    real_provider.kind = spoken.kind
    real_provider.base_url = scripted.base_url if spoken.kind == "openai" else scripted.root
    real_provider.save()
    run.model = spoken.model
    run.save(update_fields=["model"])
    return real_provider


async def stored_calls(run, count=1):
    """The run's calls, when at least so many are written."""
    for _ in range(150):
        calls = await db.read(lambda: list(LlmCall.objects.filter(run=run).order_by("pk")))
        if len(calls) >= count:
            return calls
        await asyncio.sleep(0.02)
    raise AssertionError(f"{len(calls)} calls were stored, not {count}")


async def payloads(run, kind):
    """What events of this kind say on the run."""
    return await db.read(
        lambda: list(
            RunEvent.objects.filter(run=run, kind=kind)
            .order_by("seq")
            .values_list("payload", flat=True)
        )
    )
