"""The spend of a range, stacked: its series, its columns, and what stands beside them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.db.models import QuerySet

from devaipod_web.accounts.models import User
from devaipod_web.budgets.spend.ranges import Range
from devaipod_web.llm import reports
from devaipod_web.llm.exact import start_of
from devaipod_web.llm.models import LlmCall
from devaipod_web.llm.reports import Sums
from devaipod_web.projects.models import Project
from pods.agents import PROFILES

#: What spend is stacked by: word in the address → (word of `reports.GROUPS`, label).
STACKS = {
    "project": ("project", "project"),
    "agent": ("agent", "agent"),
    "model": ("model", "model"),
    "person": ("owner", "person"),
}
#: Series that have a colour of their own; the rest are drawn together.
SERIES = 6


@dataclass(frozen=True)
class Series:
    """One colour of the drawing: its label and what it comes to. `number` counts from 1; 0 is for the others together."""

    number: int
    label: str
    total: Sums


@dataclass(frozen=True)
class Column:
    """One period: when it begins, what each series cost in it (in the order of the series), and all of it."""

    period: str
    start: datetime
    costs: list[Decimal]
    total: Sums


@dataclass(frozen=True)
class Stacked:
    """The spend of a range. Series stand in their order from the bottom: the dearest first, others last."""

    range: Range
    by: str
    series: list[Series]
    columns: list[Column]
    total: Sums

    @property
    def peak(self) -> Decimal:
        """What the dearest period cost."""
        return max((column.total.cost for column in self.columns), default=Decimal(0))


def stacked(
    found: QuerySet[LlmCall], range_: Range, by: str, now: datetime
) -> tuple[Stacked, list[Sums]]:
    """The calls of a range (already filtered to it) by a word of STACKS, and the rows that it was made of."""
    rows = reports.series(found, STACKS[by][0], range_.per)
    return stack(rows, range_, by, now), rows


def stack(rows: list[Sums], range_: Range, by: str, now: datetime) -> Stacked:
    """Put the sums of groups and periods into series and columns."""
    of_group: dict[str, list[Sums]] = defaultdict(list)
    of_period: dict[str, list[Sums]] = defaultdict(list)
    for row in rows:
        of_group[row.group].append(row)
        of_period[row.period].append(row)
    totals = {group: reports.added(found) for group, found in of_group.items()}
    order = sorted(totals, key=lambda group: (-totals[group].cost, -totals[group].calls, group))
    own = order[:SERIES]
    words = labels(by, own)
    series = [Series(place, words[group], totals[group]) for place, group in enumerate(own, 1)]
    rest = order[len(own) :]
    if rest:
        label = f"{len(rest)} others" if len(rest) > 1 else "1 other"
        series.append(Series(0, label, reports.added(totals[group] for group in rest)))
    place_of = {group: place for place, group in enumerate(own)}
    # A call dated after now (a clock that was set back) has a column of its own all the same.
    periods = sorted({*range_.periods(now), *of_period})
    columns = [_column(period, of_period[period], place_of, len(series)) for period in periods]
    return Stacked(range_, by, series, columns, reports.added(rows))


def _column(period: str, rows: list[Sums], place_of: dict[str, int], width: int) -> Column:
    costs = [Decimal(0)] * width
    for row in rows:
        costs[place_of.get(row.group, width - 1)] += row.cost
    return Column(period, start_of(period), costs, reports.added(rows))


def labels(by: str, groups: list[str]) -> dict[str, str]:
    """What people call these groups."""
    unknown = {"agent": "of deleted runs", "model": "not known"}.get(by, f"no {by}")
    found = {group: group or unknown for group in groups}
    ids = [int(group) for group in groups if group] if by in ("project", "person") else []
    if by == "project":
        rows = Project.objects.filter(pk__in=ids)
        found.update((str(row.pk), row.name) for row in rows)
    elif by == "person":
        found.update((str(row.pk), str(row)) for row in User.objects.filter(pk__in=ids))
    elif by == "agent":
        found.update((key, PROFILES[key].title) for key in groups if key in PROFILES)
    return found
