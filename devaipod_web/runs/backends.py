"""The container backend of a process that serves pages and API; the supervisor has its own."""

from __future__ import annotations

import threading

from devaipod_web import home
from pods.backend import ContainerBackend

_made: list[ContainerBackend] = []
_lock = threading.Lock()


def backend() -> ContainerBackend:
    """The backend of this process, made when it is first asked for and kept: it holds threads and connections."""
    from pods.podman import PodmanBackend

    with _lock:
        if not _made:
            _made.append(
                PodmanBackend(
                    home.podman_socket(),
                    installation=home.installation_id(),
                    volumes_dir=home.volumes_dir(),
                )
            )
        return _made[0]
