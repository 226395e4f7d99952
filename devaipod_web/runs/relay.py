"""Carry wakes between the processes of an installation, over the channel layer that they share.

A layer may drop messages, and Redis may be gone for a while: every follower reads on its own beat meanwhile, and this tries again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from channels.layers import InMemoryChannelLayer, get_channel_layer

from devaipod_web import home
from devaipod_web.runs import wake

log = structlog.get_logger("devaipod.relay")

#: Wakes are gathered for this long; a run's many are carried as one.
GATHER_SECONDS = 0.02
#: Longest pause before the next try while the layer does not answer.
MAX_BACKOFF_SECONDS = 15.0
#: A layer forgets a group's members after a day (channels-redis: group_expiry).
JOIN_AGAIN_SECONDS = 3600.0


def is_needed() -> bool:
    """Whether this installation has a layer that other processes share."""
    return not isinstance(get_channel_layer(), InMemoryChannelLayer)


class Relay:
    """This process's end of the relay."""

    def __init__(self) -> None:
        self.layer: Any = get_channel_layer()
        self.group = f"devaipod-wakes-{home.installation_id()}"
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._waiting: set[str] = set()
        self._some = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Carry wakes both ways until `stop` is set."""
        wake.carriers.add(self.carry)
        tasks = [
            asyncio.create_task(self._again("send", self._send), name="relay send"),
            asyncio.create_task(self._again("receive", self._receive), name="relay receive"),
        ]
        try:
            await stop.wait()
        finally:
            wake.carriers.discard(self.carry)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with contextlib.suppress(Exception):
                await self.layer.close_pools()

    def carry(self, run_key: str) -> None:
        """Take a wake for the other processes, from any thread."""
        with self._lock:
            is_first = not self._waiting
            self._waiting.add(run_key)
        if is_first:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                self._loop.call_soon_threadsafe(self._some.set)

    async def _send(self) -> None:
        while True:
            await self._some.wait()
            await asyncio.sleep(GATHER_SECONDS)
            self._some.clear()
            with self._lock:
                keys, self._waiting = sorted(self._waiting), set()
            await self.layer.group_send(self.group, {"type": "wake", "runs": keys})

    async def _receive(self) -> None:
        channel = await self.layer.new_channel()
        while True:
            await self.layer.group_add(self.group, channel)
            # What was said while nobody of us listened is found by looking.
            wake.wake_here(wake.ANY_RUN)
            begun = time.monotonic()
            while time.monotonic() - begun < JOIN_AGAIN_SECONDS:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(JOIN_AGAIN_SECONDS):
                        message = await self.layer.receive(channel)
                        for key in message["runs"]:
                            wake.wake_here(key)

    async def _again(self, name: str, fn: Callable[[], Awaitable[None]]) -> None:
        tries = 0
        while True:
            begun = time.monotonic()
            try:
                await fn()
            except Exception as error:
                log.warning("relay.failed", end=name, reason=f"{type(error).__name__}: {error}")
            tries = 0 if time.monotonic() - begun > MAX_BACKOFF_SECONDS else tries + 1
            pause = min(0.25 * 2**tries, MAX_BACKOFF_SECONDS)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
