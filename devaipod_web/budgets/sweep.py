"""What a ledger does beside its batches: settle what killed processes left, close incidents whose window has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from django.utils import timezone

from devaipod_web import db
from devaipod_web.budgets import incidents, recover
from devaipod_web.budgets.journal import JournalTaken, Lock

T = TypeVar("T")

_under_way: set[asyncio.Task[Any]] = set()


async def sweep(root: Path, mine: str) -> None:
    """Settle every dead process below `root`, charge those that are lost, and remove folders that nobody needs.

    `mine` is the folder of this process, which is left alone. Several processes may sweep at once: the lock of a folder and the row of its
    process let one through.
    """
    now = timezone.now()
    for found in await db.read(recover.candidates, root, mine, now=now):
        if found.is_here:
            await _settle(root / found.key, found.process_id)
        else:
            await db.write(recover.charge_lost, found.process_id, now=now)
    for key in await db.read(recover.orphans, root, mine):
        await _remove(root / key)
    await db.write(incidents.close_ended, now)


async def _settle(folder: Path, process_id: int) -> None:
    lock = _lock(folder)
    if lock is None:
        return
    try:
        await shielded(db.write(recover.settle, process_id, folder))
    except BaseException:
        lock.release()
        raise
    lock.remove()


async def _remove(folder: Path) -> None:
    lock = _lock(folder)
    if lock is None:
        return
    if await db.read(recover.is_known, folder.name):
        lock.release()
    else:
        lock.remove()


def _lock(folder: Path) -> Lock | None:
    try:
        return Lock(folder)
    except (JournalTaken, FileNotFoundError):
        return None


async def shielded(work: Coroutine[Any, Any, T]) -> T:
    """Wait for work that must not stop halfway, although the waiting may be cancelled."""
    task = asyncio.create_task(work, name="budgets")
    _under_way.add(task)
    task.add_done_callback(_done)
    return await asyncio.shield(task)


def _done(task: asyncio.Task[Any]) -> None:
    _under_way.discard(task)
    if not task.cancelled():
        task.exception()  # the waiter has it, or was cancelled and does not want it
