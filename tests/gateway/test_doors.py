from __future__ import annotations

import asyncio

import pytest
from django.utils import timezone

from devaipod_web import db
from devaipod_web.gateway import fresh, tokens
from devaipod_web.runs.models import RunPod
from tests.gateway.served import make_pod

pytestmark = pytest.mark.django_db(transaction=True)

MODELS = "/llm/v1/models"


async def test_a_token_is_kept_as_a_hash_only(pod):
    row = await db.read(RunPod.objects.values().get)
    assert pod.control not in str(row)
    assert pod.data not in str(row)
    assert tokens.digest(pod.data) == row["data_digest"]


async def test_nothing_is_served_without_a_token(gateway):
    async with gateway.http.get(MODELS) as answer:
        assert answer.status == 401
        assert "run token" in (await answer.json())["error"]["message"]


async def test_an_unknown_token_is_refused(gateway):
    headers = {"Authorization": f"Bearer {tokens.mint()[0]}"}
    async with gateway.http.get(MODELS, headers=headers) as answer:
        assert answer.status == 401


async def test_the_data_token_reaches_the_models(gateway, pod):
    async with gateway.http.get(MODELS, headers=pod.bearer) as answer:
        assert answer.status == 200
        assert [m["id"] for m in (await answer.json())["data"]] == ["scripted-demo"]


async def test_the_control_token_counts_at_no_http_route(gateway, pod):
    for path in (MODELS, "/git/repo.git/info/refs?service=git-upload-pack"):
        async with gateway.http.get(path, headers=pod.control_bearer) as answer:
            assert answer.status == 403
            assert "data token" in (await answer.json())["error"]["message"]


async def test_a_token_in_another_place_than_the_header_does_not_count(gateway, pod):
    for path, headers in [
        (f"{MODELS}?key={pod.data}", {}),
        (MODELS, {"x-api-key": pod.data}),
        (MODELS, {"Cookie": f"token={pod.data}"}),
        (MODELS, {"Authorization": f"Basic {pod.data}"}),
    ]:
        async with gateway.http.get(path, headers=headers) as answer:
            assert answer.status == 401


async def test_a_token_dies_with_its_pod_within_a_second(gateway, pod):
    async with gateway.http.get(MODELS, headers=pod.bearer) as answer:
        assert answer.status == 200
    await db.write(RunPod.objects.filter(pk=pod.row.pk).update, ended_at=timezone.now())
    await asyncio.sleep(fresh.MAX_AGE_SECONDS + 0.05)
    async with gateway.http.get(MODELS, headers=pod.bearer) as answer:
        assert answer.status == 401


async def test_a_later_attempt_ends_the_earlier_ones_tokens(gateway, pod):
    newer = await db.write(make_pod, pod.row.run, attempt=2)
    async with gateway.http.get(MODELS, headers=pod.bearer) as answer:
        assert answer.status == 401
    async with gateway.http.get(MODELS, headers=newer.bearer) as answer:
        assert answer.status == 200


SPELLINGS = [
    "/",
    "/llm/v1/embeddings",
    "/llm/v1/models/",
    "/llm//v1/models",
    "/llm/v1/%6dodels",
    "/git/repo.git/../../sidecar",
    "/git/repo.git/HEAD",
    "/git/repo.git/objects/info/packs",
    "/git/other.git/info/refs?service=git-upload-pack",
    "/api/devaipod/status",
    "/runs/",
    "/healthz",
    "/sidecar",
]


async def test_other_paths_and_spellings_are_not_served(gateway, pod):
    for path in SPELLINGS:
        reader, writer = await asyncio.open_unix_connection(str(gateway.path))
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {pod.data}\r\nConnection: close\r\n\r\n".encode()
        )
        answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 404"), path
        assert b'"error"' in answer


async def test_another_method_is_named(gateway, pod):
    async with gateway.http.post(MODELS, headers=pod.bearer) as answer:
        assert answer.status == 405
        assert answer.headers["Allow"] == "GET"
