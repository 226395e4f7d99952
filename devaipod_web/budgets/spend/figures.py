"""The figures beside the drawing: what the range comes to against the time before, the month, what changes cost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from devaipod_web.budgets.models import Budget, Metric, Scope, Window
from devaipod_web.budgets.spend import changes, month
from devaipod_web.budgets.spend.changes import Changes
from devaipod_web.budgets.spend.month import Month
from devaipod_web.budgets.spend.ranges import Range
from devaipod_web.llm import reports
from devaipod_web.projects.models import Project


@dataclass(frozen=True)
class Figures:
    """US dollars. `before` is the spend of the time that the range is compared with, `before_words` names that time."""

    spent: Decimal
    before: Decimal
    before_words: str
    month: Month
    changes: Changes
    rejected: Decimal

    @property
    def change(self) -> str:
        """The spend against the time before: `+12 % on October to date`."""
        if not self.before:
            return f"nothing in {self.before_words}" if self.spent else "nothing yet"
        percent = round((self.spent - self.before) / self.before * 100)
        if percent > 999:
            return f"{self.spent / self.before:,.0f} times {self.before_words}"
        sign = "+" if percent > 0 else "−" if percent < 0 else "±"
        return f"{sign}{abs(percent)} % on {self.before_words}"

    @property
    def rejected_share(self) -> str:
        """Which part of the spend went into changes that stand rejected."""
        if not self.spent:
            return "of nothing"
        share = self.rejected / self.spent * 100
        if 0 < share < 1:
            return "under 1 % of all"
        return f"{round(share)} % of all"

    @property
    def per_change(self) -> Decimal | None:
        """All spend of the range over its promoted changes; None without any."""
        return self.spent / self.changes.promoted if self.changes.promoted else None


def figures(
    range_: Range, now: datetime, project: Project | None, *, spent: Decimal | None = None
) -> Figures:
    """The figures of a range, of one project or of all. `spent` is what the range cost, where that is known already."""
    return of_time(range_.start, range_.end, range_.before(now), now, project, spent=spent)


def of_time(
    start: datetime,
    end: datetime,
    before: tuple[datetime, datetime, str],
    now: datetime,
    project: Project | None,
    *,
    spent: Decimal | None = None,
) -> Figures:
    """The same of any time, compared with `before` (from, until, in words)."""
    before_start, before_end, words = before
    return Figures(
        spent=cost(start, end, project) if spent is None else spent,
        before=cost(before_start, before_end, project),
        before_words=words,
        month=this_month(now, project),
        changes=changes.promoted(start, end, project),
        rejected=changes.rejected_cost(start, end, project),
    )


def cost(start: datetime, end: datetime, project: Project | None) -> Decimal:
    """What the calls from `start` to before `end` cost."""
    found = reports.calls(since=start, until=end)
    return reports.cost(found if project is None else reports.of_project(found, project))


def this_month(now: datetime, project: Project | None) -> Month:
    """The present month, against the monthly budget in US dollars of the project, or of the installation."""
    found = reports.calls(since=month.history_start(now))
    if project is not None:
        found = reports.of_project(found, project)
    return month.project(reports.costs_per_day(found), now, _limit(project))


def _limit(project: Project | None) -> Decimal | None:
    budget = Budget.objects.filter(
        scope=Scope.INSTALLATION if project is None else Scope.PROJECT,
        project=project,
        metric=Metric.USD,
        window=Window.MONTH,
        enabled=True,
        removed_at=None,
    ).first()
    return None if budget is None else budget.limit_shown
