"""The sender: takes due deliveries, makes their attempts side by side, and writes what came of each.

It runs beside the supervisor. Any number of senders may run: leases see to it that one of them makes an attempt (`queue`). A
receiver that is slow holds its own places and nobody else's.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import structlog
from django.utils import timezone

from devaipod_web import db, loops
from devaipod_web.runs import wake
from devaipod_web.runs.supervisor import lease
from devaipod_web.webhooks import queue
from devaipod_web.webhooks.post import Poster
from devaipod_web.webhooks.queue import Job
from devaipod_web.webhooks.status import sender as service

log = structlog.get_logger("devaipod.webhooks")

#: Attempts of this process at a time, over all webhooks.
MAX_IN_FLIGHT = 64
LOOKUP_THREADS = 8
#: At the end, attempts that are under way have so long; after that they are broken off and made again by the next sender.
GRACE_SECONDS = 5.0


async def send(*, stop: asyncio.Event) -> None:
    """Run a sender until `stop` is set."""
    await Sender().run(stop)


class Sender:
    """One process's sender."""

    def __init__(self, *, owner: str = "") -> None:
        self.owner = owner or lease.owner_id()
        self._lookups = ThreadPoolExecutor(LOOKUP_THREADS, thread_name_prefix="webhook-lookup")
        self._poster: Poster | None = None
        self._attempts: dict[asyncio.Task[None], Job] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Send what is due, until `stop` is set; then let attempts end, and give back what did not."""
        self._poster = Poster(self._lookups)
        service.running, service.started_at = True, timezone.now()
        log.info("webhooks.started", owner=self.owner)
        loop = asyncio.create_task(
            loops.forever("webhooks", self._rounds, failed=_note), name="webhooks"
        )
        try:
            await stop.wait()
        finally:
            service.running = False
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)
            await self._finish()
            await self._poster.close()
            self._lookups.shutdown(wait=False, cancel_futures=True)
            log.info("webhooks.stopped")

    async def _rounds(self) -> None:
        with wake.listening(wake.WEBHOOKS) as woken:
            while True:
                await self.round()
                await wake.pause(woken)

    async def round(self) -> None:
        """Start an attempt at every delivery that is due and has a place."""
        now = timezone.now()
        backlog = await db.read(queue.backlog, now)
        service.last_beat, service.due = now, backlog.due
        service.lag_seconds = round(backlog.lag_seconds, 3)
        room = MAX_IN_FLIGHT - len(self._attempts)
        if not backlog.due or room <= 0:
            return
        busy = Counter(job.webhook_id for job in self._attempts.values())
        for job in await db.write(queue.claim, self.owner, now=now, room=room, busy=busy):
            task = asyncio.create_task(self._attempt(job), name=f"delivery {job.key}")
            self._attempts[task] = job
            task.add_done_callback(self._ended)
        service.in_flight = len(self._attempts)

    async def _attempt(self, job: Job) -> None:
        assert self._poster is not None
        try:
            outcome = await self._poster.post(job)
        except asyncio.CancelledError:
            await db.write(queue.release, job)
            raise
        await db.write(queue.settle, job, outcome)
        log.info(
            "webhook.attempt",
            delivery=job.key,
            status=outcome.status,
            milliseconds=outcome.milliseconds,
            error=outcome.error,
        )

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._attempts.pop(task, None)
        service.in_flight = len(self._attempts)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Its lease runs out, and then it is tried again.
            log.error("webhook.attempt_died", delivery=task.get_name(), exc_info=error)
            _note("webhooks", error)

    async def _finish(self) -> None:
        attempts = list(self._attempts)
        if not attempts:
            return
        _, late = await asyncio.wait(attempts, timeout=GRACE_SECONDS)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


def _note(name: str, error: BaseException) -> None:
    service.last_error = f"{name}: {type(error).__name__}: {error}"[:500]
    service.last_error_at = timezone.now()
