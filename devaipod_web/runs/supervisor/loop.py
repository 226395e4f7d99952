"""The supervisor's loops: who gets a place, who drives which run, and the beats that are nobody's in particular."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog
from django.conf import settings
from django.utils import timezone

from devaipod_web import db, home, loops
from devaipod_web.health import drain
from devaipod_web.runs import retention, wake
from devaipod_web.runs.services.permissions import expire_due
from devaipod_web.runs.supervisor import lease, records
from devaipod_web.runs.supervisor.archive import archive_leftovers
from devaipod_web.runs.supervisor.driver import Driver, Shared
from devaipod_web.runs.supervisor.sites import Site, Sites
from devaipod_web.runs.supervisor.status import service
from devaipod_web.runs.supervisor.sweep import sweep
from devaipod_web.runs.wake import ANY_RUN, BEAT_SECONDS
from devaipod_web.targets.models import Target
from devaipod_web.webhooks import services as webhooks
from pods.backend import ContainerBackend

log = structlog.get_logger("devaipod.supervisor")

#: Every event of any run wakes the loop; it goes round at most this often.
ROUND_SECONDS = 0.1
EXPIRE_SECONDS = 2.0
SITES_SECONDS = 2.0
#: The first look at how the targets are: soon, since runs are given to none that is known to be away.
SITES_FIRST_SECONDS = 0.2
#: A backend remembers for an hour what it found.
POLICIES_SECONDS = 60.0
SWEEP_SECONDS = 60.0
ARCHIVE_SECONDS = 3600.0
RETENTION_SECONDS = timedelta(days=1).total_seconds()
#: After a start, retention waits until the server has settled.
RETENTION_FIRST_SECONDS = 600.0


class Supervisor:
    """One process's supervisor."""

    def __init__(self, backend: ContainerBackend, *, owner: str = "") -> None:
        self.backend = backend
        self.installation = home.installation_id()
        self.owner = owner or lease.owner_id()
        self.sites = Sites(backend, self.installation, self._forever)
        self.shared = Shared(self.sites, self.installation)
        self.drivers: dict[int, asyncio.Task[None]] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Everything, until `stop` is set."""
        service.running, service.owner, service.backend = True, self.owner, self.backend.name
        service.started_at = timezone.now()
        service.backend_errors.clear()
        log.info("supervisor.started", owner=self.owner)
        await self.sites.refresh()
        tasks = [
            self._every("sites", SITES_SECONDS, self._look_at_sites, SITES_FIRST_SECONDS),
            self._every("policies", POLICIES_SECONDS, self.sites.try_policies, SITES_SECONDS * 2),
            asyncio.create_task(self._forever("drivers", self._rounds), name="drivers"),
            self._every("leases", lease.RENEW_SECONDS, self._renew),
            self._every("permissions", EXPIRE_SECONDS, self._expire),
            self._every("health", settings.HEALTH_SECONDS, self._check_health),
            self._every("sweep", SWEEP_SECONDS, self._sweep),
            self._every("archive", ARCHIVE_SECONDS, self._archive),
            self._every("retention", RETENTION_SECONDS, self._retain, RETENTION_FIRST_SECONDS),
        ]
        try:
            await stop.wait()
        finally:
            service.running = False
            everything = [*tasks, *self.drivers.values()]
            for task in everything:
                task.cancel()
            await asyncio.gather(*everything, return_exceptions=True)
            await self.sites.close()
            service.driven.clear()
            for run_id in list(self.drivers):
                await db.write(lease.release, run_id, self.owner)
            log.info("supervisor.stopped")

    # --- drivers ----------------------------------------------------------------------------------------------

    async def _rounds(self) -> None:
        with wake.listening(ANY_RUN) as woken:
            while True:
                begun = time.monotonic()
                await self.round()
                service.last_beat = timezone.now()
                service.lag_seconds = round(time.monotonic() - begun, 3)
                await asyncio.sleep(ROUND_SECONDS)
                await wake.pause(woken)

    async def round(self) -> None:
        """Fill the free places and see that every run that needs a driver has one."""
        if await db.read(records.anyone_queued) and await db.read(drain.since) is None:
            for run_id, key in await db.write(records.admit, self.owner, settings.MAX_RUNS):
                self._start(run_id, key)
        for run_id, key in await db.read(records.to_drive):
            if run_id in self.drivers:
                continue
            if await db.write(lease.take, run_id, self.owner, now=timezone.now()):
                self._start(run_id, key)

    def _start(self, run_id: int, key: str) -> None:
        if run_id in self.drivers:
            return
        service.driven.add(key)
        self.drivers[run_id] = asyncio.create_task(self._drive(run_id, key), name=f"run {key}")

    async def _drive(self, run_id: int, key: str) -> None:
        try:
            await Driver(run_id, key, self.shared).drive()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.exception("driver.died", run=key)
            self._failed("driver", error)
            # Not at once again: whatever it was, it would be the same.
            await asyncio.sleep(BEAT_SECONDS)
        service.driven.discard(key)
        self.sites.forget(run_id)
        await db.write(lease.release, run_id, self.owner)
        self.drivers.pop(run_id, None)
        wake.wake_now(key)

    async def _renew(self) -> None:
        ids = list(self.drivers)
        if not ids:
            return
        ours = await db.write(lease.renew, ids, self.owner, now=timezone.now())
        for run_id in set(ids) - ours:
            # Another process took over: it decides from here on.
            task = self.drivers.pop(run_id, None)
            if task is not None:
                log.warning("lease.lost", run_id=run_id)
                task.cancel()

    # --- beats ------------------------------------------------------------------------------------------------

    async def _expire(self) -> None:
        await db.write(expire_due, timezone.now())

    async def _look_at_sites(self) -> None:
        await self.sites.refresh()
        await self.sites.check()

    async def _check_health(self) -> None:
        await self.sites.each(lambda site: site.health.round())

    async def _sweep(self) -> None:
        await self.sites.each(self._sweep_at)

    async def _sweep_at(self, site: Site) -> None:
        await sweep(site.backend, self.installation)
        await site.backend.tidy()

    async def _archive(self) -> None:
        await archive_leftovers()

    async def _retain(self) -> None:
        await retention.run_daily(self._backend_of)
        while await db.write(webhooks.prune, timezone.now()):
            pass

    def _backend_of(self, target: Target | None) -> ContainerBackend:
        return self.sites.of(target.pk if target is not None else None).backend

    def _every(
        self, name: str, seconds: float, fn: Callable[[], Awaitable[None]], first: float = 0.0
    ) -> asyncio.Task[None]:
        async def beat() -> None:
            await asyncio.sleep(first or random.uniform(0, min(seconds, 2.0)))  # noqa: S311 - jitter
            while True:
                await fn()
                await asyncio.sleep(seconds)

        return asyncio.create_task(self._forever(name, beat), name=name)

    async def _forever(self, name: str, fn: Callable[[], Awaitable[None]]) -> None:
        await loops.forever(name, fn, failed=self._failed)

    def _failed(self, name: str, error: Exception) -> None:
        service.last_error = f"{name}: {type(error).__name__}: {error}"[:500]
        service.last_error_at = timezone.now()
