"""The container backends of this process: one a target, made when it is first asked for.

A backend of its own for each request cost 60 ms (podman's `info` alone) against 5 ms for what was asked. Consumers and the supervisor call
`of_target()` from their loop; views, which are synchronous, `run` what they want in their own thread: through the serving loop and back
each request lost milliseconds behind whatever that loop was doing. podman's is used from every thread; a cluster's belongs to the loop
that it is made in.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from django.conf import settings

from devaipod_web import home
from devaipod_web.llm import vault
from devaipod_web.targets import queries
from devaipod_web.targets.models import Target
from devaipod_web.targets.services import kubeconfig_of
from pods.backend import ContainerBackend
from pods.errors import BackendUnavailable

T = TypeVar("T")

_lock = threading.Lock()
_made: dict[Path, ContainerBackend] = {}
#: Clusters' backends by loop, then by the target's key: what they were made from, and they.
_clusters: dict[asyncio.AbstractEventLoop, dict[str, tuple[str, ContainerBackend]]] = {}
_closing: set[asyncio.Task[None]] = set()


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


def of_target(target: Target | None) -> ContainerBackend:
    """The backend of a target, for the running loop; of None, which runs have that are older than targets, podman's.

    A target that was changed has another. Reads no database. Raises BackendUnavailable when its credential can't be read.
    """
    if target is None or target.is_podman:
        return shared()
    loop = asyncio.get_running_loop()
    made_from = reached_by(target)
    with _lock:
        found = _clusters.setdefault(loop, {}).get(target.key)
        if found is not None and found[0] == made_from:
            return found[1]
    backend = _cluster(target)
    with _lock:
        _clusters[loop][target.key] = (made_from, backend)
    if found is not None:
        # Whoever is in the middle of something with the old one breaks off and tries again with this.
        closing = loop.create_task(found[1].close(), name=f"close {target.name}")
        _closing.add(closing)
        closing.add_done_callback(_closing.discard)
    return backend


async def let_go(target: Target) -> None:
    """Close the running loop's backend of a cluster that is no more, or is reached in another way. Safe to repeat."""
    with _lock:
        found = _clusters.get(asyncio.get_running_loop(), {}).pop(target.key, None)
    if found is not None:
        await found[1].close()


def reached_by(target: Target) -> str:
    """Changes when the target is reached in another way; says nothing about the credential."""
    parts = (
        target.name,
        target.namespace,
        target.context,
        # Pods of a relay mount where it is.
        target.gateway_mode,
        vault.fingerprint(),
    )
    return hashlib.sha256("\0".join(parts).encode() + bytes(target.kubeconfig)).hexdigest()


def _cluster(target: Target) -> ContainerBackend:
    from pods.kubernetes import KubernetesBackend
    from pods.kubernetes_cluster import Cluster

    try:
        kubeconfig = kubeconfig_of(target)
    except vault.CannotUnseal as error:
        raise BackendUnavailable(
            f"The kubeconfig of {target.name} cannot be read: {error}",
            next_step=f"Enter the kubeconfig of {target.name} again on its page.",
        ) from error
    return KubernetesBackend(
        Cluster(
            name=target.name,
            installation=home.installation_id(),
            namespace=target.namespace,
            kubeconfig=kubeconfig,
            context=target.context,
            gateway=queries.gateway_address(target),
            probe_image=settings.SIDECAR_IMAGE,
            gateway_map=queries.gateway_map(target),
        )
    )


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in the present thread, which must not be an event loop's. Raises what it raises."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(_then_close(work))
    finally:
        loop.close()


async def _then_close(work: Coroutine[Any, Any, T]) -> T:
    try:
        return await work
    finally:
        await _close_clusters()


async def _close_clusters() -> None:
    with _lock:
        gone = _clusters.pop(asyncio.get_running_loop(), {})
    for _, backend in gone.values():
        await backend.close()


async def close() -> None:
    """Let go of what was made; at the server's end and between tests. Asked again, it is made anew."""
    await _close_clusters()
    with _lock:
        gone = list(_made.values())
        _made.clear()
    for backend in gone:
        await backend.close()
