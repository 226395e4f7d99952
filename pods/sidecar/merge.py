"""Pieces of one message come a few characters at a time; they are merged for up to 100 ms before they get a number."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pods.sidecar.protocol import EventKind

WINDOW_SECONDS = 0.1
MAX_CHARACTERS = 32 * 1024

Put = Callable[[EventKind, dict[str, object]], Awaitable[object]]


class Merger:
    """Holds at most one message's last pieces. `flush` before anything else is stored keeps the order."""

    def __init__(self, put: Put, *, prefix: str = "m") -> None:
        self._put = put
        self._prefix = prefix
        self._last: tuple[EventKind, str] | None = None
        self._kind: EventKind | None = None
        self._id = ""
        self._parts: list[str] = []
        self._size = 0
        self._timer: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._made = 0

    async def add(self, kind: EventKind, message_id: str, text: str) -> None:
        """Take a piece; one of another message, or one too many, lets the held ones go first."""
        if self._kind is not None and (kind, message_id or self._id) != (self._kind, self._id):
            await self.flush()
        if self._kind is None:
            self._kind = kind
            self._id = message_id or self._same_as_before(kind)
        self._parts.append(text)
        self._size += len(text)
        if self._size >= MAX_CHARACTERS:
            await self._store()
        elif self._timer is None:
            self._timer = asyncio.create_task(self._later())

    def _same_as_before(self, kind: EventKind) -> str:
        """Agents that name no message: pieces of one kind in a row belong together until something else comes."""
        if self._last is not None and self._last[0] is kind:
            return self._last[1]
        self._made += 1
        return f"{self._prefix}{self._made}"

    async def _later(self) -> None:
        await asyncio.sleep(WINDOW_SECONDS)
        self._timer = None
        await self._store()

    async def _store(self) -> None:
        async with self._lock:
            if self._kind is None:
                return
            kind, message_id, text = self._kind, self._id, "".join(self._parts)
            self._kind, self._parts, self._size = None, [], 0
            self._last = (kind, message_id)
            await self._put(kind, {"message_id": message_id, "text": text})

    async def flush(self, *, ends: bool = True) -> None:
        """Store what is held; the next piece begins a new message unless it names the same one, or without `ends`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self._store()
        if ends:
            self._last = None
