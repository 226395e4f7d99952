from __future__ import annotations

import pytest

from devaipod_web.llm import upstream, vault
from devaipod_web.llm.models import Provider
from tests.gateway.conftest import gateway, pod  # noqa: F401 - fixtures
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
