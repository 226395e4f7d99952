"""The supervisor with everything real around it: podman, the gateway on its socket, git, the database. For tests marked podman."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from devaipod_web import db, home
from devaipod_web.host import facts, podman_config, podman_service
from devaipod_web.parts import Budgets, Gateway
from devaipod_web.runs.models import Run, RunPod
from devaipod_web.runs.states import ENDED
from devaipod_web.runs.supervisor.loop import Supervisor
from pods.podman import PodmanBackend
from pods.spec import LABEL_INSTALLATION
from tests.agents.image import AGENT_IMAGE, podman

SIDECAR_IMAGE = "localhost/devaipod-sidecar:dev"


def ensure_podman() -> None:
    """An API service of this test session's installation. Fails with a sentence when the images are not built."""
    podman_config.write(facts.look())
    podman_service.ensure()
    for image in (AGENT_IMAGE, SIDECAR_IMAGE):
        if not podman("images", "-q", image):
            raise AssertionError(f"The image {image} is not there: run `make images` first.")


class World:
    """What a test has in hand."""

    def __init__(self, backend: PodmanBackend) -> None:
        self.backend = backend
        self.supervisor: Supervisor | None = None
        self.stop = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def start_supervisor(self, owner: str = "") -> None:
        """Start a supervisor, as `serve` does."""
        self.stop = asyncio.Event()
        self.supervisor = Supervisor(self.backend, owner=owner)
        self.task = asyncio.create_task(self.supervisor.run(self.stop))

    async def end_supervisor(self) -> None:
        """End it as SIGTERM does."""
        self.stop.set()
        if self.task is not None:
            await self.task
        self.task = None

    async def run(self, key: str) -> Run:
        """The run as it is now."""
        return await db.read(Run.objects.get, key=key)

    async def until(self, run: Run, states: str | set[str], seconds: float = 60) -> Run:
        """Wait until the run is in one of these states."""
        wanted = {states} if isinstance(states, str) else states
        return await self.wait(
            run,
            lambda now: now.state in wanted,
            seconds,
            f"to be {' or '.join(wanted)}",
            state_matters=True,
        )

    async def wait(
        self,
        run: Run,
        condition: Callable[[Run], Any],
        seconds: float,
        what: str,
        *,
        state_matters: bool = False,
    ) -> Run:
        """Wait for a condition on the run; the failure tells its last events."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            now = await self.run(run.key)
            if await db.read(condition, now):
                return now
            if now.state in ENDED and state_matters:
                break
            await asyncio.sleep(0.05)
        now = await self.run(run.key)
        raise AssertionError(
            f"waited {seconds:.0f} s for {run.key} {what}; it is {now.state} ({now.reason!r}, {now.waits_for!r}):\n"
            + await db.read(story, now)
        )

    async def gone(self, run: Run, seconds: float = 90) -> None:
        """Wait until the backend has nothing of the run's pods."""

        def done(now: Run) -> bool:
            return not RunPod.objects.filter(run=now, removed_at=None).exists()

        await self.wait(run, done, seconds, "to have no pod")


def story(run: Run) -> str:
    """The run's events, a line each."""
    return "\n".join(
        f"  {row.seq} {row.kind} {str(row.payload)[:300]}" for row in run.events.order_by("seq")
    )


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    """Gateway and supervisor of this process on a real podman; pods and volumes of it are gone afterwards."""
    ensure_podman()
    backend = PodmanBackend(
        home.podman_socket(),
        installation=home.installation_id(),
        volumes_dir=home.volumes_dir(),
    )
    accounts, gateway = Budgets(), Gateway()
    await accounts.start()
    await gateway.start()
    place = World(backend)
    place.start_supervisor()
    try:
        yield place
    finally:
        await asyncio.wait_for(place.end_supervisor(), 20)
        labels = {LABEL_INSTALLATION: home.installation_id()}
        for pod in await backend.pods(labels):
            await backend.destroy(pod.name)
        for volume in await backend.volumes(labels):
            await backend.remove_volume(volume)
        await asyncio.wait_for(gateway.stop(), 20)
        await asyncio.wait_for(accounts.stop(), 20)
        await backend.close()
        await db.close_connections()
