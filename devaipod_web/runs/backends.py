"""The container backend for code outside the supervisor: opened for one piece of work, then closed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from devaipod_web import home
from pods.backend import ContainerBackend
from pods.podman import PodmanBackend


@asynccontextmanager
async def opened() -> AsyncIterator[ContainerBackend]:
    """This installation's backend. What is asked of it raises BackendError when it does not answer."""
    backend = PodmanBackend(
        home.podman_socket(),
        installation=home.installation_id(),
        volumes_dir=home.volumes_dir(),
    )
    try:
        yield backend
    finally:
        await backend.close()
