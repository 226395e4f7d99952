"""What requests need of the database, read beside them and not in their way.

A value counts for at most `MAX_AGE_SECONDS`. Those that were used of late are read anew on a beat, all in one go, so that a run
at work waits for the database at its first request only, however far apart its requests are.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from typing import Generic, TypeVar

import structlog
from django.db import DatabaseError

from devaipod_web import db

log = structlog.get_logger("devaipod.gateway")

BEAT_SECONDS = 0.4
MAX_AGE_SECONDS = 1.0
#: How long after its last use a value is kept fresh.
KEEP_SECONDS = 120.0
MAX_KEPT = 4096

K = TypeVar("K")
V = TypeVar("V")


class _Entry(Generic[V]):
    __slots__ = ("read_at", "used_at", "value")

    def __init__(self, value: V, at: float) -> None:
        self.value, self.read_at, self.used_at = value, at, at


class Fresh(Generic[K, V]):
    """Values by key, as the database has them. `read` is called in a reader's thread and leaves out the keys that are not there."""

    def __init__(self, name: str, read: Callable[[Collection[K]], Mapping[K, V]]) -> None:
        self._name = name
        self._read = read
        self._entries: dict[K, _Entry[V]] = {}
        self._reading: dict[K, asyncio.Task[V | None]] = {}
        self._beating: asyncio.Task[None] | None = None

    async def get(self, key: K) -> V | None:
        """The value, at most `MAX_AGE_SECONDS` old; None when the database has none. Raises what the reading raised."""
        entry = self._entries.get(key)
        if entry is not None:
            now = time.monotonic()
            if now - entry.read_at < MAX_AGE_SECONDS:
                entry.used_at = now
                return entry.value
        return await self.anew(key)

    async def anew(self, key: K) -> V | None:
        """The value as it is now: read after this call, or by a reading that others wait for already. Raises what the reading raised."""
        task = self._reading.get(key)
        if task is None or task.get_loop() is not asyncio.get_running_loop():
            task = asyncio.create_task(self._first(key), name=f"fresh-{self._name}")
            self._reading[key] = task
            task.add_done_callback(self._ended)
        # Shielded: others wait for the same reading.
        return await asyncio.shield(task)

    def forget_all(self) -> None:
        """Ask the database again for everything; between tests and when an operator ends pods by hand."""
        self._entries.clear()
        self._reading.clear()
        if self._beating is not None and not self._beating.get_loop().is_closed():
            self._beating.cancel()
        self._beating = None

    async def _first(self, key: K) -> V | None:
        try:
            # When the reading begins, not when it ends: what was changed meanwhile may not be in it.
            at = time.monotonic()
            found = (await db.read(self._read, (key,))).get(key)
        finally:
            self._reading.pop(key, None)
        if found is None:
            self._entries.pop(key, None)
            return None
        if len(self._entries) >= MAX_KEPT:
            self._entries.clear()
        self._entries[key] = _Entry(found, at)
        here = asyncio.get_running_loop()
        if self._beating is None or self._beating.done() or self._beating.get_loop() is not here:
            self._beating = asyncio.create_task(self._beat(), name=f"fresh-{self._name}-beat")
        return found

    async def _beat(self) -> None:
        """Read what is in use anew until nothing is."""
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            at = time.monotonic()
            for key in [k for k, e in self._entries.items() if at - e.used_at > KEEP_SECONDS]:
                del self._entries[key]
            if not self._entries:
                return
            keys = list(self._entries)
            try:
                found = await db.read(self._read, keys)
            except DatabaseError:
                # What is there counts until it is too old; then the error reaches a request.
                log.exception("gateway.not_refreshed", what=self._name)
                continue
            for key in keys:
                entry, value = self._entries.get(key), found.get(key)
                if entry is None or entry.read_at > at:
                    continue
                if value is None:
                    del self._entries[key]
                else:
                    entry.value, entry.read_at = value, at

    @staticmethod
    def _ended(task: asyncio.Task[V | None]) -> None:
        if not task.cancelled():
            task.exception()  # who waits has it
