"""Ranges of days (UTC): from an address, in words, and the periods in which they are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

DAY = timedelta(days=1)
#: (word in the address, label)
PRESETS = (
    ("month", "This month"),
    ("last-month", "Last month"),
    ("7d", "Last 7 days"),
    ("30d", "Last 30 days"),
    ("90d", "Last 90 days"),
)
MAX_DAYS = 3660
#: Up to so many days a range is drawn by the hour, the day, the week; longer ones by the month.
HOURS_DAYS, DAYS_DAYS, WEEKS_DAYS = 1, 62, 400


class BadRange(ValueError):
    """Dates that are no range. Says a sentence."""


@dataclass(frozen=True)
class Range:
    """Days from `first` to `last`, both included. `name` is a word of PRESETS, or empty for days that somebody chose."""

    first: date
    last: date
    name: str = ""

    @property
    def start(self) -> datetime:
        """The first moment."""
        return midnight(self.first)

    @property
    def end(self) -> datetime:
        """The first moment after it."""
        return midnight(self.last + DAY)

    @property
    def days(self) -> int:
        """How many days."""
        return (self.last - self.first).days + 1

    @property
    def per(self) -> str:
        """In which periods it is drawn: hour, day, week or month."""
        if self.days <= HOURS_DAYS:
            return "hour"
        if self.days <= DAYS_DAYS:
            return "day"
        return "week" if self.days <= WEEKS_DAYS else "month"

    @property
    def label(self) -> str:
        """The days in words: `1 – 23 November 2026`."""
        first, last = self.first, self.last
        if first == last:
            return f"{last.day} {last:%B %Y}"
        if (first.year, first.month) == (last.year, last.month):
            return f"{first.day} – {last.day} {last:%B %Y}"
        if first.year == last.year:
            return f"{first.day} {first:%B} – {last.day} {last:%B %Y}"
        return f"{first.day} {first:%b %Y} – {last.day} {last:%b %Y}"

    @property
    def title(self) -> str:
        """What its spend is called: the name of the range, or its days."""
        return dict(PRESETS).get(self.name, self.label)

    @property
    def query(self) -> dict[str, str]:
        """The same range as parameters of an address."""
        if self.name:
            return {"range": self.name}
        return {"from": self.first.isoformat(), "to": self.last.isoformat()}

    def before(self, now: datetime) -> tuple[datetime, datetime, str]:
        """What it is compared with, and in words: the same part of the month before, or as many days before.

        A range that goes on until now is compared with a time as long as it has lasted.
        """
        until_now = min(self.end, now) - self.start
        if self.name in ("month", "last-month"):
            start = midnight((self.first - DAY).replace(day=1))
            whole = self.start - start
            if self.name == "last-month":
                return start, self.start, f"{start:%B}"
            return start, start + min(until_now, whole), f"{start:%B} to date"
        length = timedelta(days=self.days)
        start = self.start - length
        words = "the day before" if self.days == 1 else f"the {self.days} days before"
        return start, start + max(min(until_now, length), timedelta(0)), words

    def periods(self, now: datetime) -> list[str]:
        """The names of its periods as `llm.exact.Period` has them, in their order; none after now."""
        last = min(self.last, now.date())
        if self.per == "hour":
            hours = now.hour + 1 if self.first == now.date() else 24
            return [f"{self.first.isoformat()} {hour:02d}" for hour in range(hours)]
        found: dict[str, None] = {}
        day = self.first
        while day <= last:
            found[_period(day, self.per)] = None
            day += DAY
        return list(found)


def _period(day: date, per: str) -> str:
    if per == "month":
        return day.isoformat()[:7]
    if per == "week":
        return (day - timedelta(days=day.weekday())).isoformat()
    return day.isoformat()


def midnight(day: date) -> datetime:
    """The beginning of a day, UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def preset(name: str, today: date) -> Range:
    """A range of PRESETS as of today; any other word is this month."""
    if name == "last-month":
        last = today.replace(day=1) - DAY
        return Range(last.replace(day=1), last, name)
    if name in ("7d", "30d", "90d"):
        return Range(today - timedelta(days=int(name[:-1]) - 1), today, name)
    return Range(today.replace(day=1), today, "month")


def chosen(given: Mapping[str, str], today: date) -> Range:
    """The range that an address names: `from` and `to`, else `range`, else this month. Raises BadRange."""
    first, last = given.get("from", "").strip(), given.get("to", "").strip()
    if not first and not last:
        return preset(given.get("range", "month"), today)
    end = _day(last, "to") if last else today
    begin = _day(first, "from") if first else end.replace(day=1)
    if begin > end:
        raise BadRange("The range ends before it begins.")
    if (end - begin).days >= MAX_DAYS:
        raise BadRange(f"A range has at most {MAX_DAYS:,} days.")
    return Range(begin, end)


def _day(text: str, name: str) -> date:
    try:
        found = date.fromisoformat(text)
    except ValueError:
        raise BadRange(f"“{text[:20]}” ({name}) is no date: 2026-11-24 is one.") from None
    if not 1971 <= found.year <= 9998:
        raise BadRange(f"“{text[:20]}” ({name}) is no date of calls to models.")
    return found
