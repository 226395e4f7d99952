"""Background loops that do not end: one fault must not stop what they stand for."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

import structlog

log = structlog.get_logger("devaipod.loops")

MAX_BACKOFF_SECONDS = 30.0


async def forever(
    name: str,
    fn: Callable[[], Awaitable[None]],
    *,
    failed: Callable[[str, Exception], None],
) -> None:
    """Run a loop, and start it again with back-off and jitter when it fails or returns; `failed` is told of each fault."""
    tries = 0
    while True:
        begun = time.monotonic()
        try:
            await fn()
        except Exception as error:
            log.exception("loop.failed", loop=name)
            failed(name, error)
        tries = 0 if time.monotonic() - begun > MAX_BACKOFF_SECONDS else tries + 1
        pause = min(0.5 * 2**tries, MAX_BACKOFF_SECONDS)
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
