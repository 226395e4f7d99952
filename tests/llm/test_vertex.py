"""Vertex AI: access tokens from a service account's key, and both of the forms that it speaks."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from devaipod_web import db
from devaipod_web.llm import provider_test, providers, upstream, vault, vertex
from devaipod_web.llm.errors import CredentialRefused, NotConfigured, ProviderSilent
from devaipod_web.llm.models import Provider, Route
from devaipod_web.runs.models import Run
from tests.llm.conftest import stored_calls
from tests.llm.languages import LANGUAGES

PEM = (
    rsa.generate_private_key(public_exponent=65537, key_size=2048)
    .private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    .decode()
)
PLACE = "projects/p/locations/europe-west1"


def service_account(token_uri: str, **more: str) -> str:
    key = {
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "k1",
        "private_key": PEM,
        "client_email": "devaipod@p.iam.gserviceaccount.com",
        "token_uri": token_uri,
    }
    return json.dumps({**key, **more})


class TokenEndpoint:
    """Google's token endpoint at the world's edge: it gives numbered tokens, or says no."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.status = 200
        self.seconds = 3600
        self.delay = 0.0
        self.uri = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append(dict(await request.post()))  # type: ignore[arg-type]
        await asyncio.sleep(self.delay)
        if self.status != 200:
            return web.json_response({"error": "invalid_grant"}, status=self.status)
        token = f"ya29.token-{len(self.asked)}"
        return web.json_response(
            {"access_token": token, "expires_in": self.seconds, "token_type": "Bearer"}
        )


@pytest.fixture
async def endpoint(settings):
    settings.ALLOWED_PRIVATE_NETWORKS = ["127.0.0.0/8"]
    found = TokenEndpoint()
    app = web.Application()
    app.router.add_post("/token", found.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.uri = f"http://127.0.0.1:{runner.addresses[0][1]}/token"
    yield found
    await runner.cleanup()


async def test_a_token_is_fetched_once_and_kept(endpoint):
    tokens, key = vertex.Tokens(), service_account(endpoint.uri)
    found = await asyncio.gather(*(tokens.of("V", key) for _ in range(10)))
    assert set(found) == {"ya29.token-1"}
    assert len(endpoint.asked) == 1
    assert endpoint.asked[0]["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    # header.claims.signature, signed with the account's key
    assert endpoint.asked[0]["assertion"].count(".") == 2


async def test_a_token_near_its_end_is_refreshed_beside_the_requests(endpoint):
    endpoint.seconds = 60  # google-auth calls it stale in its last minutes
    tokens, key = vertex.Tokens(), service_account(endpoint.uri)
    assert await tokens.of("V", key) == "ya29.token-1"
    endpoint.delay = 0.5
    began = time.monotonic()
    assert await tokens.of("V", key) == "ya29.token-1"
    assert time.monotonic() - began < 0.4
    async with asyncio.timeout(10):
        while await tokens.of("V", key) == "ya29.token-1":  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_key_that_google_refuses_is_said_without_the_key(endpoint):
    endpoint.status = 400
    with pytest.raises(CredentialRefused, match="no token") as error:
        await vertex.Tokens().of("V", service_account(endpoint.uri))
    assert "PRIVATE KEY" not in str(error.value)


async def test_an_endpoint_that_does_not_answer_is_said(endpoint, unused_tcp_port):
    with pytest.raises(ProviderSilent, match="does not answer"):
        await vertex.Tokens().of("V", service_account(f"http://127.0.0.1:{unused_tcp_port}/t"))


async def test_an_endpoint_that_no_manager_allowed_is_not_dialled(endpoint, settings):
    settings.ALLOWED_PRIVATE_NETWORKS = []
    with pytest.raises(ProviderSilent):
        await vertex.Tokens().of("V", service_account(endpoint.uri))
    assert endpoint.asked == []


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "sk-123", '{"type": "authorized_user"}', '{"type": "service_account"}']
)
async def test_what_is_no_service_accounts_key_is_refused(text):
    with pytest.raises(vertex.InvalidKey):
        vertex.credentials_of(text)
    with pytest.raises(NotConfigured):
        await vertex.Tokens().of("V", text)


@pytest.fixture
def vertex_provider(transactional_db, scripted, endpoint, run):
    provider = Provider.objects.create(
        name="Vertex",
        kind="vertex",
        base_url=f"{scripted.base_url}/{PLACE}",
        credential=vault.seal(service_account(endpoint.uri).encode()),
    )
    Run.objects.filter(pk=run.pk).update(provider=provider, model="gemini-2.5-pro")
    return provider


@pytest.mark.django_db(transaction=True)
async def test_it_speaks_gemini_with_a_fresh_token(gateway, pod, scripted, vertex_provider, run):
    async with gateway.http.post(
        "/llm/v1beta/models/x:streamGenerateContent?alt=sse",
        json=LANGUAGES["gemini"].request(),
        headers=pod.bearer,
    ) as answer:
        assert answer.status == 200, await answer.text()
    place = f"/v1/{PLACE}/publishers/google/models/gemini-2.5-pro"
    assert scripted.paths == [f"{place}:streamGenerateContent?alt=sse"]
    assert scripted.headers[0]["Authorization"] == "Bearer ya29.token-1"
    (call,) = await stored_calls(run)
    assert (call.provider_kind, call.tokens_out) == ("vertex", 200)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("stream", [False, True])
async def test_it_speaks_anthropics_messages_with_the_model_in_the_address(
    gateway, pod, scripted, vertex_provider, run, stream
):
    name = "claude-sonnet-4-5@20250929"
    await db.write(Run.objects.filter(pk=run.pk).update, model=name)
    async with gateway.http.post(
        "/llm/v1/messages",
        json=LANGUAGES["anthropic-messages"].request(stream=stream),
        headers=pod.bearer,
    ) as answer:
        assert answer.status == 200, await answer.text()
    how = "streamRawPredict" if stream else "rawPredict"
    assert scripted.paths == [f"/v1/{PLACE}/publishers/anthropic/models/{name}:{how}"]
    assert "model" not in scripted.seen[0]
    assert scripted.seen[0]["anthropic_version"] == "vertex-2023-10-16"
    (call,) = await stored_calls(run)
    assert call.cost > 0


@pytest.mark.django_db(transaction=True)
async def test_a_models_name_cannot_lead_elsewhere_at_the_provider(
    gateway, pod, scripted, vertex_provider, run
):
    """The name is the agent's where a route takes it, and the address is asked with the project's token."""
    await db.write(Run.objects.filter(pk=run.pk).update, provider=None)
    await db.write(Route.objects.create, pattern="claude-*", provider=vertex_provider, position=1)
    name = "claude-sonnet-4-5/../../../google/models/veo-3:predictLongRunning?x="
    request = {**LANGUAGES["anthropic-messages"].request(), "model": name}
    async with gateway.http.post("/llm/v1/messages", json=request, headers=pod.bearer) as answer:
        await answer.read()
    (path,) = scripted.paths
    place = f"/v1/{PLACE}/publishers/anthropic/models/"
    assert path.startswith(place)
    assert path.endswith(":rawPredict")
    assert not {"/", "?", "#"} & set(path.removeprefix(place))


@pytest.mark.django_db(transaction=True)
async def test_the_test_button_fetches_a_token_and_counts(scripted, vertex_provider, endpoint):
    found = await asyncio.to_thread(_closing, provider_test.test, vertex_provider)
    assert found.ok, found
    assert found.message == "It answers and counts tokens."
    endpoint.status = 400
    found = await asyncio.to_thread(_closing, provider_test.test, vertex_provider)
    assert not found.ok
    assert "no token" in found.message


def _closing(fn, *args):
    from django.db import connections

    try:
        return fn(*args)
    finally:
        connections.close_all()


@pytest.mark.django_db(transaction=True)
def test_its_address_names_project_and_location_and_its_key_is_json(manager):
    for address, key, field in (
        ("https://europe-west1-aiplatform.googleapis.com", "", "base_url"),
        (f"https://europe-west1-aiplatform.googleapis.com/v1/{PLACE}", "sk-1", "credential"),
    ):
        with pytest.raises(providers.InvalidProvider) as error:
            providers.save(manager, None, name="V", kind="vertex", base_url=address, credential=key)
        assert field in error.value.errors


@pytest.fixture(autouse=True)
async def closed():
    yield
    await upstream.close()
