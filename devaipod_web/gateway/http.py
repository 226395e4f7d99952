"""Requests and answers of the gateway: as little as three routes need, straight on ASGI.

Django's request handling would read whole bodies before a view runs; packs of hundreds of megabytes and token streams
pass here as they arrive.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Iterable[tuple[str, str]]
#: Makes an error's body of status, message and code.
ErrorForm = Callable[[int, str, str], dict[str, Any]]


class ClientGone(Exception):
    """The client hung up; nobody reads an answer any more."""


class TooLarge(Exception):
    """The request's body is larger than the route takes."""


class Request:
    """One request. The body is read once, by `chunks` or by `body`."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self._receive = receive
        self.method: str = scope.get("method", "GET")
        self.path: str = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
        self.query: str = scope.get("query_string", b"").decode("latin-1")
        self.headers: dict[str, str] = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }

    @property
    def bearer(self) -> str:
        """The token of `Authorization: Bearer …`, or an empty string."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else ""

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises `ClientGone` when the client hangs up before its end."""
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body"):
                return

    async def body(self, *, limit: int) -> bytes:
        """The whole body. Raises `TooLarge` above `limit` bytes."""
        if int(self.headers.get("content-length") or 0) > limit:
            raise TooLarge
        parts, size = [], 0
        async for chunk in self.chunks():
            size += len(chunk)
            if size > limit:
                raise TooLarge
            parts.append(chunk)
        return b"".join(parts)

    async def gone(self) -> None:
        """Return when the client has hung up. Call it only when the body was read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


class Response:
    """The answer to one request, in pieces."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        self.complete = False

    @property
    def started(self) -> bool:
        """Whether status and headers have left."""
        return self.status != 0

    async def start(self, status: int, headers: Headers = ()) -> None:
        """Send status and headers."""
        self.status = status
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    (name.lower().encode("latin-1"), value.encode("latin-1"))
                    for name, value in headers
                ],
            }
        )

    async def write(self, data: bytes) -> None:
        """Send a piece of the body; waits while the client reads more slowly than we write."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        """Finish the body."""
        self.complete = True
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def whole(self, status: int, body: bytes, headers: Headers = ()) -> None:
        """Send a complete answer."""
        await self.start(status, [*headers, ("content-length", str(len(body)))])
        self.complete = True
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def json(self, status: int, value: Any, headers: Headers = ()) -> None:
        """Send a complete answer in JSON."""
        await self.whole(
            status, json.dumps(value).encode(), [*headers, ("content-type", "application/json")]
        )

    async def error(
        self,
        status: int,
        message: str,
        *,
        code: str,
        headers: Headers = (),
        form: ErrorForm | None = None,
    ) -> None:
        """Send an error in the form that the route's clients read, else in OpenAI's; people read its `message`."""
        kind = "invalid_request_error" if status < 500 else "server_error"
        told = {"error": {"message": message, "type": kind, "code": code, "param": None}}
        await self.json(status, form(status, message, code) if form else told, headers)


async def until_gone(request: Request, response: Response, work: Awaitable[None]) -> None:
    """Do the work, and cancel it when the client hangs up meanwhile (raises `ClientGone`). The request's body must have been read."""
    doing = asyncio.current_task()
    assert doing is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        await request.gone()
        # The server says that the client is gone also when the answer is complete.
        if not response.complete:
            gone = True
            doing.cancel()

    watching = asyncio.create_task(watch(), name="gateway-client-gone")
    try:
        await work
    except asyncio.CancelledError:
        if gone and not doing.uncancel():
            raise ClientGone from None
        raise
    finally:
        watching.cancel()
