"""A receiver of webhooks at the world's edge: a real HTTP server that checks signatures with the `standardwebhooks` package.

It answers 200 unless told otherwise: `receiver.plan = ["500", "hang"]` is for the next two requests, one each; `receiver.always`
for every other one. What a request did not verify with any of `receiver.secrets` is in `receiver.refused`, and gets 400.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError


@dataclass(frozen=True)
class Received:
    """One request that verified: the `webhook-id`, the payload, the headers, and by which of the secrets."""

    id: str
    payload: dict[str, Any]
    body: bytes
    headers: dict[str, str]
    secrets: tuple[str, ...]
    path: str
    at: float

    @property
    def kind(self) -> str:
        """The payload's type."""
        return str(self.payload["type"])


class Receiver:
    """The server and what it saw."""

    def __init__(self) -> None:
        self.secrets: list[str] = []
        self.plan: list[str] = []
        self.always = "200"
        self.got: list[Received] = []
        self.refused: list[dict[str, str]] = []
        self.open = 0
        self.most_open = 0
        self.port = 0
        self.scheme = "http"
        self.release = threading.Event()
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{self.scheme}://127.0.0.1:{self.port}/hook"

    @property
    def ids(self) -> list[str]:
        """The ids of the requests that verified, in order."""
        return [one.id for one in self.got]

    def kinds(self) -> list[str]:
        """Their kinds, each id once."""
        seen = {one.id: one.kind for one in self.got}
        return list(seen.values())

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Verify, remember, and answer as told."""
        with self._lock:
            self.open += 1
            self.most_open = max(self.most_open, self.open)
        try:
            body = await request.read()
            headers = {name.lower(): value for name, value in request.headers.items()}
            known = tuple(s for s in self.secrets if verifies(s, body, headers))
            if not known:
                self.refused.append(headers)
                return web.Response(status=400, text="the signature is not right")
            received = Received(
                headers["webhook-id"],
                json.loads(body),
                body,
                headers,
                known,
                request.path_qs,
                time.monotonic(),
            )
            with self._lock:
                self.got.append(received)
                what = self.plan.pop(0) if self.plan else self.always
            return await self.answer(what, request)
        finally:
            with self._lock:
                self.open -= 1

    async def answer(self, what: str, request: web.Request) -> web.StreamResponse:
        """Answer in one of the ways that a test asks for."""
        if what == "hang":
            while not self.release.is_set():
                await asyncio.sleep(0.02)
            return web.Response(text="late")
        if what == "close":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if what == "redirect":
            return web.Response(status=302, headers={"Location": self.url + "?elsewhere"})
        if what.startswith("retry-after "):
            return web.Response(status=503, headers={"Retry-After": what.split()[1]})
        if what == "flood":
            response = web.StreamResponse()
            await response.prepare(request)
            piece = b"\x1b[31m<script>alert(1)</script>" * 2000
            for _ in range(400):  # 23 MB, when somebody reads them
                await response.write(piece)
            return response
        if what == "trickle":
            response = web.StreamResponse()
            await response.prepare(request)
            while not self.release.is_set():
                await response.write(b".")
                await asyncio.sleep(0.05)
            return response
        return web.Response(status=int(what), text=f"answer {what}")


def verifies(secret: str, body: bytes, headers: dict[str, str]) -> bool:
    """Whether the `standardwebhooks` package takes this request for one signed with the secret."""
    try:
        Webhook(secret).verify(body, headers)
    except WebhookVerificationError:
        return False
    return True


@contextmanager
def receiving(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """A receiver on a free port, in a thread with a loop of its own."""
    receiver = Receiver()
    receiver.scheme = "https" if tls else "http"
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    receiver.port = sock.getsockname()[1]
    loop = asyncio.new_event_loop()
    up = threading.Event()

    async def serve() -> web.AppRunner:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", receiver.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.SockSite(runner, sock, ssl_context=tls).start()
        return runner

    def run() -> None:
        asyncio.set_event_loop(loop)
        runner = loop.run_until_complete(serve())
        up.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())

    thread = threading.Thread(target=run, name="receiver", daemon=True)
    thread.start()
    assert up.wait(10)
    try:
        yield receiver
    finally:
        receiver.release.set()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Wait until a condition holds and return it; for tests without a loop."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds:.0f} s for {what}")
