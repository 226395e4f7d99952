from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from devaipod_web.budgets import pace, queries
from devaipod_web.budgets.models import BudgetWindow, Metric, Scope, Window
from devaipod_web.budgets.money import PICO
from devaipod_web.budgets.windows import bounds
from tests.budgets.conftest import budget

pytestmark = pytest.mark.django_db
#: The 23rd of November, noon: 22.5 of 30 days have passed.
AT = datetime(2026, 11, 23, 12, tzinfo=UTC)


def stands(limit: str, spent: float, *, at: datetime = AT, **given: Any) -> pace.Pace:
    given.setdefault("window", Window.MONTH)
    row = budget(limit, **given)
    start, end = bounds(str(given["window"]), at)
    size = PICO if given.get("metric", Metric.USD) == Metric.USD else 1
    BudgetWindow.objects.create(
        budget=row, start=start, end=end, limit=row.limit, spent=int(spent * size)
    )
    return pace.pace(queries.budgets(at).get(pk=row.pk), at)


@pytest.mark.parametrize(
    ("limit", "spent", "words", "tone"),
    [
        ("600", 412.6, "on pace, $550.13 by the month's end", ""),
        ("220", 198.11, "would end on the 25th, $264.15 by the month's end", "amber"),
        ("220", 177, "would end on the 28th, $236.00 by the month's end", "amber"),
        ("1000", 740, "on pace, $986.67 by the month's end", ""),
        ("220", 220, "used up", "red"),
        ("220", 221, "used up", "red"),
        ("0", 0, "used up", "red"),
        ("600", 0, "on pace, $0.00 by the month's end", ""),
    ],
)
def test_a_month_goes_on_as_it_has_begun(limit, spent, words, tone):
    found = stands(limit, spent)
    assert (found.words, found.tone) == (words, tone)
    assert found.mark == "75.00"


def test_what_is_nearly_used_up_says_so_though_it_lasts():
    found = stands("100", 90, at=datetime(2026, 11, 29, 12, tzinfo=UTC))
    assert found.words == "over 80 %, on pace, $94.74 by the month's end"
    assert found.tone == "amber"


def test_a_window_that_has_just_begun_has_no_pace():
    found = stands("100", 9, at=datetime(2026, 11, 1, 6, tzinfo=UTC))
    assert (found.words, found.tone, found.runs_out) == ("just begun", "", None)


def test_a_day_ends_at_an_hour_and_tokens_are_counted_in_short():
    found = stands(
        "5000000", 4_000_000, window=Window.DAY, metric=Metric.TOKENS, scope=Scope.INSTALLATION
    )
    assert found.amounts == "4 M / 5 M tokens"
    assert found.words == "would end at 15:00 UTC, 8 M tokens by midnight"


def test_what_never_ends_has_no_mark_and_a_disabled_one_no_tone():
    found = stands("100", 50, window=Window.TOTAL)
    assert (found.mark, found.words, found.bar) == ("", "", "50.00")
    found.budget.enabled = False
    assert (found.words, found.tone) == ("disabled: it does not bind", "")
