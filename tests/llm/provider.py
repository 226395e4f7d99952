"""A provider at the world's edge: a real HTTP server in every wire form that can be told to fail in every way."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.llm.languages import LANGUAGES, Chat

KEY = "sk-test-0123456789abcdefghij"


@dataclass
class ScriptedProvider:
    """What it saw and what it does. `behaviour` names one of the methods below."""

    behaviour: str = "answer"
    port: int = 0
    raw: list[bytes] = field(default_factory=list)
    seen: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.headers.append(dict(request.headers))
        self.paths.append(request.path_qs)
        self.raw.append(await request.read())
        body = json.loads(self.raw[-1])
        self.seen.append(body)
        spoken = _language(request)
        if request.path.endswith(("count_tokens", ":countTokens")) and self.behaviour == "answer":
            return web.json_response(
                {"totalTokens": 7} if spoken.name == "gemini" else {"input_tokens": 7}
            )
        streamed = (
            "streamGenerate" in request.path if spoken.name == "gemini" else body.get("stream")
        )
        method = getattr(self, f"do_{self.behaviour}")
        answer: web.StreamResponse = await method(request, spoken, bool(streamed))
        return answer

    async def models(self, request: web.Request) -> web.StreamResponse:
        """Its list of models, for whoever has the key in the way of the form."""
        self.headers.append(dict(request.headers))
        self.paths.append(request.path_qs)
        sent = {name.lower(): value for name, value in request.headers.items()}
        if request.path == "/v1beta/models":
            if sent.get("x-goog-api-key") != KEY:
                return web.json_response({"error": {"message": "no"}}, status=403)
            return web.json_response({"models": [{"name": "models/gemini-2.5-pro"}]})
        anthropic = "anthropic-version" in sent
        key = sent.get("x-api-key") if anthropic else sent.get("authorization", "")[7:]
        if key != KEY:
            return web.json_response({"error": {"message": "no"}}, status=401)
        return web.json_response({"data": [{"id": "claude-1" if anthropic else "gpt-1"}]})

    async def do_answer(
        self, request: web.Request, spoken: Chat, streamed: bool, *, usage: bool = True
    ) -> web.StreamResponse:
        if streamed and spoken.name == "gemini" and request.query.get("alt") != "sse":
            pieces = [json.loads(spoken.says("Hello ")[6:]), spoken.whole()]
            return web.json_response(pieces)
        if not streamed:
            return web.json_response(
                spoken.whole(), headers={"x-request-id": "req-1", "Set-Cookie": "session=provider"}
            )
        response = await self._stream(request)
        for piece in (*spoken.starts(), spoken.says("Hello "), spoken.says("there.")):
            await response.write(piece)
        for piece in spoken.ends(usage):
            await response.write(piece)
        return response

    async def do_no_usage(
        self, request: web.Request, spoken: Chat, streamed: bool
    ) -> web.StreamResponse:
        return await self.do_answer(request, spoken, streamed, usage=False)

    async def do_slowly(
        self, request: web.Request, spoken: Chat, streamed: bool
    ) -> web.StreamResponse:
        response = await self._stream(request)
        try:
            for piece in spoken.starts():
                await response.write(piece)
            for number in range(1000):
                await response.write(spoken.says(f"{number} "))
                await asyncio.sleep(0.05)
        except (ConnectionError, asyncio.CancelledError):
            self.hung_up.set()
            raise
        return response

    async def do_all_but_counts(
        self, request: web.Request, spoken: Chat, streamed: bool
    ) -> web.StreamResponse:
        """Everything that the answer says, its end where that is a part of it, and then nothing for a while."""
        response = await self._stream(request)
        try:
            for piece in (*spoken.starts(), spoken.says("Hello ")):
                await response.write(piece)
            for piece in list(spoken.ends(False))[:-1]:
                await response.write(piece)
            await response.write(spoken.says("the end"))
            await asyncio.sleep(30)
        except (ConnectionError, asyncio.CancelledError):
            self.hung_up.set()
            raise
        return response

    async def do_unauthorized(
        self, request: web.Request, spoken: Chat, streamed: bool
    ) -> web.StreamResponse:
        words = f"Incorrect API key provided: {KEY}. See your dashboard."
        return web.json_response(spoken.error(401, words), status=401)

    async def do_limited(
        self, request: web.Request, spoken: Chat, streamed: bool
    ) -> web.StreamResponse:
        error = spoken.error(429, "Rate limit reached for requests")
        return web.json_response(error, status=429, headers={"Retry-After": "7"})

    async def do_unpaid(
        self, request: web.Request, spoken: Chat, streamed: bool
    ) -> web.StreamResponse:
        return web.json_response(spoken.error(402, "Insufficient Balance"), status=402)

    async def do_no_quota(
        self, request: web.Request, spoken: Chat, streamed: bool
    ) -> web.StreamResponse:
        words = "You exceeded your current quota, please check your plan and billing details."
        return web.json_response(spoken.error(429, words), status=429)

    async def do_fail(
        self, request: web.Request, spoken: Chat, streamed: bool
    ) -> web.StreamResponse:
        return web.Response(status=500, text="<html><body>upstream fell over</body></html>")

    async def do_redirect(
        self, request: web.Request, spoken: Chat, streamed: bool
    ) -> web.StreamResponse:
        raise web.HTTPTemporaryRedirect("http://169.254.169.254/latest/meta-data")

    async def do_unknown_model(
        self, request: web.Request, spoken: Chat, streamed: bool
    ) -> web.StreamResponse:
        words = f"The model does not exist ({KEY})"
        return web.json_response(spoken.error(404, words), status=404)

    async def do_hang(
        self, request: web.Request, spoken: Chat, streamed: bool
    ) -> web.StreamResponse:
        await asyncio.sleep(30)
        raise AssertionError("nobody waits that long")

    async def do_stall(
        self, request: web.Request, spoken: Chat, streamed: bool
    ) -> web.StreamResponse:
        response = await self._begin(request, spoken)
        await asyncio.sleep(30)
        return response

    async def do_garbage(
        self, request: web.Request, spoken: Chat, streamed: bool
    ) -> web.StreamResponse:
        return web.Response(text="<html>Welcome to nginx!</html>", content_type="text/html")

    async def do_garbage_stream(
        self, request: web.Request, spoken: Chat, streamed: bool
    ) -> web.StreamResponse:
        response = await self._stream(request)
        await response.write(b"data: {not json\n\n\x00\xff\xfe\n\n")
        return response

    async def do_break_off(
        self, request: web.Request, spoken: Chat, streamed: bool
    ) -> web.StreamResponse:
        response = await self._begin(request, spoken)
        assert request.transport is not None
        request.transport.abort()
        return response

    async def do_close_early(
        self, request: web.Request, spoken: Chat, streamed: bool
    ) -> web.StreamResponse:
        return await self._begin(request, spoken)

    async def do_error_event(
        self, request: web.Request, spoken: Chat, streamed: bool
    ) -> web.StreamResponse:
        response = await self._begin(request, spoken)
        await response.write(spoken.fails(f"overloaded {KEY}"))
        return response

    async def do_odd_words(
        self, request: web.Request, spoken: Chat, streamed: bool
    ) -> web.StreamResponse:
        response = await self._begin(request, spoken)
        await response.write(spoken.fails("odd \ud800 \x00 \x1b[31m words"))
        return response

    async def _begin(self, request: web.Request, spoken: Chat) -> web.StreamResponse:
        response = await self._stream(request)
        for piece in (*spoken.starts(), spoken.says("Hel")):
            await response.write(piece)
        return response

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        return response


def _language(request: web.Request) -> Chat:
    path = request.path
    if "publishers/anthropic" in path or "/messages" in path:
        return LANGUAGES["anthropic-messages"]
    if "/models/" in path:
        return LANGUAGES["gemini"]
    return LANGUAGES["openai-responses" if path.endswith("/responses") else "openai-chat"]


@contextlib.asynccontextmanager
async def provider_running() -> AsyncIterator[ScriptedProvider]:
    """Serve until the block ends."""
    provider = ScriptedProvider()
    app = web.Application(client_max_size=64 * 1024**2)
    app.router.add_post("/{path:.*}", provider.handle)
    app.router.add_get("/{path:.*/models}", provider.models)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    provider.port = runner.addresses[0][1]
    try:
        yield provider
    finally:
        await runner.cleanup()
