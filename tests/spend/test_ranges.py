from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devaipod_web.budgets.spend.ranges import BadRange, Range, chosen, preset

TODAY = date(2026, 11, 23)
NOW = datetime(2026, 11, 23, 15, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "first", "last", "label"),
    [
        ({}, "2026-11-01", "2026-11-23", "1 – 23 November 2026"),
        ({"range": "last-month"}, "2026-10-01", "2026-10-31", "1 – 31 October 2026"),
        ({"range": "7d"}, "2026-11-17", "2026-11-23", "17 – 23 November 2026"),
        ({"range": "30d"}, "2026-10-25", "2026-11-23", "25 October – 23 November 2026"),
        ({"range": "fortnight"}, "2026-11-01", "2026-11-23", "1 – 23 November 2026"),
        ({"from": "2025-12-24", "to": "2026-01-02"}, "2025-12-24", "2026-01-02", "24 Dec 2025 – 2 Jan 2026"),
        ({"from": "2026-11-05", "to": "2026-11-05"}, "2026-11-05", "2026-11-05", "5 November 2026"),
        ({"from": "2026-11-05"}, "2026-11-05", "2026-11-23", "5 – 23 November 2026"),
    ],
)  # fmt: skip
def test_an_address_names_a_range(given, first, last, label):
    found = chosen(given, TODAY)
    assert (found.first.isoformat(), found.last.isoformat(), found.label) == (first, last, label)
    assert chosen(found.query, TODAY) == found


@pytest.mark.parametrize(
    "given",
    [
        {"from": "yesterday"},
        {"from": "2026-11-31"},
        {"from": "2026-11-05", "to": "2026-11-04"},
        {"from": "0001-01-01", "to": "2026-01-01"},
        {"from": "1990-01-01", "to": "2026-01-01"},
        {"to": "9999-12-31"},
    ],
)
def test_what_is_no_range_is_refused_with_a_sentence(given):
    with pytest.raises(BadRange, match=r"\.$"):
        chosen(given, TODAY)


@pytest.mark.parametrize(
    ("name", "start", "end", "words"),
    [
        ("month", "2026-10-01T00:00", "2026-10-23T15:30", "October to date"),
        ("last-month", "2026-09-01T00:00", "2026-10-01T00:00", "September"),
        ("7d", "2026-11-10T00:00", "2026-11-16T15:30", "the 7 days before"),
    ],
)
def test_a_range_is_compared_with_as_much_of_the_time_before(name, start, end, words):
    found = preset(name, TODAY).before(NOW)
    assert (found[0].isoformat()[:16], found[1].isoformat()[:16], found[2]) == (start, end, words)


def test_a_long_month_is_compared_with_the_whole_short_one_before():
    at = datetime(2026, 3, 31, 12, tzinfo=UTC)
    start, end, _ = preset("month", at.date()).before(at)
    assert (start.date(), end) == (date(2026, 2, 1), datetime(2026, 3, 1, tzinfo=UTC))


@given(first=st.dates(date(2020, 1, 1), date(2026, 11, 23)), days=st.integers(1, 1500))
def test_every_moment_of_a_range_lies_in_one_of_its_periods_and_none_is_drawn_after_now(
    first, days
):
    found = Range(first, min(first + timedelta(days=days - 1), TODAY))
    periods = found.periods(NOW)
    assert periods == sorted(set(periods))
    assert 1 <= len(periods) <= 64
    last = min(found.end, NOW)
    assert periods[-1][:10] <= last.isoformat()[:10]
    assert periods[0] <= first.isoformat() + " 00"
