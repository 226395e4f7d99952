"""Where a budget's window begins and ends: midnight UTC, the first of a month, or never."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from devaipod_web.budgets.models import Window

#: The start of every window that has none.
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def bounds(window: str, at: datetime) -> tuple[datetime, datetime | None]:
    """Start (included) and end (excluded; None: never) of the window that `at` lies in. Raises ValueError for `each_run`."""
    day = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if window == Window.DAY:
        return day, day + timedelta(days=1)
    if window == Window.MONTH:
        first = day.replace(day=1)
        return first, (first + timedelta(days=32)).replace(day=1)
    if window == Window.TOTAL:
        return EPOCH, None
    raise ValueError(f"{window} has no windows")
