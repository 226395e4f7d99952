"""Ends what a token began soon after the token died. One task looks after all requests, since there are many of them."""

from __future__ import annotations

import asyncio
from types import TracebackType

import structlog
from django.db import DatabaseError

from devaipod_web.gateway import tokens

log = structlog.get_logger("devaipod.gateway")

#: How often it is asked whether the tokens of requests under way still live, in seconds.
RECHECK_SECONDS = 2.0


class TokenDied(Exception):
    """The pod ended while one of its requests was under way."""


class _Watched:
    """One request under way: a context manager that raises `TokenDied` when the token died inside."""

    __slots__ = ("died", "task", "token")

    def __init__(self, token: str) -> None:
        self.token = token
        self.died = False
        self.task: asyncio.Task[object] | None = None

    def __enter__(self) -> None:
        self.task = asyncio.current_task()
        _under_way.add(self)
        _look_after()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _under_way.discard(self)
        if not self.died or self.task is None or kind is not asyncio.CancelledError:
            return
        if not self.task.uncancel():
            raise TokenDied from None


_under_way: set[_Watched] = set()
_looking: asyncio.Task[None] | None = None


def while_token_lives(token: str) -> _Watched:
    """Cancel what runs inside soon after the token died: `with while_token_lives(token): …` raises `TokenDied` then."""
    return _Watched(token)


def _look_after() -> None:
    global _looking
    here = asyncio.get_running_loop()
    if _looking is None or _looking.done() or _looking.get_loop() is not here:
        _looking = asyncio.create_task(_look(), name="gateway-token-recheck")


async def _look() -> None:
    while True:
        await asyncio.sleep(RECHECK_SECONDS)
        if not _under_way:
            return
        for token in {watched.token for watched in _under_way}:
            if await _lives(token):
                continue
            for watched in [w for w in _under_way if w.token == token and not w.died]:
                assert watched.task is not None
                watched.died = True
                watched.task.cancel()


async def _lives(token: str) -> bool:
    try:
        return await tokens.find(token) is not None
    except DatabaseError:
        log.exception("gateway.token_not_checked")
        return True  # the request was let in by a token that lived: a database that stumbles does not end it
