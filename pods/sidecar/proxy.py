"""The localhost proxy: the agent's only way out, and not the sidecar.

Each request is parsed and issued anew. Only normalised paths under `/llm/`, `/mcp/` and `/git/` pass; what could be read in two
ways is refused (encoded dots, slashes, backslashes, empty segments, absolute form, CONNECT, Upgrade). Credentials that the
agent sends are dropped; the run's data token is put in their place.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

import aiohttp
from aiohttp import web
from yarl import URL

from pods.sidecar.link import connector, gateway_address
from pods.spec import PROXY_PORT

PREFIXES = ("/llm/", "/mcp/", "/git/")
#: Unreserved characters of RFC 3986 §2.3, `:` and `@` of a segment, and nothing encoded.
PATH = re.compile(r"(?:/[A-Za-z0-9_~:@!$&'()*+,;=-][A-Za-z0-9._~:@!$&'()*+,;=-]*)+/?")
DROPPED = frozenset(
    {
        # RFC 9110 §7.6.1: hop by hop
        *(
            "connection",
            "keep-alive",
            "proxy-authenticate",
            "proxy-authorization",
            "proxy-connection",
        ),
        *("te", "trailer", "transfer-encoding", "upgrade", "host", "content-length", "expect"),
        # credentials, and what pretends to come from a proxy
        *("authorization", "x-api-key", "x-goog-api-key", "api-key", "cookie", "forwarded", "via"),
        *("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"),
    }
)
DROPPED_PREFIXES = ("proxy-", "x-forwarded-", "sec-websocket-")
DROPPED_ANSWER = frozenset(
    {
        "connection",
        "keep-alive",
        "transfer-encoding",
        "upgrade",
        "trailer",
        "set-cookie",
        "content-length",
    }
)
SECRET_PARAMETERS = frozenset({"key", "api_key", "access_token"})
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"})
CHUNK_BYTES = 64 * 1024
MAX_CONNECTIONS = 64
#: Descriptors are few in a pod, and the way to the gateway needs one at every reconnect.
MAX_OPEN = 256
#: How long a request waits for a gateway that is being restarted.
RETRY_SECONDS = 30
CONNECT_SECONDS = 5


def allowed_path(raw: str) -> str | None:
    """The path and query to forward for a request target, or None when it does not pass. Nothing is decoded."""
    if not raw.isascii():
        return None
    path, mark, query = raw.partition("?")
    if "%" in path or not path.startswith(PREFIXES) or not PATH.fullmatch(path):
        return None
    if not mark:
        return path
    kept = [
        (k, v) for k, v in parse_qsl(query, keep_blank_values=True) if k not in SECRET_PARAMETERS
    ]
    return f"{path}?{urlencode(kept)}" if kept else path


class Proxy:
    """Serves 127.0.0.1:PROXY_PORT inside the pod."""

    def __init__(self, token: str, *, port: int = PROXY_PORT) -> None:
        self.port = port
        self._token = token
        self._runner: web.ServerRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self._places = asyncio.Semaphore(MAX_CONNECTIONS)

    async def start(self) -> None:
        """Listen."""
        self._session = aiohttp.ClientSession(
            # A connection a request: one that was kept is dead after a restart of the gateway, and a body can't be sent twice.
            connector=connector(keep=False),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        )
        self._runner = web.ServerRunner(
            _BoundedServer(
                self.handle,
                access_log=None,
                handler_cancellation=True,
                # Bodies pass as they are: git compresses its requests and says so in a header that we forward.
                auto_decompress=False,
                keepalive_timeout=15.0,
            ),
            handle_signals=False,
            shutdown_timeout=1.0,
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, backlog=128)
        await site.start()

    async def stop(self) -> None:
        """Close."""
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Forward one request, or say why not."""
        # The request target as it was sent: aiohttp's `path` is decoded.
        target = allowed_path(request.raw_path)
        if request.method not in METHODS or target is None:
            return _problem(404, "Only /llm/, /mcp/ and /git/ are here, spelled plainly.")
        if "upgrade" in request.headers:
            return _problem(400, "No protocol upgrade passes this proxy.")
        if self._places.locked():
            return _problem(429, f"More than {MAX_CONNECTIONS} requests at once.")
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        async with self._places:
            return await self._forward(request, target)

    async def _forward(self, request: web.BaseRequest, target: str) -> web.StreamResponse:
        loop = asyncio.get_running_loop()
        end = loop.time() + RETRY_SECONDS
        while True:
            try:
                return await self._once(request, target)
            except _NotSent as error:
                if loop.time() > end:
                    return _problem(502, f"The gateway does not answer: {error}. Try again later.")
                await asyncio.sleep(0.25)

    async def _once(self, request: web.BaseRequest, target: str) -> web.StreamResponse:
        assert self._session is not None
        _, base = gateway_address()
        headers = dict(_kept(request.headers, DROPPED))
        headers["Authorization"] = f"Bearer {self._token}"
        body = request.content.iter_chunked(CHUNK_BYTES) if request.can_read_body else None
        if body is not None and request.content_length is not None:
            headers["Content-Length"] = str(request.content_length)
        began = False

        async def feed() -> AsyncIterator[bytes]:
            nonlocal began
            assert body is not None
            async for chunk in body:
                began = True
                yield chunk

        try:
            answer = await self._session.request(
                request.method,
                URL(base + target, encoded=True),
                headers=headers,
                data=feed() if body is not None else None,
                allow_redirects=False,
            )
        except (aiohttp.ClientConnectionError, OSError) as error:
            if not began:
                raise _NotSent(type(error).__name__) from error
            return _problem(
                502, "The gateway went away in the middle of the request. Send it again."
            )
        try:
            return await self._answer(request, answer)
        finally:
            answer.close()

    async def _answer(
        self, request: web.BaseRequest, answer: aiohttp.ClientResponse
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, reason=answer.reason)
        for name, value in _kept(answer.headers, DROPPED_ANSWER):
            response.headers.add(name, value)
        if answer.content_length is not None:
            response.content_length = answer.content_length
        try:
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
        except aiohttp.ClientError:
            # The status has gone out: only breaking the connection says that the body is not whole.
            if request.transport is not None:
                request.transport.abort()
            return response
        await response.write_eof()
        return response


class _BoundedServer(web.Server):
    """Takes no more than MAX_OPEN connections at once, idle ones among them."""

    def __call__(self) -> Any:
        return _Full() if len(self.connections) >= MAX_OPEN else super().__call__()


class _Full(asyncio.Protocol):
    """Says no and hangs up."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
        transport.close()


class _NotSent(Exception):
    """Nothing of the request has reached the gateway."""


def _kept(headers: Mapping[str, str], dropped: frozenset[str]) -> list[tuple[str, str]]:
    """What goes on to the other side: not what `dropped` lists, nor what the Connection header names (RFC 9110 §7.6.1)."""
    named = {name.strip().lower() for name in headers.get("Connection", "").split(",")}
    return [
        (name, value)
        for name, value in headers.items()
        if name.lower() not in dropped | named and not name.lower().startswith(DROPPED_PREFIXES)
    ]


def _problem(status: int, message: str) -> web.Response:
    body = {"error": {"message": message, "type": "devaipod_proxy", "code": status}}
    return web.Response(
        status=status, body=json.dumps(body).encode(), content_type="application/json"
    )
