"""Each process looks after its services: checks them on their own rhythm, writes what it found every few seconds, restarts what
somebody asked to be restarted.

The rows are all that others see, also in one process: there is one way. A process that is killed stops writing, and its rows tell.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from datetime import datetime, timedelta

import structlog
from django.db import DatabaseError
from django.utils import timezone

from devaipod_web import db
from devaipod_web.health.contract import Health, Named, Report, Service
from devaipod_web.health.models import ServiceBeat
from devaipod_web.health.registry import SOURCES
from devaipod_web.parts import Part
from devaipod_web.runs import wake
from devaipod_web.runs.supervisor.lease import owner_id

log = structlog.get_logger("devaipod.health")

#: How often the rows are written, in seconds.
BEAT_SECONDS = 3.0
#: Rows older than this are of a process that is gone or hangs.
STALE = timedelta(seconds=4 * BEAT_SECONDS)
#: How often a process looks whether a restart was asked for, in seconds.
LOOK_SECONDS = 0.5
CHECK_SECONDS = 5.0
#: The first beat waits so long for the first looks.
FIRST_SECONDS = 1.0
RESTART_SECONDS = 60.0
#: The name under which `wake` tells the present process that a restart was asked for.
WOKEN = "services"


class Kept:
    """A service and what is known of it between two beats."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.report = Report(Health.UNKNOWN, "It has not been looked at yet.")
        self.since = timezone.now()
        self.last_error = ""
        self.last_error_at: datetime | None = None
        self.restarted_at: datetime | None = None
        self.restart_error = ""
        self.looks: asyncio.Task[None] | None = None
        self.looked = asyncio.Event()
        self._busy = asyncio.Lock()

    async def look_on(self) -> None:
        """Check on the service's rhythm until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self.service.every)

    async def look(self) -> None:
        """Check once, now."""
        async with self._busy:
            await self._look()

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                found = await self.service.check()
        except TimeoutError:
            found = Report(Health.DOWN, f"It has not answered within {CHECK_SECONDS:.0f} seconds.")
        except Exception as error:
            log.warning("service.check_failed", service=self.service.name, exc_info=True)
            found = Report(Health.DOWN, f"It can't be checked: {_words(error)}")
        self.take(found)
        self.looked.set()

    def take(self, found: Report) -> None:
        """Remember a report, and since when it is so."""
        now = timezone.now()
        changed = found.health != self.report.health
        if changed:
            self.since = now
            log.info(
                "service.health",
                service=self.service.name,
                health=str(found.health),
                says=found.says,
            )
        if found.last_error:
            self.last_error, self.last_error_at = found.last_error[:500], found.last_error_at or now
        elif found.health in (Health.DOWN, Health.DEGRADED):
            self.last_error = found.says[:500]
            self.last_error_at = (
                now if changed or self.last_error_at is None else self.last_error_at
            )
        self.report = found

    async def restart(self) -> None:
        """Restart it and look again; what goes wrong is kept for whoever asked. Nobody looks in between: it is down on purpose."""
        self.restart_error = ""
        async with self._busy:
            try:
                async with asyncio.timeout(RESTART_SECONDS):
                    await self.service.restart()
            except TimeoutError:
                self.restart_error = f"It was not up again within {RESTART_SECONDS:.0f} seconds."
            except Exception as error:
                log.warning("service.restart_failed", service=self.service.name, exc_info=True)
                self.restart_error = _words(error)
            await self._look()
        if self.restart_error:
            self.last_error, self.last_error_at = self.restart_error, timezone.now()
        self.restarted_at = timezone.now()


class Beats:
    """The services of one process, from its parts."""

    def __init__(self, parts: Mapping[str, Part]) -> None:
        self.process = owner_id()
        self.kept: dict[str, Kept] = {}
        self._named: list[Named] = [
            source.make(parts) for source in SOURCES if source.process in parts
        ]
        self._said: dict[str, str] = {}
        self._restarts: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Look after them until cancelled; then say good-bye."""
        try:
            with wake.listening(WOKEN) as woken:
                due = 0.0
                while True:
                    try:
                        await self._pick_up_restarts()
                        if time.monotonic() >= due:
                            due = time.monotonic() + BEAT_SECONDS
                            await self._name()
                            await self.write()
                    except Exception:
                        # A database that stumbles, a source that breaks: the next beat tries again.
                        log.warning("services.not_written", exc_info=True)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(LOOK_SECONDS):
                            await woken.wait()
                    woken.clear()
        finally:
            await self._end()

    async def write(self) -> None:
        """Write every row as it is now."""
        now = timezone.now()
        rows = [self._row(kept, now) for kept in self.kept.values()]
        await db.write(_store, self.process, rows, now)
        health = {row.service: str(row.health) for row in rows}
        if health != self._said:
            # Pages that are open look again: the rail counts what is not well.
            self._said = health
            wake.wake_now(WOKEN)

    async def _name(self) -> None:
        found: dict[str, Service] = {}
        for named in self._named:
            found.update({service.name: service for service in await named()})
        for name in set(self.kept) - set(found):
            task = self.kept.pop(name).looks
            if task is not None:
                task.cancel()
        new = [found[name] for name in found if name not in self.kept]
        if not new:
            return
        before = await db.read(_last_errors, [service.name for service in new])
        for service in new:
            kept = self.kept[service.name] = Kept(service)
            kept.last_error, kept.last_error_at = before.get(service.name, ("", None))
            kept.looks = asyncio.create_task(kept.look_on(), name=f"look {service.name}")
        # The first row of a service should tell something.
        first = [asyncio.create_task(self.kept[one.name].looked.wait()) for one in new]
        _, late = await asyncio.wait(first, timeout=FIRST_SECONDS)
        for waits in late:
            waits.cancel()

    async def _pick_up_restarts(self) -> None:
        for name in await db.read(_asked, self.process):
            kept = self.kept.get(name)
            if kept is not None and name not in self._restarts:
                task = asyncio.create_task(self._restart(kept), name=f"restart {name}")
                self._restarts[name] = task

    async def _restart(self, kept: Kept) -> None:
        name = kept.service.name
        try:
            if kept.service.restart_does:
                await kept.restart()
            await db.write(_answered, self._row(kept, timezone.now()))
        finally:
            self._restarts.pop(name, None)

    def _row(self, kept: Kept, now: datetime) -> ServiceBeat:
        report, service = kept.report, kept.service
        return ServiceBeat(
            service=service.name,
            process=self.process,
            title=service.title[:120],
            kind=service.kind,
            version=report.version[:80],
            health=report.health,
            says=report.says[:500],
            next_step=report.next_step[:500],
            facts={str(k)[:60]: str(v)[:300] for k, v in report.facts.items()},
            since=kept.since,
            at=now,
            ended=False,
            lag_seconds=report.lag_seconds,
            last_beat=report.last_beat,
            last_error=kept.last_error,
            last_error_at=kept.last_error_at,
            restart_does=service.restart_does[:300],
            no_restart=service.no_restart[:300],
            restarted_at=kept.restarted_at,
            restart_error=kept.restart_error[:500],
        )

    async def _end(self) -> None:
        tasks = [kept.looks for kept in self.kept.values() if kept.looks is not None]
        for task in [*tasks, *self._restarts.values()]:
            task.cancel()
        await asyncio.gather(*tasks, *self._restarts.values(), return_exceptions=True)
        with contextlib.suppress(DatabaseError, OSError):
            await db.write(_good_bye, self.process)


#: What a beat writes; `restart_asked_at` is others' to set.
_FIELDS = [
    field.name
    for field in ServiceBeat._meta.concrete_fields
    if field.name not in ("id", "service", "process", "restart_asked_at")
]


def _store(process: str, rows: list[ServiceBeat], now: datetime) -> None:
    names = [row.service for row in rows]
    ServiceBeat.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["service", "process"],
        update_fields=_FIELDS,
    )
    # What this process no longer has, and what processes that are gone said of what this one has.
    ServiceBeat.objects.filter(process=process).exclude(service__in=names).delete()
    others = ServiceBeat.objects.filter(service__in=names).exclude(process=process)
    others.filter(at__lt=now - STALE).delete()
    others.filter(ended=True).delete()


def _answered(row: ServiceBeat) -> None:
    _store_one = {name: getattr(row, name) for name in _FIELDS}
    ServiceBeat.objects.filter(service=row.service, process=row.process).update(
        **_store_one, restart_asked_at=None
    )


def _asked(process: str) -> list[str]:
    asked = ServiceBeat.objects.filter(process=process).exclude(restart_asked_at=None)
    return list(asked.values_list("service", flat=True))


def _last_errors(names: list[str]) -> dict[str, tuple[str, datetime | None]]:
    rows = ServiceBeat.objects.filter(service__in=names).exclude(last_error="").order_by("at")
    return {row.service: (row.last_error, row.last_error_at) for row in rows}


def _good_bye(process: str) -> None:
    ServiceBeat.objects.filter(process=process).update(ended=True)


def _words(error: BaseException) -> str:
    told = getattr(error, "message", "") or getattr(error, "strerror", "") or str(error)
    return " ".join(f"{told or type(error).__name__}".split())[:500]
