"""Open incidents: a window passed its soft threshold, or refused a request. `services.resolve` closes them.

`open_hard` is the one place where a run meets its hard limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from devaipod_web.accounts.models import User
from devaipod_web.budgets.models import (
    Budget,
    BudgetWindow,
    How,
    Incident,
    IncidentState,
    Level,
    Metric,
    Scope,
    Window,
    shown,
)
from devaipod_web.runs import events
from devaipod_web.runs.models import Run
from devaipod_web.runs.services.pause import pause, resume_freed
from devaipod_web.runs.states import Cause

#: What can be done about a budget that is used up.
DECIDE = "A manager can raise the budget, extend it once, or stop the run."

_WHEN = {
    Window.DAY: " today",
    Window.MONTH: " this month",
    Window.TOTAL: "",
}


def open_hard(window_id: int, run_id: int, need: int) -> tuple[Incident, BudgetWindow, bool]:
    """The open incident of a run that was refused `need` units by a window; True when it is new.

    Must run in a transaction, in which the run is paused. It closes the soft one of the same window, which says less.
    """
    window = BudgetWindow.objects.select_related(
        "budget__project", "budget__person", "budget__token", "budget__run"
    ).get(pk=window_id)
    incident, is_new = _open(window, run_id, Level.HARD, _used_up(window, need))
    if is_new:
        Incident.objects.filter(
            window=window, level=Level.SOFT, run_id=run_id, state=IncidentState.OPEN
        ).delete()
    run = Run.objects.select_for_update().get(pk=run_id)
    pause(run, Cause.BUDGET, reason=incident.message, next_step=DECIDE, code="budget-used-up")
    return incident, window, is_new


def warn(charged: Mapping[int, int]) -> None:
    """Open a soft incident for each of these windows that passed its threshold, on the run that was charged last, once a window.

    `charged` is window → run. Must run in the transaction that charged them.
    """
    # Judged here and not in the query: the product does not fit into 64 bits.
    figures = BudgetWindow.objects.filter(pk__in=list(charged), soft_at=None).values_list(
        "pk", "spent", "limit", "extra", "budget__soft_percent"
    )
    passed = [
        pk for pk, spent, limit, extra, soft in figures if spent * 100 >= (limit + extra) * soft
    ]
    if not passed:
        return
    windows = BudgetWindow.objects.filter(pk__in=passed).select_related(
        "budget__project", "budget__person", "budget__token", "budget__run"
    )
    for window in windows.order_by("pk"):
        if not BudgetWindow.objects.filter(pk=window.pk, soft_at=None).update(
            soft_at=timezone.now()
        ):
            continue
        message = _nearly(window)
        run = Run.objects.filter(pk=charged[window.pk]).first()
        if run is None:
            continue
        _open(window, run.pk, Level.SOFT, message)
        events.record(
            run,
            events.Kind.NOTE,
            {
                "level": "warning",
                "text": message,
                "next_step": "A manager can raise the budget before it is used up.",
            },
        )


def close_ended(now: datetime) -> int:
    """Resolve the open incidents whose window has ended, and let the runs go on that they paused. Returns how many there were.

    Must run in a transaction.
    """
    ended = Incident.objects.filter(state=IncidentState.OPEN, window__end__lte=now)
    return close(ended, None, How.WINDOW_ENDED, why="The budget's next day or month has begun.")


def close(incidents: Any, by: User | None, how: How, *, note: str = "", why: str = "") -> int:
    """Resolve those of these incidents that are open, and return how many. With `why` (a sentence) the runs that they paused go on.

    Must run in a transaction, whose audit entry is the caller's.
    """
    now_open = incidents.filter(state=IncidentState.OPEN).select_for_update(of=("self",))
    found = list(now_open.values_list("pk", "run_id", "level"))
    Incident.objects.filter(pk__in=[pk for pk, _, _ in found]).update(
        state=IncidentState.RESOLVED,
        resolved_by=by,
        resolved_at=timezone.now(),
        how=how,
        note=note[:300],
    )
    if why:
        resume_freed({run_id for _, run_id, level in found if level == Level.HARD}, by, why=why)
    return len(found)


def _open(window: BudgetWindow, run_id: int, level: Level, message: str) -> tuple[Incident, bool]:
    try:
        with transaction.atomic():
            return Incident.objects.get_or_create(
                window=window,
                run_id=run_id,
                level=level,
                state=IncidentState.OPEN,
                defaults={
                    "budget": window.budget,
                    "message": message[:500],
                    "opened_at": timezone.now(),
                },
            )
    except IntegrityError:
        # Resolved between the two looks of get_or_create: what is wanted now is a new one.
        return Incident.objects.create(
            window=window,
            run_id=run_id,
            level=level,
            budget=window.budget,
            message=message[:500],
            opened_at=timezone.now(),
        ), True


# --- words ------------------------------------------------------------------------------------------------------


def whose(budget: Budget) -> str:
    """The scope of a budget in words, as in "the project Payments"."""
    if budget.scope == Scope.PROJECT:
        return f"the project {budget.project}"
    if budget.scope == Scope.PERSON:
        return str(budget.person)
    if budget.scope == Scope.TOKEN:
        return f"the API token {budget.token}"
    if budget.scope == Scope.RUN:
        return "this run"
    return "the installation"


def worded(metric: str, amount: int) -> str:
    """An amount for people: dollars to the cent, or to four places when it is less than a cent."""
    value = shown(metric, amount)
    if metric == Metric.USD:
        return f"${value:,.4f}" if 0 < abs(value) < 1 and value * 100 % 1 else f"${value:,.2f}"
    return f"{amount:,} {metric if amount != 1 else metric[:-1]}"


def raised(budget: Budget, by: User | None) -> str:
    """What page and agent are told of a limit that was raised."""
    limit = worded(budget.metric, budget.limit)
    return f"{by or 'Somebody'} raised the budget of {whose(budget)} to {limit}."


def extended(budget: Budget, by: User | None, added: int) -> str:
    """What they are told of a window that got more."""
    return f"{by or 'Somebody'} extended the budget of {whose(budget)} once by {worded(budget.metric, added)}."


def _used_up(window: BudgetWindow, need: int) -> str:
    budget = window.budget
    spent = (
        f"{worded(budget.metric, window.spent)} of {worded(budget.metric, window.cap)} are spent"
    )
    if window.spent + need <= window.cap:
        spent += f" and {worded(budget.metric, window.leased)} are held by requests under way"
    return (
        f"The budget of {whose(budget)} has no room for this request: {spent}"
        f"{_WHEN[Window(budget.window)]}, and it may cost up to {worded(budget.metric, need)}."
    )


def _nearly(window: BudgetWindow) -> str:
    budget = window.budget
    return (
        f"{worded(budget.metric, window.spent)} of the {worded(budget.metric, window.cap)} that "
        f"{whose(budget)} may spend{_WHEN[Window(budget.window)]} are spent."
    )
