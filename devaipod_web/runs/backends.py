"""The container backend of this process: one for web, gateway and supervisor, made when it is first asked for.

A backend of its own for each request cost 60 ms (podman's `info` alone) against 5 ms for what was asked. Consumers and the supervisor call
`shared()` from their loop; views, which are synchronous, `run` what they want in their own thread: through the serving loop and back
each request lost milliseconds behind whatever that loop was doing.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from devaipod_web import home
from pods.backend import ContainerBackend

T = TypeVar("T")

_lock = threading.Lock()
_made: dict[Path, ContainerBackend] = {}


def shared() -> ContainerBackend:
    """The backend on this installation's podman socket. Never raises: one that does not answer says so when it is called."""
    socket = home.podman_socket()
    with _lock:
        found = _made.get(socket)
        if found is None:
            from pods.podman import PodmanBackend

            found = _made[socket] = PodmanBackend(
                socket, installation=home.installation_id(), volumes_dir=home.volumes_dir()
            )
        return found


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in the present thread, which must not be an event loop's. Raises what it raises."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


async def close() -> None:
    """Let go of what was made; at the server's end and between tests. Asked again, it is made anew."""
    with _lock:
        gone = list(_made.values())
        _made.clear()
    for backend in gone:
        await backend.close()
