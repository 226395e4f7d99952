"""The database side of leases: each function is one short transaction's work, to be run by the writer.

Windows are always touched in the order of their ids, so that processes on PostgreSQL never wait for each other in a circle.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from django.db import connection, transaction
from django.db.models import Count, F, Max, Q
from django.utils import timezone

from devaipod_web.budgets import incidents, rows, run_limits
from devaipod_web.budgets.accounts import FOREVER, METRICS, SHARE, Ask, Change, View
from devaipod_web.budgets.amounts import CallRow, Payer
from devaipod_web.budgets.models import (
    Budget,
    BudgetLease,
    BudgetProcess,
    BudgetWindow,
    Scope,
    Window,
)
from devaipod_web.budgets.windows import bounds

#: What tells whether budgets have changed since they were last read: number, and time of the last change.
#: How many budgets there are and when one was last changed: under None of all but runs' own, under a run's id of its own.
Version = dict[int | None, tuple[int, datetime | None]]


class Reaped(Exception):
    """This process's row is gone: another one took it for dead and charged its leases. It must begin again with new leases."""


@dataclass(frozen=True)
class Taken:
    """What came of asking for leases: the blocks by window (none when one of the windows had no room), and how all stand now."""

    granted: dict[int, int]
    views: list[View]


@dataclass(frozen=True)
class Batch:
    """What one flush writes. `beat` is its number: a batch whose number is committed already is not written twice."""

    beat: int
    journal: int
    position: int
    changes: Sequence[Change]
    rows: Sequence[CallRow]


@dataclass(frozen=True)
class Flushed:
    """What a process learns on its beat: how its windows stand, and the version of all budgets."""

    views: list[View] = field(default_factory=list)
    version: Version = field(default_factory=dict)


# --- processes ------------------------------------------------------------------------------------------------


def register(key: str, owner: str) -> int:
    """Write the row of this process, whose journal's folder is `key` and locked already. Returns its id."""
    return BudgetProcess.objects.create(key=key, owner=owner, heartbeat=timezone.now()).pk


def unregister(process_id: int) -> None:
    """Remove the row of a process that has written everything and holds nothing open; its leases go back."""
    give_back(process_id, {})
    BudgetProcess.objects.filter(pk=process_id).delete()


def give_back(process_id: int, charged: dict[int, int]) -> None:
    """End all leases of a process; `charged` was spent by it and is in no batch, by window."""
    amounts = dict(
        BudgetLease.objects.filter(process_id=process_id).values_list("window_id", "amount")
    )
    for window_id in sorted({*amounts, *charged}):
        BudgetWindow.objects.filter(pk=window_id).update(
            leased=F("leased") - amounts.get(window_id, 0),
            spent=F("spent") + charged.get(window_id, 0),
        )
    BudgetLease.objects.filter(process_id=process_id).delete()


# --- windows --------------------------------------------------------------------------------------------------


def bind(payer: Payer, at: datetime) -> list[View]:
    """The windows that bind a payer at this time, made when they are new; those of a new run's own budgets too."""
    run_limits.open_run(payer.run_id, payer.project_id)
    found = []
    for budget in Budget.objects.filter(_of(payer), enabled=True, removed_at=None).exclude(
        window=Window.EACH_RUN
    ):
        found.append(window_of(budget, at))
    return views(window.pk for window in found)


def window_of(budget: Budget, at: datetime) -> BudgetWindow:
    """The window of a budget that `at` lies in. A budget's first one begins with what was spent in it before the budget was made."""
    start, end = bounds(budget.window, at)
    window = BudgetWindow.objects.filter(budget=budget, start=start).first()
    if window is not None:
        return window
    spent = 0
    if budget.created_at > start:
        spent = rows.spent_since(budget, start)[METRICS.index(budget.metric)]
    return BudgetWindow.objects.get_or_create(
        budget=budget, start=start, defaults={"end": end, "limit": budget.limit, "spent": spent}
    )[0]


def _of(payer: Payer) -> Q:
    found = (
        Q(scope=Scope.INSTALLATION)
        | Q(project_id=payer.project_id)
        | Q(person_id=payer.person_id)
        | Q(run_id=payer.run_id)
    )
    return found | Q(token_id=payer.token_id) if payer.token_id else found


def views(window_ids: Iterable[int]) -> list[View]:
    """How these windows stand now."""
    rows = BudgetWindow.objects.filter(pk__in=list(window_ids)).values_list(
        "pk", "budget_id", "budget__metric", "end", "limit", "extra", "spent", "leased"
    )
    return [
        View(
            window_id=pk,
            budget_id=budget_id,
            metric=METRICS.index(metric),
            until=end.timestamp() if end else FOREVER,
            cap=limit + extra,
            spent=spent,
            leased=leased,
        )
        for pk, budget_id, metric, end, limit, extra, spent, leased in rows
    ]


def version(run_ids: Iterable[int]) -> Version:
    """The version of all budgets but those of other runs, each run's by itself: new runs get budgets all the time."""
    shared = Budget.objects.exclude(scope=Scope.RUN).aggregate(
        count=Count("pk"), last=Max("changed_at")
    )
    runs = list(run_ids)
    found: Version = {None: (shared["count"], shared["last"]), **dict.fromkeys(runs, (0, None))}
    own = Budget.objects.filter(scope=Scope.RUN, run_id__in=runs).values_list("run_id")
    for run_id, count, last in own.annotate(Count("pk"), Max("changed_at")):
        found[run_id] = (count, last)
    return found


# --- leases ---------------------------------------------------------------------------------------------------


class _NoRoom(Exception):
    pass


def take(process_id: int, asks: Sequence[Ask]) -> Taken:
    """Lease what is asked for, in every window or in none. Raises Reaped when this process's row is gone.

    A block is what was wished for, but beyond the need at most a SHARE of what is left; near the limit it is exactly the need.
    """
    if not BudgetProcess.objects.filter(pk=process_id).update(heartbeat=timezone.now()):
        raise Reaped
    granted: dict[int, int] = {}
    try:
        with transaction.atomic():
            for ask in sorted(asks, key=lambda ask: ask.window_id):
                granted[ask.window_id] = _lease(process_id, ask)
    except _NoRoom:
        granted = {}
    return Taken(granted, views(ask.window_id for ask in asks))


def _lease(process_id: int, ask: Ask) -> int:
    room = F("limit") + F("extra") - F("spent") - F("leased")
    left = BudgetWindow.objects.filter(pk=ask.window_id).values_list(room, flat=True).first()
    if left is None or left < ask.lack:
        raise _NoRoom
    # Another process may take room between the look and the UPDATE (PostgreSQL): then the bare need is tried.
    for block in (max(ask.lack, min(ask.wish, left // SHARE)), ask.lack):
        if BudgetWindow.objects.filter(
            pk=ask.window_id, limit__gte=F("spent") + F("leased") + block - F("extra")
        ).update(leased=F("leased") + block):
            _add(process_id, ask.window_id, block)
            return block
    raise _NoRoom


def _add(process_id: int, window_id: int, amount: int) -> None:
    if not BudgetLease.objects.filter(process_id=process_id, window_id=window_id).update(
        amount=F("amount") + amount
    ):
        BudgetLease.objects.create(process_id=process_id, window_id=window_id, amount=amount)


_CHARGE = (
    f"UPDATE {BudgetWindow._meta.db_table} "  # noqa: S608 - a name of our own
    "SET spent = spent + %s, leased = leased + %s WHERE id = %s"
)
_MOVE = (
    f"UPDATE {BudgetLease._meta.db_table} "  # noqa: S608 - a name of our own
    "SET amount = amount + %s WHERE process_id = %s AND window_id = %s"
)


def flush(
    process_id: int, batch: Batch, *, watch: Iterable[int], run_ids: Iterable[int]
) -> Flushed:
    """Write a batch and its journal position, in one transaction, exactly once; and look at the windows in `watch`.

    Raises Reaped when this process's row is gone; then nothing of the batch's windows may be counted, its leases were charged.
    """
    if BudgetProcess.objects.filter(pk=process_id, beat=batch.beat - 1).update(
        beat=batch.beat,
        journal=batch.journal,
        position=batch.position,
        heartbeat=timezone.now(),
    ):
        _apply(process_id, batch.changes)
        rows.store(batch.rows)
    elif not BudgetProcess.objects.filter(pk=process_id, beat=batch.beat).exists():
        raise Reaped
    # Else the commit's answer was lost the last time: the batch stands.
    return Flushed(views(watch), version(run_ids))


def _apply(process_id: int, changes: Sequence[Change]) -> None:
    """Charge windows and move leases. A few statements for all of them: this runs every second beside the requests."""
    wanted = [change.window_id for change in changes]
    # A window that is not there went with its budget's project, person or run.
    there = set(BudgetWindow.objects.filter(pk__in=wanted).values_list("pk", flat=True))
    changes = [change for change in changes if change.window_id in there]
    moved = {c.window_id: c.short - c.charge - c.back for c in changes}
    with connection.cursor() as cursor:
        cursor.executemany(_CHARGE, [(c.charge, moved[c.window_id], c.window_id) for c in changes])
        held = set(
            BudgetLease.objects.filter(process_id=process_id, window_id__in=there).values_list(
                "window_id", flat=True
            )
        )
        cursor.executemany(
            _MOVE,
            [(amount, process_id, window) for window, amount in moved.items() if window in held],
        )
    BudgetLease.objects.bulk_create(
        BudgetLease(process_id=process_id, window_id=window, amount=amount)
        for window, amount in moved.items()
        if amount and window not in held
    )
    BudgetLease.objects.filter(process_id=process_id, amount=0, window_id__in=there).delete()
    incidents.warn({change.window_id: change.run_id for change in changes if change.charge})
