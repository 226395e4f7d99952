"""Give a budget more room: for good, or for one window."""

from __future__ import annotations

from decimal import Decimal

from django.db import transaction

from devaipod_web.accounts.models import User
from devaipod_web.budgets.errors import InvalidBudget
from devaipod_web.budgets.incidents import close, extended, raised
from devaipod_web.budgets.limits import MAX_LIMIT, amount
from devaipod_web.budgets.models import Budget, BudgetExtension, BudgetWindow, How, Metric, units
from devaipod_web.budgets.services.budget import (
    current_window,
    live,
    named,
    rearm,
    save,
)
from devaipod_web.reviews import audit


def raise_limit(
    budget: Budget, by: User | None, limit: Decimal | str | int, *, note: str = ""
) -> None:
    """Raise the limit for good and resolve the budget's open incidents; the runs that these paused go on.

    Raises InvalidBudget unless the new limit is above the present one and above what is spent in this window.
    """
    new = _amount(budget, limit, "limit")
    with transaction.atomic():
        budget = live(budget)
        window = current_window(budget)
        if new <= budget.limit or new + window.extra <= window.spent:
            raise InvalidBudget(
                {"limit": "The new limit must be above the present one and above what is spent."}
            )
        before = budget.limit_shown
        budget.limit = new
        save(budget, "limit")
        close(budget.incidents, by, How.RAISED, note=note, why=raised(budget, by))
        audit.write(
            by,
            "budget.raised",
            target=named(budget),
            detail={
                "budget": budget.key,
                "from": f"{before.normalize():f}",
                "to": f"{budget.limit_shown.normalize():f}",
                "note": note,
            },
        )


def extend_once(
    window: BudgetWindow, by: User | None, more: Decimal | str | int, *, note: str = ""
) -> BudgetExtension:
    """Add to this window alone; the next one has the budget's limit again. Resolves the window's open incidents; the runs that these
    paused go on.

    Raises InvalidBudget unless there is room after it.
    """
    added = _amount(window.budget, more, "amount")
    with transaction.atomic():
        budget = live(window.budget)
        window = BudgetWindow.objects.select_for_update().get(pk=window.pk)
        cap = window.cap + added
        if (
            not added
            or cap <= window.spent
            or cap > 2 * units(budget.metric, MAX_LIMIT[Metric(budget.metric)])
        ):
            raise InvalidBudget(
                {
                    "amount": "Limit and extensions together must be above what is spent, and at most twice the highest limit."
                }
            )
        rearm(BudgetWindow.objects.filter(pk=window.pk), extra=window.extra + added)
        made = BudgetExtension.objects.create(window=window, amount=added, by=by, note=note[:300])
        close(window.incidents, by, How.EXTENDED, note=note, why=extended(budget, by, added))
        audit.write(
            by,
            "budget.extended",
            target=named(budget),
            detail={
                "budget": budget.key,
                "window": window.start.isoformat(),
                "by": str(more),
                "note": note,
            },
        )
    return made


def _amount(budget: Budget, value: Decimal | str | int, field: str) -> int:
    try:
        return amount(budget.metric, value)
    except ValueError as error:
        raise InvalidBudget({field: f"{field}: {error}"}) from None
