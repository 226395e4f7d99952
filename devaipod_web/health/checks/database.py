"""The database, through the one door: how long a write waits and takes."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from django.conf import settings
from django.db import connection
from django.utils import timezone

from devaipod_web import db
from devaipod_web.health.contract import Health, Kind, Named, Report, Service
from devaipod_web.parts import Part
from devaipod_web.runs.models import RunEvent

EVERY_SECONDS = 3.0
#: A write that takes longer holds up every event.
SLOW_SECONDS = 1.0
#: Below this a database on this disk stops soon.
FULL_BYTES = 64 * 1024**2


class Store:
    """The database and the event writer: one thread writes all, so what one write waits, every event waits."""

    name = "database"
    title = "Database and event writer"
    kind = Kind.STORE
    every = EVERY_SECONDS
    restart_does = ""

    def __init__(self) -> None:
        self._file = Path(str(settings.DATABASES["default"]["NAME"]))
        self._is_sqlite = connection.vendor == "sqlite"
        self.no_restart = (
            "It is a file, and has no process of its own to restart."
            if self._is_sqlite
            else "It is another server: restart it where it runs."
        )

    async def check(self) -> Report:
        """Write and read through the door."""
        began = time.monotonic()
        await db.write(_touch)
        lag = time.monotonic() - began
        version, newest = await db.read(_look)
        facts = {"newest event": f"{newest:%Y-%m-%d %H:%M:%S} UTC" if newest else "none"}
        if self._is_sqlite:
            room = os.statvfs(self._file.parent)
            free = room.f_bavail * room.f_frsize
            facts["size"] = f"{_size(self._file) / 1024**2:.1f} MiB"
            if free < FULL_BYTES:
                return Report(
                    Health.DOWN,
                    f"Only {free / 1024**2:.0f} MiB are free on its disk: events can't be stored soon.",
                    next_step="Make room: `devaipod prune`, or a larger disk for DEVAIPOD_HOME.",
                    version=version,
                    lag_seconds=round(lag, 3),
                    facts=facts,
                )
        slow = lag > SLOW_SECONDS
        return Report(
            Health.DEGRADED if slow else Health.OK,
            f"A write took {lag:.1f} s." if slow else f"A write took {lag * 1000:.0f} ms.",
            next_step="Look for what keeps its disk busy." if slow else "",
            version=version,
            lag_seconds=round(lag, 3),
            last_beat=timezone.now(),
            facts=facts,
        )

    async def restart(self) -> None:
        """Never called: `restart_does` is empty."""


def _touch() -> None:
    """The door's transaction is what is measured: on SQLite it takes the lock of the only writer."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _look() -> tuple[str, object]:
    newest = RunEvent.objects.order_by("-pk").values_list("received_at", flat=True).first()
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("SELECT sqlite_version()")
            return f"SQLite {cursor.fetchone()[0]}", newest
        cursor.execute("SHOW server_version")
        return f"PostgreSQL {str(cursor.fetchone()[0]).split()[0]}", newest


def _size(file: Path) -> int:
    wal = file.with_name(file.name + "-wal")
    return sum(one.stat().st_size for one in (file, wal) if one.exists())


def store(parts: Mapping[str, Part]) -> Named:
    """The database, as the process that writes the events sees it."""
    found = Store()

    async def named() -> Sequence[Service]:
        return (found,)

    return named
