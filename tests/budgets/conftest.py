"""A ledger of a test's own, and people who pay."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from devaipod_web import db
from devaipod_web.budgets.ledger import Ledger, Payer
from devaipod_web.budgets.models import Budget, BudgetWindow, Metric, Scope, Window, units
from devaipod_web.runs.models import Run

#: 2026-11-24 12:00 UTC.
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp()


class Clock:
    """Seconds since 1970, moved by hand."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def no_limits_by_default(settings) -> None:
    """Only the budgets that a test makes bind; tests of the defaults set these anew."""
    settings.RUN_BUDGET_USD = Decimal(0)
    settings.RUN_REQUESTS = 0


@pytest.fixture
async def ledgers(tmp_path, clock) -> AsyncIterator[Callable[[], Ledger]]:
    """Make ledgers that share a folder of journals, as the processes of one installation do."""
    made: list[Ledger] = []

    def make() -> Ledger:
        made.append(Ledger(tmp_path / "budgets", clock=clock))
        return made[-1]

    yield make
    for ledger in made:
        ledger.abandon()
    await db.close_connections()


@pytest.fixture
def payer(run: Run) -> Payer:
    return Payer(run.pk, run.project_id, run.owner_id)


def budget(
    limit: str | int,
    *,
    scope: Scope = Scope.INSTALLATION,
    metric: Metric = Metric.USD,
    window: Window = Window.TOTAL,
    soft: int = 80,
    **subject: object,
) -> Budget:
    """A budget as the services make it, but of whatever is given."""
    return Budget.objects.create(
        scope=scope,
        metric=metric,
        window=window,
        limit=units(metric, Decimal(limit)),
        soft_percent=soft,
        **subject,
    )


def window_of(row: Budget) -> BudgetWindow:
    """The only window of a budget."""
    return BudgetWindow.objects.get(budget=row)
