"""A model provider at the world's edge: the scripted demo behind a real socket, in the forms of Anthropic and Google."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from devaipod_web.llm import demo, demo_read, demo_write


async def _answer(request: web.Request) -> web.StreamResponse:
    form = "anthropic-messages" if request.path.endswith("/messages") else "gemini"
    asked = await request.json()
    said = demo.reply(demo_read.conversation(form, asked))
    if not (asked.get("stream") or "streamGenerateContent" in request.path):
        return web.json_response(demo_write.whole(form, said))
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    async for piece in demo_write.stream(form, said):
        await response.write(piece)
    return response


@contextlib.asynccontextmanager
async def playing() -> AsyncIterator[str]:
    """Serve until the block ends; yields the base address."""
    app = web.Application(client_max_size=64 * 1024**2)
    app.router.add_post("/{path:.*}", _answer)
    runner = web.AppRunner(app, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await asyncio.wait_for(runner.cleanup(), 5)
