"""Sums and periods that the database works out: money to the last digit, time in UTC.

SQLite adds decimals as floating-point numbers, and Django's own `TruncDay` calls Python for each row of it. Both are said here
in the database's own words instead.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from django.db import connection
from django.db.models import BigIntegerField, CharField, Func, Sum

from devaipod_web.budgets.money import usd

#: Length of a period → (its start as text on SQLite, as a pattern of `to_char` on PostgreSQL).
PERIODS = {
    "hour": ("SUBSTR(%(expressions)s, 1, 13)", "YYYY-MM-DD HH24"),
    "day": ("SUBSTR(%(expressions)s, 1, 10)", "YYYY-MM-DD"),
    # A week is named by its Monday.
    "week": ("DATE(%(expressions)s, 'weekday 0', '-6 days')", "YYYY-MM-DD"),
    "month": ("SUBSTR(%(expressions)s, 1, 7)", "YYYY-MM"),
}


class Period(Func):
    """The hour, day, week or month (UTC) in which a moment lies, as text: `2026-11-24 20`, `2026-11-24`, `2026-11`."""

    output_field = CharField()

    def __init__(self, moment: str, per: str) -> None:
        super().__init__(moment)
        self._per = per

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> tuple[str, Any]:
        """SQLite keeps moments as text in UTC."""
        return super().as_sql(compiler, connection, template=PERIODS[self._per][0])

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> tuple[str, Any]:
        """PostgreSQL has to be told the zone, whatever that of the session is."""
        template = (
            f"TO_CHAR(DATE_TRUNC('{self._per}', %(expressions)s AT TIME ZONE 'UTC'), "
            f"'{PERIODS[self._per][1]}')"
        )
        return super().as_sql(compiler, connection, template=template)


def start_of(period: str) -> datetime:
    """When a period that `Period` named begins."""
    if len(period) == 13:
        return datetime.strptime(period, "%Y-%m-%d %H").replace(tzinfo=UTC)
    if len(period) == 7:
        period += "-01"
    found = date.fromisoformat(period)
    return datetime(found.year, found.month, found.day, tzinfo=UTC)


def money_sums(column: str, name: str) -> dict[str, Any]:
    """Annotations from which `money_of` makes the exact sum of a column of US dollars (12 places)."""
    if connection.vendor != "sqlite":
        return {name: Sum(column)}
    return {name: Sum(_part(column, _WHOLE)), f"{name}_rest": Sum(_part(column, _REST))}


def money_of(row: dict[str, Any], name: str) -> Decimal:
    """The exact sum of a row with the annotations of `money_sums`; 0 where there was nothing to add."""
    if f"{name}_rest" not in row:
        return row[name] or Decimal(0)
    return Decimal(row[name] or 0) + usd(row[f"{name}_rest"] or 0)


# Whole dollars and the pico above them, each an integer: together they are exact for calls up to 4,500 dollars each, since a
# double holds such a cost to less than half a pico.
_WHOLE = "CAST(%(expressions)s AS INTEGER)"
_REST = f"CAST(ROUND((%(expressions)s - {_WHOLE}) * 1e12) AS INTEGER)"


def _part(column: str, template: str) -> Func:
    return Func(column, template=template, output_field=BigIntegerField())
