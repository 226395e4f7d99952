"""Tell those who look at a run that there is something new to read.

A wake carries only the run's key and its last `seq`: what is shown is read from the store after one's own cursor. A
wake may be lost; every follower also reads on a beat of `BEAT_SECONDS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator

from django.db import transaction

BEAT_SECONDS = 2.0
#: Followers of lists (Now, Runs, Reviews) listen on this name.
ANY_RUN = "*"
#: The sender of webhooks listens on this one; no run's key has a dot.
WEBHOOKS = "webhooks."

_lock = threading.Lock()
_listeners: dict[str, set[tuple[asyncio.AbstractEventLoop, asyncio.Event]]] = defaultdict(set)
#: Told of each wake of this process, from any thread: `runs.relay` carries them to the others.
carriers: set[Callable[[str], None]] = set()


def wake(run_key: str) -> None:
    """Wake the followers of a run, and those of any run, once the present transaction has committed."""
    transaction.on_commit(lambda: wake_now(run_key))


def wake_now(run_key: str) -> None:
    """Wake the followers of a run at once, from any thread."""
    wake_here(run_key)
    for carry in list(carriers):
        carry(run_key)


def wake_here(run_key: str) -> None:
    """Wake the followers that this process has, for a wake that came from another one."""
    with _lock:
        found = [*_listeners.get(run_key, ()), *_listeners.get(ANY_RUN, ())]
    for loop, event in found:
        with contextlib.suppress(RuntimeError):  # its loop was closed meanwhile
            loop.call_soon_threadsafe(event.set)


@contextlib.contextmanager
def listening(run_key: str) -> Iterator[asyncio.Event]:
    """An event of the running loop that is set at each wake of the run (or of any, for `ANY_RUN`)."""
    entry = (asyncio.get_running_loop(), asyncio.Event())
    with _lock:
        _listeners[run_key].add(entry)
    try:
        yield entry[1]
    finally:
        with _lock:
            _listeners[run_key].discard(entry)
            if not _listeners[run_key]:
                del _listeners[run_key]


async def pause(event: asyncio.Event) -> None:
    """Wait for a wake or the beat, whichever is first, and clear the event."""
    # Not `wait_for`: on Python 3.11 it swallows a cancellation that comes at the same moment as the wake.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(BEAT_SECONDS):
            await event.wait()
    event.clear()
