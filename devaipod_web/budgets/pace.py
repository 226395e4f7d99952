"""How budgets stand, as pages show it: a bar, a mark where an even pace would be, and words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Case, Q, QuerySet, Value, When
from django.utils import timezone

from devaipod_web.accounts.models import User
from devaipod_web.budgets import queries
from devaipod_web.budgets.models import (
    Budget,
    Incident,
    Level,
    Metric,
    Scope,
    Window,
    shown,
    units,
)
from devaipod_web.budgets.queries import Burn
from devaipod_web.projects.models import Project
from devaipod_web.runs.models import Run
from devaipod_web.templatetags.show import budget_amount, once_more, plain_amount

_WINDOWS = {
    Window.DAY: "a day",
    Window.MONTH: "a month",
    Window.TOTAL: "in all",
    Window.EACH_RUN: "each run",
}
#: Before this part of a window has passed, its pace says nothing.
EARLY = 0.04
BAR = 100


@dataclass(frozen=True)
class Pace:
    """One budget as a bar. Lengths are parts of BAR."""

    burn: Burn
    at: datetime

    @property
    def budget(self) -> Budget:
        """The budget."""
        return self.burn.budget

    @property
    def name(self) -> str:
        """Whose budget over which time: `Payments, a month`."""
        return f"{whose(self.budget)}, {_WINDOWS[Window(self.budget.window)]}"

    @property
    def metric(self) -> str:
        """What it counts, inside of a sentence."""
        metric = Metric(self.budget.metric)
        return str(metric.label) if metric == Metric.USD else str(metric.value)

    @property
    def is_policy(self) -> bool:
        """Whether it is what every new run may spend, and has no bar of its own."""
        return self.budget.window == Window.EACH_RUN

    @property
    def share(self) -> float:
        """Part of the limit that is spent; 1 and more when it is used up."""
        if not self.burn.cap:
            return 1.0
        return float(self.burn.spent / self.burn.cap)

    @property
    def bar(self) -> str:
        """Length of the bar."""
        return f"{min(self.share, 1) * BAR:.2f}"

    @property
    def mark(self) -> str:
        """Where the bar would be at an even pace; empty for a window without an end."""
        passed = self._passed
        return f"{passed * BAR:.2f}" if passed is not None else ""

    @property
    def _passed(self) -> float | None:
        if self.burn.start is None or self.burn.end is None:
            return None
        whole = (self.burn.end - self.burn.start).total_seconds()
        return min((self.at - self.burn.start).total_seconds() / whole, 1.0)

    @property
    def amounts(self) -> str:
        """What is spent of what: `$412.60 / $600.00`."""
        metric = self.budget.metric
        if metric == Metric.USD:
            return (
                f"{budget_amount(self.burn.spent, metric)} / {budget_amount(self.burn.cap, metric)}"
            )
        return f"{budget_amount(self.burn.spent, '')} / {budget_amount(self.burn.cap, metric)}"

    @property
    def limit(self) -> str:
        """The limit alone."""
        return budget_amount(self.burn.cap, self.budget.metric)

    @property
    def left(self) -> str:
        """What is left."""
        return budget_amount(self.burn.left, self.budget.metric)

    @property
    def runs_out(self) -> datetime | None:
        """When it is used up at the pace since the window's start; None when it lasts, or nothing can be said."""
        if self.burn.start is None or not self.burn.over_projected or self._is_early:
            return None
        if not self.burn.spent or self.share >= 1:
            return None
        passed = (self.at - self.burn.start).total_seconds()
        return self.burn.start + timedelta(seconds=passed / self.share)

    @property
    def _is_early(self) -> bool:
        return (self._passed or 0) < EARLY

    @property
    def tone(self) -> str:
        """Red when it is used up, amber when it is nearly or would be, else none."""
        if self.is_policy or not self.budget.enabled:
            return ""
        if self.share >= 1:
            return "red"
        return "amber" if self.burn.over_soft or self.runs_out is not None else ""

    @property
    def words(self) -> str:
        """How it goes, in words."""
        if not self.budget.enabled:
            return "disabled: it does not bind"
        if self.is_policy:
            return "what every new run may spend"
        if self.share >= 1:
            return "used up"
        out = self.runs_out
        if out is not None:
            return f"would end {_on(out, self.budget.window)}{self._at_end}"
        soft = f"over {self.budget.soft_percent} %" if self.burn.over_soft else ""
        if self._passed is None:
            return soft
        if self._is_early:
            return soft or "just begun"
        return f"{soft + ', ' if soft else ''}on pace{self._at_end}"

    @property
    def _at_end(self) -> str:
        if self.burn.projected is None:
            return ""
        end = "midnight" if self.budget.window == Window.DAY else "the month's end"
        return f", {budget_amount(self.burn.projected, self.budget.metric)} by {end}"


def _on(at: datetime, window: str) -> str:
    return f"at {at:%H:%M} UTC" if window == Window.DAY else f"on the {_ordinal(at.day)}"


def _ordinal(day: int) -> str:
    suffix = "th" if 11 <= day <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return f"{day}{suffix}"


def whose(budget: Budget) -> str:
    """Whose requests a budget counts, as a heading."""
    if budget.project is not None:
        return budget.project.name
    if budget.person is not None:
        return str(budget.person)
    if budget.token is not None:
        return f"{budget.token.name} token"
    return budget.run.title if budget.run is not None else "All projects"


def pace(budget: Budget, at: datetime | None = None) -> Pace:
    """A budget of `queries.budgets()` as pages show it."""
    at = at or timezone.now()
    return Pace(queries.burn(budget, at), at)


def standing(project: Project | None = None) -> QuerySet[Budget]:
    """The budgets that stand by themselves: not those that every run has. With a project those that bind it."""
    rows = queries.budgets().exclude(scope=Scope.RUN)
    if project is not None:
        rows = rows.filter(Q(scope=Scope.INSTALLATION) | Q(project=project))
    order = Case(*(When(scope=scope, then=Value(place)) for place, scope in enumerate(Scope)))
    return rows.order_by(order, "project__name", "person__username", "token__name", "metric", "pk")


def paces(project: Project | None = None, *, enabled_only: bool = False) -> list[Pace]:
    """How all of these stand now."""
    at = timezone.now()
    rows = standing(project)
    if enabled_only:
        rows = rows.filter(enabled=True)
    return [pace(row, at) for row in rows]


def of_person(person: User) -> list[Pace]:
    """How the budgets of a person and of their API tokens stand."""
    at = timezone.now()
    rows = queries.budgets().filter(Q(person=person) | Q(token__user=person))
    return [pace(row, at) for row in rows.order_by("scope", "pk")]


def left_for(project: Project, person: User, run: Run | None = None) -> list[Pace]:
    """What binds a run, or a new one of this project and person, the tightest first.

    Where no policy says what a new run may spend by itself, the installation's setting does: it stands first, as a budget that no row has.
    """
    at = timezone.now()
    found = [Pace(burn, at) for burn in queries.binding(project=project, person=person, run=run)]
    if run is not None:
        return found
    policies = [one for one in found if one.is_policy]
    # A project's policy replaces the installation's of the same metric.
    replaced = {one.budget.metric for one in policies if one.budget.scope == Scope.PROJECT}
    found = [
        one
        for one in found
        if not one.is_policy
        or one.budget.scope == Scope.PROJECT
        or one.budget.metric not in replaced
    ]
    found += defaults({one.budget.metric for one in policies}, at)
    return sorted(
        found,
        key=lambda one: (not one.is_policy, one.is_policy and one.budget.metric != Metric.USD),
    )


def defaults(but: set[str], at: datetime) -> list[Pace]:
    """What every new run may spend by the settings, in metrics for which no policy stands."""
    limits = {
        Metric.USD: units(Metric.USD, settings.RUN_BUDGET_USD),
        Metric.REQUESTS: settings.RUN_REQUESTS,
    }
    return [
        Pace(
            queries.burn(
                Budget(scope=Scope.INSTALLATION, metric=metric, window=Window.EACH_RUN, limit=limit)
            ),
            at,
        )
        for metric, limit in limits.items()
        if limit and metric not in but
    ]


def reached(runs: QuerySet[Run], metric: str) -> int:
    """How many of these runs came to the limit that they had by themselves in this metric."""
    return (
        Incident.objects.filter(
            level=Level.HARD, budget__scope=Scope.RUN, budget__metric=metric, run__in=runs
        )
        .values("run")
        .distinct()
        .count()
    )


def suggestion(incident: Incident) -> tuple[str, str]:
    """What a manager may well type: (a new limit twice the present one, once more half of it), in the metric's words."""
    budget = incident.budget
    twice = shown(budget.metric, max(budget.limit * 2, 1))
    return plain_amount(twice), once_more(budget)
