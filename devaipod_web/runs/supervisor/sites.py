"""The targets as this process works on them: each with its backend, its picture, its followers and its health checks.

A *site* begins when its target is added and ends when that is removed or reached in another way; pods and runs are not touched by either.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import structlog

from devaipod_web import db
from devaipod_web.health.models import Health
from devaipod_web.runs import backends
from devaipod_web.runs.supervisor import records
from devaipod_web.runs.supervisor.followers import Followers
from devaipod_web.runs.supervisor.health import HealthChecks
from devaipod_web.runs.supervisor.picture import Picture
from devaipod_web.runs.supervisor.status import service
from devaipod_web.runs.wake import ANY_RUN, wake_now
from devaipod_web.targets import queries
from devaipod_web.targets.look import enforced, look
from devaipod_web.targets.models import Target
from devaipod_web.targets.services import Found, note_found, note_policies
from pods.backend import ContainerBackend
from pods.errors import BackendError, BackendUnavailable
from pods.spec import PodState

log = structlog.get_logger("devaipod.supervisor.sites")

#: A target is asked how it is so often, and while that is not known or bad, or its picture says otherwise, more often.
CHECK_SECONDS = 30.0
SOON_SECONDS = 5.0
#: Starts a task that goes on for ever: a name and what to do.
Forever = Callable[[str, Callable[[], Awaitable[None]]], Coroutine[Any, Any, None]]


@dataclass
class Site:
    """One target at work."""

    target: Target
    backend: ContainerBackend
    picture: Picture
    followers: Followers
    health: HealthChecks
    made_from: str
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    #: When it was last asked how it is, in monotonic seconds.
    checked_at: float = float("-inf")

    @property
    def is_cluster(self) -> bool:
        """Whether pods there reach no folder of this host and start both containers together."""
        return not self.target.is_podman


class Sites:
    """All targets of this process. `podman` is the backend of podman's target."""

    def __init__(self, podman: ContainerBackend, installation: str, forever: Forever) -> None:
        self.installation = installation
        self._podman = podman
        self._forever = forever
        self._sites: dict[int, Site] = {}
        self._podman_id: int | None = None
        self._addresses: dict[str, str] = {}

    def all(self) -> list[Site]:
        """Every site there is now."""
        return list(self._sites.values())

    def of(self, target_id: int | None) -> Site:
        """The site of a target; of None, which runs have that are older than targets, podman's. Raises BackendUnavailable."""
        found = self._sites.get(self._podman_id if target_id is None else target_id)  # type: ignore[arg-type]
        if found is None:
            raise BackendUnavailable(
                "the target of this run is not one of this installation's any more.",
                next_step="Look at the page Targets.",
            )
        return found

    async def refresh(self) -> None:
        """Begin and end sites as the rows say."""
        rows = {row.pk: row for row in await db.read(_rows)}
        for pk, site in list(self._sites.items()):
            row = rows.get(pk)
            if row is None or (site.is_cluster and backends.reached_by(row) != site.made_from):
                await self._end(pk)
            else:
                site.target = row
        for pk, row in rows.items():
            if pk not in self._sites:
                error = self._begin(row)
                if error is not None and (row.health, row.error) != (Health.DOWN, error.message):
                    found = Found(error=error.message, next_step=error.next_step)
                    await db.write(note_found, pk, found)
        self._podman_id = next((pk for pk, row in rows.items() if row.is_podman), None)

    def _begin(self, row: Target) -> BackendError | None:
        """Begin a site; what keeps it from that."""
        try:
            backend = self._podman if row.is_podman else backends.of_target(row)
        except BackendError as error:
            service.backend_errors[row.name] = error.message
            return error
        picture = Picture(backend, self.installation, name=row.name, seen=self._seen)
        site = self._sites[row.pk] = Site(
            row,
            backend,
            picture,
            Followers(backend),
            HealthChecks(backend, picture),
            backends.reached_by(row),
        )
        for name, keep in (("picture", picture.keep), ("watch", picture.watch)):
            task = f"{name} {row.name}"
            site.tasks.append(asyncio.create_task(self._forever(task, keep), name=task))
        log.info("site.begun", target=row.name)
        return None

    async def _end(self, pk: int) -> None:
        site = self._sites.pop(pk)
        for task in site.tasks:
            task.cancel()
        await asyncio.gather(*site.tasks, return_exceptions=True)
        await site.followers.close()
        await backends.let_go(site.target)
        service.backend_errors.pop(site.target.name, None)
        log.info("site.ended", target=site.target.name)

    async def close(self) -> None:
        """End all; what was stored stays."""
        for pk in list(self._sites):
            await self._end(pk)

    # --- what the backends say ----------------------------------------------------------------------------------

    async def _seen(self, pods: list[PodState]) -> None:
        """Write down where the pods are, when that is news: their tokens count at the gateway's port from there alone."""
        news = {
            pod.name: pod.address
            for pod in pods
            if pod.address and self._addresses.get(pod.name) != pod.address
        }
        if news:
            await db.write(records.set_addresses, news)
            self._addresses.update(news)

    async def check(self) -> None:
        """Ask each target whose time has come how it is, and write that into its row."""
        now = time.monotonic()
        due = [site for site in self._sites.values() if _is_due(site, now)]
        await asyncio.gather(*(self._check(site) for site in due))

    async def _check(self, site: Site) -> None:
        site.checked_at = time.monotonic()
        found = await look(lambda: site.backend)
        await db.write(note_found, site.target.pk, found)
        if found.ok != (site.target.health == Health.OK):
            # Runs wait for this: the queue is looked at again.
            wake_now(ANY_RUN)

    async def try_policies(self) -> None:
        """Try at each target that answers whether it holds pods to their network."""
        await asyncio.gather(*(self._try_policies(site) for site in self._sites.values()))

    async def _try_policies(self, site: Site) -> None:
        if site.target.health == Health.OK:
            await db.write(note_policies, site.target.pk, await enforced(site.backend))

    async def each(self, do: Callable[[Site], Awaitable[None]]) -> None:
        """Do something at every site; one that does not answer keeps no other waiting."""

        async def at(site: Site) -> None:
            try:
                await do(site)
            except BackendError as error:
                service.backend_errors[site.target.name] = error.message

        await asyncio.gather(*(at(site) for site in self._sites.values()))

    def forget(self, run_id: int) -> None:
        """Nothing of this run is followed any more."""
        for site in self._sites.values():
            site.followers.forget(run_id)


def _is_due(site: Site, now: float) -> bool:
    settled = site.target.health == Health.OK and not site.picture.unavailable
    return now - site.checked_at >= (CHECK_SECONDS if settled else SOON_SECONDS)


def _rows() -> list[Target]:
    return list(queries.targets())
