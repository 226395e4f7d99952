from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random

import pytest

from devaipod_web.budgets.spend import month

NOON = datetime(2026, 11, 16, 12, tzinfo=UTC)


def days(now: datetime, costs: list[float]) -> dict[str, Decimal]:
    """Costs of the days before now, the last one of yesterday."""
    return {
        (now.date() - timedelta(days=len(costs) - place)).isoformat(): Decimal(str(cost))
        for place, cost in enumerate(costs)
    }


def test_an_even_pace_ends_where_it_leads_and_is_as_good_as_certain():
    per_day = {**days(NOON, [10] * 40), "2026-11-16": Decimal(5)}
    found = month.project(per_day, NOON, Decimal(301))
    assert [found.spent, found.projected, found.low, found.high] == [155, 300, 300, 300]
    assert found.likely_under == 1.0
    assert found.note == "over 99 % likely under"
    assert month.project(per_day, NOON, Decimal(299)).likely_under == 0.0


def test_the_more_days_differ_the_wider_the_range_and_the_less_is_certain():
    calm = month.project(days(NOON, [9, 11] * 20), NOON, Decimal(400))
    wild = month.project(days(NOON, [1, 19] * 20), NOON, Decimal(400))
    assert wild.high - wild.low > calm.high - calm.low > 0
    assert 0.5 < wild.likely_under < calm.likely_under


def test_nothing_is_said_on_the_first_day_and_no_likelihood_in_the_first_week():
    first = datetime(2026, 11, 1, 3, tzinfo=UTC)
    found = month.project({"2026-11-01": Decimal(4)}, first, Decimal(100))
    assert [found.spent, found.projected, found.likely_under] == [4, None, None]
    young = month.project(days(NOON, [3] * 6), NOON, Decimal(100))
    assert young.projected is not None
    assert (young.low, young.likely_under) == (None, None)
    assert "7 full days" in young.note


def test_what_is_spent_is_never_unspent():
    found = month.project(days(NOON, [1.0] + [0.0] * 24 + [500.0, 0.0, 0.0]), NOON, Decimal(400))
    assert found.low == found.spent == 500
    assert found.likely_under == 0.0
    assert month.project({}, NOON, None).projected == 0


@pytest.mark.parametrize("now", [NOON, datetime(2026, 11, 24, 6, tzinfo=UTC)])
def test_four_of_five_months_of_random_days_end_in_the_range(now):
    """The promise of the help text, on days drawn from one distribution."""
    chance = Random(11)
    inside, trials = 0, 400
    begin = datetime(2026, 10, 1, tzinfo=UTC).date()
    for _ in range(trials):
        costs = {
            (begin + timedelta(days=n)).isoformat(): Decimal(
                str(round(chance.gammavariate(4, 3), 2))
            )
            for n in range(61)
        }
        until_now = {day: cost for day, cost in costs.items() if day < now.date().isoformat()}
        today = now.date().isoformat()
        until_now[today] = costs[today] * now.hour / 24
        found = month.project(until_now, now, None)
        end = sum(cost for day, cost in costs.items() if day >= "2026-11-01")
        inside += found.low <= end <= found.high
    assert 0.7 < inside / trials < 0.9
