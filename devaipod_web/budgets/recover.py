"""Settle what killed processes left: once, by whoever finds it first.

The lock of a process's folder says whether it lives; the kernel lets go of it when the process ends, however it ends. Who takes
it may settle: settlements that the journal has and the database has not at their cost, open reservations in full, and the rest of the
leases goes back, all in one transaction that also removes the process's row. The folder is removed after it.

A process whose folder is not on this host cannot be looked at. When its heartbeat is older than LOST_AFTER its leases are charged
in full: rather too much than spent twice.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from devaipod_web.budgets import incidents, journal, leases, rows
from devaipod_web.budgets.accounts import parts
from devaipod_web.budgets.amounts import LostCall
from devaipod_web.budgets.models import BudgetProcess
from devaipod_web.llm import calls

log = structlog.get_logger("devaipod.budgets")

#: After so long without a heartbeat a process whose journal is not on this host counts as lost. A process that could not write
#: its heartbeat for half of it reserves nothing more (`ledger.FENCE_SECONDS`), so that it is not charged behind its back.
LOST_AFTER = timedelta(hours=1)


@dataclass(frozen=True)
class Found:
    """A process that may be dead: its row, and whether its folder is on this host."""

    process_id: int
    key: str
    is_here: bool


def candidates(root: Path, mine: str, *, now: datetime) -> list[Found]:
    """Other processes that may have to be settled: those whose lock is on this host, and those without a heartbeat."""
    found = []
    for process in BudgetProcess.objects.exclude(key=mine).order_by("pk"):
        is_here = (root / process.key).is_dir()
        if is_here or now - process.heartbeat > LOST_AFTER:
            found.append(Found(process.pk, process.key, is_here))
    return found


def orphans(root: Path, mine: str) -> list[str]:
    """Folders without a row: settled by somebody who was killed before the folder was removed, or just being made."""
    names = {path.name for path in root.iterdir() if path.is_dir()} if root.is_dir() else set()
    return sorted(names - {mine} - set(BudgetProcess.objects.values_list("key", flat=True)))


def is_known(key: str) -> bool:
    """Whether a process has this folder. To be asked under its lock, before the folder is removed."""
    return BudgetProcess.objects.filter(key=key).exists()


def settle(process_id: int, folder: Path) -> bool:
    """Settle what a dead process left in its journal and remove its row. False when somebody has done so.

    Must run in a transaction, under the folder's lock; the folder is removed when it is committed, and not before.
    """
    process = BudgetProcess.objects.select_for_update().filter(pk=process_id).first()
    if process is None:
        return False
    left = journal.read(folder, process.journal, process.position)
    charged: Counter[int] = Counter()
    last: dict[int, int] = {}
    for reserved, actual in [
        *((record.reserved, record.actual) for record in left.settled),
        *((record, record.worst) for record in left.open),
    ]:
        costs = parts(actual)
        for metric, window_id in reserved.windows:
            charged[window_id] += costs[metric]
            last[window_id] = reserved.payer.run_id
    leases.give_back(process.pk, dict(charged))
    incidents.warn({window_id: run for window_id, run in last.items() if charged[window_id]})
    rows.store([record.call for record in left.settled if record.call is not None])
    lost = [LostCall(record.payer, record.worst, record.at) for record in left.open]
    rows.store([calls.lost(call) for call in lost])
    process.delete()
    log.warning(
        "budgets.recovered",
        process=process.key,
        owner=process.owner,
        settled=len(left.settled),
        open=len(left.open),
    )
    return True


def charge_lost(process_id: int, *, now: datetime) -> bool:
    """Charge all leases of a process in full that is lost with its journal. False when it has come back. In a transaction."""
    process = BudgetProcess.objects.select_for_update().filter(pk=process_id).first()
    if process is None or now - process.heartbeat <= LOST_AFTER:
        return False
    amounts = dict(process.leases.values_list("window_id", "amount"))
    leases.give_back(process.pk, amounts)
    process.delete()
    log.error(
        "budgets.lost",
        process=process.key,
        owner=process.owner,
        leases=len(amounts),
        reason="Its journal is not on this host; its leases were charged in full.",
    )
    return True
