"""How budgets stand, whom they bind, and the incidents that wait."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.db.models import Prefetch, Q, QuerySet
from django.utils import timezone

from devaipod_web.accounts.models import User
from devaipod_web.budgets.models import (
    Budget,
    BudgetWindow,
    Incident,
    IncidentState,
    Scope,
    Window,
    shown,
)
from devaipod_web.budgets.windows import bounds
from devaipod_web.projects.models import Project
from devaipod_web.runs.models import Run

_SUBJECTS = ("project", "person", "token", "run", "created_by")


@dataclass(frozen=True)
class Burn:
    """How one budget stands in its present window, in US dollars, tokens or requests.

    `held` is leased by processes for requests under way and soon; `cap` is the limit with once-only extensions; `start` and `end` are
    None where there are none; `projected` is what is spent at the window's end if it goes on as since its start (None where a
    window has no end); `left` is what nobody holds.
    """

    budget: Budget
    start: datetime | None
    end: datetime | None
    spent: Decimal
    held: Decimal
    extra: Decimal
    cap: Decimal
    soft: Decimal
    projected: Decimal | None

    @property
    def left(self) -> Decimal:
        """What can still be leased; 0 when the limit is passed."""
        return max(Decimal(0), self.cap - self.spent - self.held)

    @property
    def over_soft(self) -> bool:
        """Whether the threshold is reached."""
        return self.budget.window != Window.EACH_RUN and self.spent >= self.soft

    @property
    def over_projected(self) -> bool:
        """Whether the limit does not last to the window's end."""
        return self.projected is not None and self.projected > self.cap


def budgets(at: datetime | None = None) -> QuerySet[Budget]:
    """All budgets in force, with what `burn` reads of each in a fixed number of queries."""
    at = at or timezone.now()
    present = BudgetWindow.objects.filter(Q(end=None) | Q(end__gt=at), start__lte=at)
    return (
        Budget.objects.filter(removed_at=None)
        .select_related(*_SUBJECTS)
        .prefetch_related(Prefetch("windows", present))
    )


def by_key(key: str) -> Budget | None:
    """The budget of this key, unless it was removed."""
    return budgets().filter(key=key).first()


def burn(budget: Budget, at: datetime | None = None) -> Burn:
    """How a budget of `budgets()` stands now. A window in which nothing was asked for has spent nothing."""
    at = at or timezone.now()
    if budget.window == Window.EACH_RUN:
        zero = Decimal(0)
        return Burn(
            budget,
            None,
            None,
            zero,
            zero,
            zero,
            budget.limit_shown,
            _soft(budget, budget.limit),
            None,
        )
    start, end = bounds(budget.window, at)
    window = next(
        (row for row in budget.windows.all() if row.start == start), None
    ) or BudgetWindow(budget=budget, start=start, end=end, limit=budget.limit)
    amounts = (
        shown(budget.metric, value)
        for value in (window.spent, window.leased, window.extra, window.cap)
    )
    spent, held, extra, cap = amounts
    projected = None
    if end is not None:
        passed = max((at - start).total_seconds(), 1.0)
        units = round(window.spent * (end - start).total_seconds() / passed)
        projected = max(spent, shown(budget.metric, units))
    return Burn(
        budget,
        start if end else None,
        end,
        spent,
        held,
        extra,
        cap,
        _soft(budget, window.cap),
        projected,
    )


def _soft(budget: Budget, cap: int) -> Decimal:
    return shown(budget.metric, cap) * budget.soft_percent / 100


def binding(
    *, project: Project, person: User, run: Run | None = None, token_id: int | None = None
) -> list[Burn]:
    """The budgets in force that bind requests of these, the tightest first; a new run's policies (`each_run`) among them."""
    of = (
        Q(scope=Scope.INSTALLATION)
        | Q(scope=Scope.PROJECT, project=project)
        | Q(scope=Scope.PERSON, person=person)
    )
    if run is not None:
        of |= Q(scope=Scope.RUN, run=run)
    if token_id is not None:
        of |= Q(scope=Scope.TOKEN, token_id=token_id)
    rows = budgets().filter(of, enabled=True)
    if run is not None:
        rows = rows.exclude(window=Window.EACH_RUN)
    return _tightest_first(burn(row) for row in rows)


def _tightest_first(burns: Iterable[Burn]) -> list[Burn]:
    return sorted(burns, key=lambda one: one.left / one.cap if one.cap else Decimal(0))


def incidents(state: str = "") -> QuerySet[Incident]:
    """Incidents, newest first; with a state those alone."""
    rows = Incident.objects.select_related(
        "budget__project", "budget__person", "budget__token", "budget__run", "window", "resolved_by",
        "run__project",
    )  # fmt: skip
    return rows.filter(state=state) if state else rows


def open_incidents() -> QuerySet[Incident]:
    """Incidents that wait for a manager, newest first."""
    return incidents(IncidentState.OPEN)


def incident(key: str) -> Incident | None:
    """The incident of this key."""
    return incidents().filter(key=key).first()
