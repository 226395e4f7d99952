"""What the present month comes to, and how likely it stays under its limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from math import erf, sqrt
from statistics import stdev

from devaipod_web.budgets.models import Window
from devaipod_web.budgets.spend.ranges import DAY, midnight
from devaipod_web.budgets.windows import bounds

#: Full days before today from which it is learned how much days differ: four of each weekday.
HISTORY = timedelta(days=28)
#: With fewer full days since the first call nothing is said of likelihood.
LEAST_DAYS = 7
#: Four of five months end inside: the 10th and 90th percentile of the normal distribution.
TEN_PERCENT = 1.2816
SECONDS = 86400

HELP = (
    "Spent so far, and the rest of the month at the pace of this month. How far off that may be comes from how much the last "
    "28 full days differ from each other, taken as independent: four of five months end in the range."
)


@dataclass(frozen=True)
class Month:
    """The present month in US dollars. `projected` and the rest are None while there is too little to say them from."""

    spent: Decimal
    projected: Decimal | None = None
    low: Decimal | None = None
    high: Decimal | None = None
    limit: Decimal | None = None
    #: Probability from 0 to 1 that the month ends at or under the limit.
    likely_under: float | None = None

    @property
    def note(self) -> str:
        """What stands under the projection, but for the limit's figure."""
        if self.projected is None:
            return "from the second day on"
        if self.likely_under is not None:
            return f"{percent(self.likely_under)} likely under"
        if self.low is None:
            return f"no likelihood before {LEAST_DAYS} full days"
        return ""


def history_start(now: datetime) -> datetime:
    """From when on `project` needs the costs of days."""
    return min(bounds(Window.MONTH, now)[0], midnight(now.date()) - HISTORY)


def project(per_day: Mapping[str, Decimal], now: datetime, limit: Decimal | None) -> Month:
    """The month's end from the costs of days (`2026-11-24` → US dollars) since `history_start`.

    The rate is this month's mean; the spread is that of the full days of the last 28 since the first one with spend. The sum of R days
    to come at the mean of the d days that have passed has the variance s²(R + R²/d).
    """
    start, end = bounds(Window.MONTH, now)
    assert end is not None
    spent = sum(
        (cost for day, cost in per_day.items() if day >= start.date().isoformat()), Decimal(0)
    )
    passed = (now - start).total_seconds() / SECONDS
    if passed < 1:
        return Month(spent, limit=limit)
    # As budgets are projected (`queries.burn`), so that no two figures of a page disagree.
    projected = spent * Decimal((end - start).total_seconds()) / Decimal(passed * SECONDS)
    history = full_days(per_day, now)
    if len(history) < LEAST_DAYS:
        return Month(spent, projected, limit=limit)
    rest = (end - now).total_seconds() / SECONDS
    spread = stdev(float(cost) for cost in history) * sqrt(rest + rest * rest / passed)
    either_way = Decimal(spread * TEN_PERCENT)
    return Month(
        spent,
        projected,
        low=max(spent, projected - either_way),
        high=projected + either_way,
        limit=limit,
        likely_under=None if limit is None else _under(limit, spent, projected, spread),
    )


def full_days(per_day: Mapping[str, Decimal], now: datetime) -> list[Decimal]:
    """The costs of the full days of the last 28, from the first one with spend on; days without any count as 0."""
    today = now.date()
    days = [(today - n * DAY).isoformat() for n in range(HISTORY.days, 0, -1)]
    first = next((day for day in days if per_day.get(day)), None)
    return [per_day.get(day, Decimal(0)) for day in days if first is not None and day >= first]


def _under(limit: Decimal, spent: Decimal, projected: Decimal, spread: float) -> float:
    if spent > limit:
        return 0.0
    if spread == 0:
        return 1.0 if projected <= limit else 0.0
    return 0.5 * (1 + erf(float(limit - projected) / spread / sqrt(2)))


def percent(share: float) -> str:
    """A probability in words; never certain."""
    if share > 0.99:
        return "over 99 %"
    if share < 0.01:
        return "under 1 %"
    return f"{round(share * 100)} %"
