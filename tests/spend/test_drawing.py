from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devaipod_web.budgets.spend import drawing
from devaipod_web.budgets.spend.ranges import Range
from devaipod_web.budgets.spend.report import Column, Series, Stacked
from devaipod_web.llm import reports

COSTS = st.decimals(0, 10**9, places=12)


def stacked(rows: list[list[Decimal]]) -> Stacked:
    total = reports.added([])
    columns = [
        Column(
            f"2026-11-{day:02d}",
            datetime(2026, 11, day, tzinfo=UTC),
            costs,
            replace(total, cost=sum(costs, Decimal(0)), calls=1),
        )
        for day, costs in enumerate(rows, 1)
    ]
    series = [Series(number + 1, f"s{number}", total) for number in range(len(rows[0]))]
    whole = replace(total, cost=sum((c.total.cost for c in columns), Decimal(0)))
    return Stacked(
        Range(date(2026, 11, 1), date(2026, 11, len(rows))), "project", series, columns, whole
    )


@given(st.lists(st.lists(COSTS, min_size=3, max_size=3), min_size=1, max_size=28))
def test_parts_stand_on_each_other_inside_of_the_drawing(rows):
    found = drawing.draw(stacked(rows))
    for bar, costs in zip(found.bars, rows, strict=True):
        assert len(bar.parts) == sum(1 for cost in costs if cost)
        floor = float(found.bottom)
        for part in bar.parts:
            y, height = float(part.y), float(part.height)
            assert y + height == pytest.approx(floor, abs=0.02)
            assert height >= 0.98 or y <= found.top + 3
            assert float(part.x) >= found.left - 0.01
            assert float(part.x) + float(part.width) <= found.right + 0.01
            floor = y
        assert floor >= found.top - 4


@given(st.decimals("0.00001", 10**9, places=12))
def test_the_scale_is_short_round_and_reaches_the_peak(peak):
    found = drawing.ticks(peak)
    assert found[0] == 0 and found[-1] >= peak
    assert 2 <= len(found) <= 6
    assert found[-1] <= peak * 3
    labels = [drawing.scale_label(value, found[1]) for value in found]
    assert len(set(labels)) == len(labels)
    assert max(map(len, labels)) <= 16


@pytest.mark.parametrize(
    ("peak", "labels"),
    [
        ("27", ["$0", "$10", "$20", "$30"]),
        ("0.9", ["$0", "$0.25", "$0.50", "$0.75", "$1"]),
        ("0.003", ["$0", "$0.001", "$0.002", "$0.003"]),
        ("6400", ["$0", "$2 k", "$4 k", "$6 k", "$8 k"]),
        ("9000000", ["$0", "$2.5 M", "$5 M", "$7.5 M", "$10 M"]),
        ("0", ["$0", "$1"]),
    ],
)
def test_the_scale_is_labelled_as_people_write_money(peak, labels):
    found = drawing.ticks(Decimal(peak))
    assert [drawing.scale_label(value, found[1]) for value in found] == labels


def test_the_summary_says_what_is_seen():
    text = drawing.draw(stacked([[Decimal(1), Decimal(2)], [Decimal(7), Decimal(0)]])).summary
    assert "Spend per day by project, 1 – 2 November 2026: $10.00 in all." in text
    assert "The most in one day: 2 November 2026 with $7.00." in text
