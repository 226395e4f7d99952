"""One picture of all pods of this installation at a target, kept by one watch and one list, read by every driver."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping

from devaipod_web.runs.supervisor.status import service
from devaipod_web.runs.wake import wake_now
from pods.backend import ContainerBackend
from pods.errors import BackendError, BackendUnavailable
from pods.spec import LABEL_INSTALLATION, LABEL_RUN, PodState

BEAT_SECONDS = 2.0
#: Events come in crowds (three containers start at once): look once for all of them.
SETTLE_SECONDS = 0.03
RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)


class Picture:
    """The pods as they were at `seen_at` (monotonic seconds). `unavailable` says why the backend does not answer."""

    def __init__(
        self,
        backend: ContainerBackend,
        installation: str,
        *,
        name: str = "podman",
        seen: Callable[[list[PodState]], Awaitable[None]] | None = None,
    ) -> None:
        self.backend = backend
        self.name = name
        self._seen = seen
        self.labels: Mapping[str, str] = {LABEL_INSTALLATION: installation}
        self.pods: dict[str, PodState] = {}
        self.seen_at = 0.0
        self.unavailable = ""
        self._changed = asyncio.Event()

    def get(self, name: str) -> PodState | None:
        """The pod at the last look, or None when it was not there then."""
        return self.pods.get(name)

    @property
    def known(self) -> bool:
        """Whether there was a look at all and the backend answers now."""
        return self.seen_at > 0 and not self.unavailable

    async def look(self) -> None:
        """List the pods now and wake the drivers of those that changed."""
        try:
            found = {pod.name: pod for pod in await self.backend.pods(self.labels)}
        except BackendUnavailable as error:
            was, self.unavailable = self.unavailable, error.message
            service.backend_errors[self.name] = error.message
            if not was:
                self._wake(self.pods.values())
            return
        came_back, self.unavailable = bool(self.unavailable), ""
        service.backend_errors[self.name] = ""
        if self._seen is not None:
            await self._seen(list(found.values()))
        before, self.pods, self.seen_at = self.pods, found, time.monotonic()
        changed = [
            pod
            for name, pod in {**before, **found}.items()
            if came_back or before.get(name) != found.get(name)
        ]
        self._wake(changed)

    def _wake(self, pods: object) -> None:
        for pod in list(pods):  # type: ignore[call-overload]
            wake_now(pod.labels.get(LABEL_RUN, ""))

    async def keep(self) -> None:
        """Look on every event and on the beat, until cancelled."""
        await self.look()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_SECONDS):
                    await self._changed.wait()
            await asyncio.sleep(SETTLE_SECONDS)
            self._changed.clear()
            await self.look()

    async def watch(self) -> None:
        """Follow the backend's events, again and again with back-off, until cancelled."""
        tries = 0
        while True:
            try:
                async for _event in self.backend.watch(self.labels):
                    tries = 0
                    self._changed.set()
            except BackendError as error:
                service.backend_errors[self.name] = error.message
            await asyncio.sleep(RETRY_SECONDS[min(tries, len(RETRY_SECONDS) - 1)])
            tries += 1
            self._changed.set()
