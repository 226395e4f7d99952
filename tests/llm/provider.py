"""A provider at the world's edge: a real HTTP server in OpenAI's chat form that can be told to fail in every way."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

KEY = "sk-test-0123456789abcdefghij"


@dataclass
class ScriptedProvider:
    """What it saw and what it does. `behaviour` names one of the methods below."""

    behaviour: str = "answer"
    port: int = 0
    seen: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.headers.append(dict(request.headers))
        body = await request.json()
        self.seen.append(body)
        method = getattr(self, f"do_{self.behaviour}")
        answer: web.StreamResponse = await method(request, body)
        return answer

    async def do_answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        usage = {
            "prompt_tokens": 1000,
            "completion_tokens": 200,
            "total_tokens": 1200,
            "prompt_tokens_details": {"cached_tokens": 400},
        }
        if not body.get("stream"):
            message = {"role": "assistant", "content": "Hello there."}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return web.json_response(
                {"id": "c1", "object": "chat.completion", "choices": [choice], "usage": usage},
                headers={"x-request-id": "req-1", "Set-Cookie": "session=provider"},
            )
        response = await self._stream(request)
        for word in ("Hello ", "there."):
            await self._event(response, {"choices": [{"index": 0, "delta": {"content": word}}]})
        await self._event(
            response, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        )
        if (body.get("stream_options") or {}).get("include_usage"):
            await self._event(response, {"choices": [], "usage": usage})
        await response.write(b"data: [DONE]\n\n")
        return response

    async def do_slowly(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        response = await self._stream(request)
        try:
            for number in range(1000):
                await self._event(
                    response, {"choices": [{"index": 0, "delta": {"content": f"{number} "}}]}
                )
                await asyncio.sleep(0.05)
        except (ConnectionError, asyncio.CancelledError):
            self.hung_up.set()
            raise
        return response

    async def do_unauthorized(
        self, request: web.Request, body: dict[str, Any]
    ) -> web.StreamResponse:
        message = f"Incorrect API key provided: {KEY}. See your dashboard."
        return web.json_response({"error": {"message": message}}, status=401)

    async def do_limited(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        error = {"error": {"message": "Rate limit reached for requests"}}
        return web.json_response(error, status=429, headers={"Retry-After": "7"})

    async def do_unpaid(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        error = {"error": {"message": "Insufficient Balance", "code": "invalid_request_error"}}
        return web.json_response(error, status=402)

    async def do_no_quota(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        message = "You exceeded your current quota, please check your plan and billing details."
        error = {"message": message, "type": "insufficient_quota", "code": "insufficient_quota"}
        return web.json_response({"error": error}, status=429)

    async def do_fail(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return web.Response(status=500, text="<html><body>upstream fell over</body></html>")

    async def do_redirect(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        raise web.HTTPTemporaryRedirect("http://169.254.169.254/latest/meta-data")

    async def do_unknown_model(
        self, request: web.Request, body: dict[str, Any]
    ) -> web.StreamResponse:
        return web.json_response({"error": {"message": "The model does not exist"}}, status=404)

    async def do_hang(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        await asyncio.sleep(30)
        raise AssertionError("nobody waits that long")

    async def do_stall(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        response = await self._stream(request)
        await self._event(response, {"choices": [{"index": 0, "delta": {"content": "Hel"}}]})
        await asyncio.sleep(30)
        return response

    async def do_garbage(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return web.Response(text="<html>Welcome to nginx!</html>", content_type="text/html")

    async def do_garbage_stream(
        self, request: web.Request, body: dict[str, Any]
    ) -> web.StreamResponse:
        response = await self._stream(request)
        await response.write(b"data: {not json\n\n\x00\xff\xfe\n\n")
        return response

    async def do_break_off(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        response = await self._stream(request)
        await self._event(response, {"choices": [{"index": 0, "delta": {"content": "Hel"}}]})
        assert request.transport is not None
        request.transport.abort()
        return response

    async def do_error_event(
        self, request: web.Request, body: dict[str, Any]
    ) -> web.StreamResponse:
        response = await self._stream(request)
        await self._event(response, {"choices": [{"index": 0, "delta": {"content": "Hel"}}]})
        await self._event(response, {"error": {"message": f"overloaded {KEY}"}})
        return response

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        return response

    async def _event(self, response: web.StreamResponse, value: dict[str, Any]) -> None:
        await response.write(b"data: " + json.dumps(value).encode() + b"\n\n")


@contextlib.asynccontextmanager
async def provider_running() -> AsyncIterator[ScriptedProvider]:
    """Serve until the block ends."""
    provider = ScriptedProvider()
    app = web.Application(client_max_size=64 * 1024**2)
    app.router.add_post("/v1/chat/completions", provider.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    provider.port = runner.addresses[0][1]
    try:
        yield provider
    finally:
        await runner.cleanup()
