"""The one door from async code to the database: one writer thread, a pool of readers.

Django's own thread-sensitive executor puts everything outside views on one thread (measured: eight calls of 0.1 s
took 0.81 s). Consumers, the gateway and the supervisor cross here and nowhere else. No transaction spans an `await`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from django.db import close_old_connections, connection, connections, transaction

P = ParamSpec("P")
T = TypeVar("T")

READERS = 4

_writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="db-writer")
_readers = ThreadPoolExecutor(max_workers=READERS, thread_name_prefix="db-reader")


def _freshen() -> None:
    """Let go of a server's connection that is too old; SQLite's stays as long as its thread.

    Opening SQLite anew, pragmas and all, took four fifths of a short read (5.2 ms against 1.3 ms).
    """
    if connection.vendor != "sqlite":
        close_old_connections()


def _in_transaction(fn: Callable[[], T]) -> T:
    _freshen()
    with transaction.atomic():
        return fn()


def _plain(fn: Callable[[], T]) -> T:
    _freshen()
    return fn()


async def write(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `fn` in the writer's thread inside one transaction (IMMEDIATE on SQLite) and return its result."""
    call = functools.partial(fn, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_writer, _in_transaction, call)


async def read(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `fn` in one of the readers' threads and return its result. It must return plain data or evaluated rows."""
    call = functools.partial(fn, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_readers, _plain, call)


async def close_connections() -> None:
    """Close the connections that the door's threads hold; at the server's end and between tests."""
    loop = asyncio.get_running_loop()
    meeting = threading.Barrier(READERS)
    await loop.run_in_executor(_writer, connections.close_all)
    await asyncio.gather(
        *(loop.run_in_executor(_readers, _close_one, meeting) for _ in range(READERS))
    )


def _close_one(meeting: threading.Barrier) -> None:
    # The barrier makes each worker take exactly one of the calls.
    connections.close_all()
    with contextlib.suppress(threading.BrokenBarrierError):
        meeting.wait(timeout=1)
