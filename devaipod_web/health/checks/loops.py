"""Loops that go round by themselves. What they did last stands in a status object that they write; it is judged here, once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from django.utils import timezone

from devaipod_web import __version__
from devaipod_web.health.contract import Health, Kind, Named, Report, Service
from devaipod_web.parts import Part
from devaipod_web.runs.supervisor.status import service as supervisor_status
from devaipod_web.webhooks.status import sender as sender_status

EVERY_SECONDS = 1.0
#: A loop that has not gone round for so long stands still.
STILL = timedelta(seconds=15)
#: A failure this recent still counts against it.
RECENT = timedelta(seconds=60)


class LoopStatus(Protocol):
    """What a loop says of itself. `last_beat` is when it last went round, `lag_seconds` how long that took or how late it came."""

    running: bool
    started_at: datetime | None
    last_beat: datetime | None
    lag_seconds: float
    last_error: str
    last_error_at: datetime | None


class Loop:
    """A loop as a service. `more` may add a sentence of what the loop waits for (that makes it degraded), `facts` its figures."""

    kind = Kind.LOOP
    every = EVERY_SECONDS

    def __init__(
        self,
        name: str,
        title: str,
        status: LoopStatus,
        *,
        part: Part | None = None,
        restart_does: str = "",
        no_restart: str = "",
        waits: Callable[[], str] = str,
        facts: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self.name = name
        self.title = title
        self.restart_does = restart_does
        self.no_restart = no_restart
        self._status = status
        self._part = part
        self._waits = waits
        self._facts = facts

    async def check(self) -> Report:
        """Judge the status."""
        health, says, next_step = self._judge(timezone.now())
        status = self._status
        return Report(
            health,
            says,
            next_step=next_step,
            version=__version__,
            lag_seconds=status.lag_seconds,
            last_beat=status.last_beat,
            last_error=status.last_error,
            last_error_at=status.last_error_at,
            facts=self._facts(),
        )

    def _judge(self, now: datetime) -> tuple[Health, str, str]:
        status = self._status
        step = "Restart it." if self.restart_does else "Look at the server's log: `devaipod logs`."
        if not status.running:
            return Health.DOWN, "It does not run.", step
        went = status.last_beat or status.started_at
        failed_at = status.last_error_at
        recent = (
            failed_at is not None
            and now - failed_at < RECENT
            and (status.started_at is None or failed_at > status.started_at)
        )
        if went is not None and now - went > STILL:
            seconds = int((now - went).total_seconds())
            why = f": {status.last_error}" if recent else "."
            return Health.DOWN, f"It has not gone round for {seconds} seconds{why}", step
        if recent:
            return Health.DEGRADED, f"It failed lately: {status.last_error}", step
        if waits := self._waits():
            return Health.DEGRADED, waits, ""
        return Health.OK, "It goes round.", ""

    async def restart(self) -> None:
        """End the loop, start it anew, and wait until it has gone round once."""
        assert self._part is not None
        began = timezone.now()
        await self._part.restart()
        while self._status.last_beat is None or self._status.last_beat < began:
            await asyncio.sleep(0.05)


def supervisor(parts: Mapping[str, Part]) -> Named:
    """The supervisor of this process."""

    def waits() -> str:
        error = supervisor_status.backend_error
        return f"It waits for the container backend: {error}" if error else ""

    loop = Loop(
        "supervisor",
        "Supervisor",
        supervisor_status,
        part=parts["supervisor"],
        restart_does=(
            "Its loops end, let go of every run, and start anew; each run is taken up where it is. Pods and agents go on meanwhile."
        ),
        waits=waits,
        facts=lambda: {"runs driven": str(len(supervisor_status.driven))},
    )

    async def named() -> Sequence[Service]:
        return (loop,)

    return named


def deliveries(parts: Mapping[str, Part]) -> Named:
    """The sender of webhooks' deliveries of this process."""
    loop = Loop(
        "webhooks",
        "Webhook deliveries",
        sender_status,
        part=parts["webhooks"],
        restart_does=(
            "Attempts that are under way are given a few seconds, and the sender starts anew. What is due is sent again under its id."
        ),
        facts=lambda: {
            "due": str(sender_status.due),
            "under way": str(sender_status.in_flight),
        },
    )

    async def named() -> Sequence[Service]:
        return (loop,)

    return named
