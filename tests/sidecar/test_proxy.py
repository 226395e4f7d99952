"""The localhost proxy, spoken to byte by byte: what passes, what does not, and what is added and taken away."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from pods.sidecar.proxy import Proxy

DATA, CONTROL = "data-token-of-the-run", "control-token-of-the-run"


class Gateway:
    """Answers every request on a Unix socket and keeps what it was sent, as it was sent."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "gateway.sock"
        self.seen: list[dict[str, Any]] = []
        self.cancelled = asyncio.Event()
        self.wait = asyncio.Event()
        self._runner: web.ServerRunner | None = None

    async def start(self) -> None:
        server = web.Server(self._answer, auto_decompress=False, handler_cancellation=True)
        self._runner = web.ServerRunner(server)
        await self._runner.setup()
        self.path.unlink(missing_ok=True)
        await web.UnixSite(self._runner, str(self.path)).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        self._runner = None

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        seen: dict[str, Any] = {
            "method": request.method,
            "target": request.raw_path,
            "headers": request.headers,
        }
        self.seen.append(seen)
        if request.path.endswith("/stream"):
            return await self._stream(request)
        seen["body"] = await request.read()
        return web.Response(
            text="ok",
            headers={"Set-Cookie": "a=b", "X-Kept": "1", "Connection": "X-Gone", "X-Gone": "1"},
        )

    async def _stream(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        try:
            await self.wait.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if "cut" in request.query_string:
            assert request.transport is not None
            request.transport.abort()
            return response
        await response.write(b"data: 2\n\n")
        return response


class Place:
    """A proxy between a raw socket and a gateway."""

    def __init__(self, gateway: Gateway, proxy: Proxy, port: int) -> None:
        self.gateway = gateway
        self.proxy = proxy
        self.port = port

    async def raw(self, request: bytes) -> bytes:
        """Send bytes and return what came back until the other side closed."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        await writer.drain()
        try:
            return await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()

    async def get(self, target: str, *headers: str, method: str = "GET") -> bytes:
        lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *headers]
        return await self.raw("\r\n".join([*lines, "", ""]).encode("latin-1"))


@pytest.fixture
async def place(monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int) -> AsyncIterator[Place]:
    folder = Path(tempfile.mkdtemp(prefix="proxy-", dir="/tmp"))
    monkeypatch.setenv("DEVAIPOD_SOCKET_DIR", str(folder))
    gateway = Gateway(folder)
    await gateway.start()
    proxy = Proxy(DATA, port=unused_tcp_port)
    await proxy.start()
    try:
        yield Place(gateway, proxy, unused_tcp_port)
    finally:
        gateway.wait.set()
        await proxy.stop()
        await gateway.stop()
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("target", "forwarded"),
    [
        ("/llm/v1/models", "/llm/v1/models"),
        (
            "/llm/v1beta/models/gemini-2.5:generateContent",
            "/llm/v1beta/models/gemini-2.5:generateContent",
        ),
        ("/llm/v1beta/models/x:generate?alt=sse&key=abc", "/llm/v1beta/models/x:generate?alt=sse"),
        ("/llm/v1/models?key=abc", "/llm/v1/models"),
        (
            "/git/repo.git/info/refs?service=git-upload-pack",
            "/git/repo.git/info/refs?service=git-upload-pack",
        ),
        ("/mcp/tools/", "/mcp/tools/"),
    ],
)
async def test_a_plain_path_is_forwarded(place: Place, target: str, forwarded: str):
    assert (await place.get(target)).startswith(b"HTTP/1.1 200")
    assert place.gateway.seen[0]["target"] == forwarded


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/sidecar",
        "/egress",
        "//sidecar",
        "/llm",
        "/llmx/v1",
        "/LLM/v1/models",
        "/llm/../sidecar",
        "/llm/./../sidecar",
        "/llm/v1/..",
        "/llm/v1/.",
        "/llm/.../x",
        "/llm//sidecar",
        "/llm/v1//models",
        "//llm/v1/models",
        "/./llm/v1/models",
        "/llm/%2e%2e/sidecar",
        "/llm/%2E%2E/sidecar",
        "/llm/..%2fsidecar",
        "/llm/..%2Fsidecar",
        "/llm/..%5csidecar",
        "/llm/..\\sidecar",
        "\\llm\\v1",
        "/llm\\..\\sidecar",
        "/llm/%252e%252e/sidecar",
        "/llm/..;/sidecar",
        "/llm/v1/models%00",
        "/llm/v1/models%20",
        "/llm/v1/m\xf6dels",
        "/%6clm/v1/models",
        "/llm/v1/models#/../sidecar",
        "http://127.0.0.1/llm/v1/models",
        "http://gateway/sidecar",
        "https://example.org/llm/v1",
        "//gateway/llm/v1",
        "*",
        "llm/v1/models",
        "?/llm/v1",
    ],
)
async def test_no_other_spelling_reaches_the_gateway(place: Place, target: str):
    answer = await place.get(target)
    assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), answer[:200]
    assert place.gateway.seen == []


@pytest.mark.parametrize("method", ["CONNECT", "TRACE", "PROPFIND", "PRI"])
@pytest.mark.parametrize("target", ["/llm/v1/models", "gateway:80", "127.0.0.1:8400", "/sidecar"])
async def test_other_methods_are_refused(place: Place, method: str, target: str):
    answer = await place.get(target, method=method)
    assert b" 200 " not in answer.split(b"\r\n", 1)[0]
    assert place.gateway.seen == []


async def test_an_upgrade_does_not_pass(place: Place):
    answer = await place.get(
        "/llm/v1/models",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    )
    assert answer.startswith(b"HTTP/1.1 400")
    assert place.gateway.seen == []


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /llm/v1/models HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /llm/v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 40\r\n\r\nhello",
        b"GET /llm/v1/models HTTP/1.1\r\nHost: a\r\nX: a\nGET /sidecar HTTP/1.1\r\n\r\n",
        b"GET /llm/v1/models\r\n HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
)
async def test_a_request_that_can_be_read_in_two_ways_smuggles_nothing(
    place: Place, request_bytes: bytes
):
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    writer.write(request_bytes)
    writer.write_eof()
    await asyncio.wait_for(reader.read(), 10)
    writer.close()
    assert all("sidecar" not in seen["target"] for seen in place.gateway.seen)
    assert len(place.gateway.seen) <= 1


async def test_credentials_of_the_agent_are_dropped_and_the_data_token_added(place: Place):
    await place.get(
        "/llm/v1/models",
        f"Authorization: Bearer {CONTROL}",
        "x-api-key: theirs",
        "X-Goog-Api-Key: theirs",
        "api-key: theirs",
        "Cookie: session=theirs",
        "Proxy-Authorization: Basic dGhlaXJz",
        "Forwarded: for=1.2.3.4",
        "X-Forwarded-For: 1.2.3.4",
        "anthropic-version: 2023-06-01",
    )
    headers = place.gateway.seen[0]["headers"]
    assert headers.getall("Authorization") == [f"Bearer {DATA}"]
    assert "theirs" not in str(dict(headers))
    assert CONTROL not in str(dict(headers))
    assert headers["anthropic-version"] == "2023-06-01"
    assert not {"forwarded", "x-forwarded-for", "cookie", "proxy-authorization"} & {
        name.lower() for name in headers
    }


async def test_a_header_that_connection_names_goes_no_further(place: Place):
    answer = await place.raw(
        b"GET /llm/v1/models HTTP/1.1\r\nHost: a\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nX-Other: 1\r\n\r\n"
    )
    assert "X-Hop" not in place.gateway.seen[0]["headers"]
    assert place.gateway.seen[0]["headers"]["X-Other"] == "1"
    assert b"Set-Cookie" not in answer
    assert b"X-Kept: 1" in answer


async def test_a_compressed_body_passes_as_it_is(place: Place):
    body = gzip.compress(os.urandom(100_000) + b"0" * 100_000)
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"http://127.0.0.1:{place.port}/git/repo.git/git-upload-pack",
            data=body,
            headers={"Content-Encoding": "gzip"},
        ) as answer,
    ):
        assert answer.status == 200
    assert place.gateway.seen[0]["body"] == body
    assert place.gateway.seen[0]["headers"]["Content-Encoding"] == "gzip"


async def test_a_client_that_expects_100_continue_is_told_to_go_on(place: Place):
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    writer.write(
        b"POST /llm/v1/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    )
    assert await asyncio.wait_for(reader.readline(), 5) == b"HTTP/1.1 100 Continue\r\n"
    writer.write(b"hello")
    assert b"HTTP/1.1 200" in await asyncio.wait_for(reader.read(), 5)
    writer.close()
    assert place.gateway.seen[0]["body"] == b"hello"


async def test_a_stream_arrives_piece_by_piece(place: Place):
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{place.port}/llm/v1/stream") as answer,
    ):
        first = await asyncio.wait_for(answer.content.readany(), 5)
        assert first == b"data: 1\n\n"
        place.gateway.wait.set()
        assert await answer.content.read() == b"data: 2\n\n"


async def test_a_client_that_hangs_up_ends_the_request_upstream(place: Place):
    async with aiohttp.ClientSession() as session:
        answer = await session.get(f"http://127.0.0.1:{place.port}/llm/v1/stream")
        await answer.content.readany()
        answer.close()
    await asyncio.wait_for(place.gateway.cancelled.wait(), 5)


async def test_an_answer_that_was_cut_does_not_look_complete(place: Place):
    async with aiohttp.ClientSession() as session:
        answer = await session.get(f"http://127.0.0.1:{place.port}/llm/v1/stream?cut=1")
        await answer.content.readany()
        place.gateway.wait.set()
        with pytest.raises(aiohttp.ClientError):
            await answer.content.read()


async def test_a_request_waits_for_a_gateway_that_restarts(place: Place):
    await place.gateway.stop()
    place.gateway.path.unlink(missing_ok=True)
    waiting = asyncio.create_task(
        place.raw(
            b"POST /llm/v1/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"
        )
    )
    await asyncio.sleep(0.6)
    assert not waiting.done()
    await place.gateway.start()
    assert (await waiting).startswith(b"HTTP/1.1 200")
    assert [seen["body"] for seen in place.gateway.seen] == [b"hello"]


async def test_a_gateway_that_stays_away_is_named_in_json(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pods.sidecar.proxy.RETRY_SECONDS", 0.3)
    await place.gateway.stop()
    place.gateway.path.unlink(missing_ok=True)
    answer = await place.get("/llm/v1/models")
    assert answer.startswith(b"HTTP/1.1 502")
    assert "gateway" in json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"]
