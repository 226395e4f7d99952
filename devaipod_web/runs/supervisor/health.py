"""The health checks of all pods: podman leaves them to a timer of systemd's, which need not be there, so they are run from here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import structlog

from devaipod_web.runs.supervisor.picture import Picture
from pods.backend import ContainerBackend
from pods.errors import BackendError
from pods.spec import Phase

log = structlog.get_logger("devaipod.supervisor.health")

#: A check is a process in the container; so many at once leave the host's cores to the agents.
AT_ONCE = 2


class HealthChecks:
    """Runs the check of every running container that has one, once a beat.

    A check that does not end stays behind as a process (podman 4.3 does not end it): its container is not checked again.
    """

    def __init__(self, backend: ContainerBackend, picture: Picture) -> None:
        self.backend = backend
        self.picture = picture
        self._hung: set[str] = set()

    async def round(self) -> None:
        """Check all containers once."""
        if not self.picture.known:
            return
        due = list(self._due())
        self._hung &= {identity for *_, identity in due}
        places = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(
            *(self._check(places, *one) for one in due if one[2] not in self._hung)
        )

    def _due(self) -> Iterator[tuple[str, str, str]]:
        for pod in list(self.picture.pods.values()):
            for name, state in pod.containers.items():
                if state.phase is Phase.RUNNING and state.health:
                    yield pod.name, name, state.id

    async def _check(
        self, places: asyncio.Semaphore, pod: str, container: str, identity: str
    ) -> None:
        async with places:
            with contextlib.suppress(BackendError):  # podman is away: the picture says so
                if not await self.backend.check_health(pod, container):
                    log.warning("health.hung", pod=pod, container=container)
                    self._hung.add(identity)
