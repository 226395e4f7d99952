"""The stacked columns as geometry: everything that the template writes into the SVG, worked out. Pure; no database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, Decimal

from devaipod_web.budgets.spend.report import Column, Stacked
from devaipod_web.templatetags.show import money

WIDTH, HEIGHT = 720, 252
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 12, 26
#: Part of a column's room that its bar takes, and how wide a bar is at most.
FILL, WIDEST = 0.8, 44
#: What costs anything is seen, however little.
LEAST_HEIGHT = 1.0
#: Lines of the scale, at most; labels below, at most.
TICKS, X_LABELS = 4, 12


@dataclass(frozen=True)
class Tick:
    """A line of the scale and its label."""

    y: str
    label_y: str
    label: str


@dataclass(frozen=True)
class Part:
    """One series' part of a bar. `number` is the series'."""

    number: int
    x: str
    y: str
    width: str
    height: str


@dataclass(frozen=True)
class Bar:
    """A column: its room (which answers the pointer with `title`), its parts from the bottom, its label below if it has one."""

    x: str
    width: str
    title: str
    parts: list[Part]
    middle: str
    label: str


@dataclass(frozen=True)
class Drawing:
    """A drawing of WIDTH × HEIGHT units."""

    ticks: list[Tick]
    bars: list[Bar]
    summary: str

    width = WIDTH
    height = HEIGHT
    left = LEFT
    right = WIDTH - RIGHT
    top = TOP
    plot_height = HEIGHT - TOP - BOTTOM
    bottom = HEIGHT - BOTTOM
    labels_y = HEIGHT - BOTTOM + 17


def draw(spend: Stacked) -> Drawing:
    """Draw what was spent."""
    scale = ticks(spend.peak)
    top = scale[-1]
    room = (WIDTH - LEFT - RIGHT) / max(len(spend.columns), 1)
    named = _x_labels([column.start for column in spend.columns], spend.range.per)
    bars = [
        _bar(spend, column, LEFT + place * room, room, top, named.get(place, ""))
        for place, column in enumerate(spend.columns)
    ]
    lines = [
        Tick(_number(_y(value, top)), _number(_y(value, top) + 4), scale_label(value, scale[1]))
        for value in scale
    ]
    return Drawing(lines, bars, summary(spend))


def _bar(spend: Stacked, column: Column, x: float, room: float, top: Decimal, label: str) -> Bar:
    width = min(room * FILL, WIDEST)
    left = x + (room - width) / 2
    parts = []
    below = Decimal(0)
    floor = float(HEIGHT - BOTTOM)
    for series, cost in zip(spend.series, column.costs, strict=True):
        if cost <= 0:
            continue
        below += cost
        upper = min(_y(below, top), floor - LEAST_HEIGHT)
        parts.append(
            Part(
                series.number,
                _number(left),
                _number(upper),
                _number(width),
                _number(max(floor - upper, 0)),
            )
        )
        floor = upper
    return Bar(
        _number(x),
        _number(room),
        _title(spend, column),
        parts,
        _number(x + room / 2),
        label,
    )


def _title(spend: Stacked, column: Column) -> str:
    lines = [f"{when(column.start, spend.range.per)}: {money(column.total.cost)}"]
    lines += [
        f"{series.label}: {money(cost)}"
        for series, cost in reversed(list(zip(spend.series, column.costs, strict=True)))
        if cost
    ]
    if column.total.unpriced_calls:
        lines.append(f"{column.total.unpriced_calls:,} calls unpriced")
    return "\n".join(lines)


def _y(value: Decimal, top: Decimal) -> float:
    return HEIGHT - BOTTOM - float(value / top) * (HEIGHT - TOP - BOTTOM)


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def ticks(peak: Decimal) -> list[Decimal]:
    """Round steps from 0 to at or above the peak; two or more, whatever the peak."""
    if peak <= 0:
        return [Decimal(0), Decimal(1)]
    raw = peak / TICKS
    power = Decimal(1).scaleb(raw.adjusted())
    step = next(power * factor for factor in (1, 2, Decimal("2.5"), 5, 10) if power * factor >= raw)
    count = int((peak / step).to_integral_value(rounding=ROUND_CEILING))
    return [step * number for number in range(max(count, 1) + 1)]


def scale_label(value: Decimal, step: Decimal) -> str:
    """A value of the scale, as short as its steps allow: `$0`, `$2.50`, `$0.002`, `$12 k`, `$1.5 M`."""
    for size, unit in ((Decimal(10**6), " M"), (Decimal(10**3), " k")):
        # The steps are what must be told apart.
        if step >= size:
            return f"${(value / size).normalize():f}{unit}" if value else "$0"
    if not value:
        return "$0"
    shown = value.normalize()
    exponent = shown.as_tuple().exponent
    places = max(-exponent, 0) if isinstance(exponent, int) else 0
    # Dollars have cents or none.
    places = 2 if places == 1 else places
    return f"${value:,.{places}f}"


def _x_labels(starts: list[datetime], per: str) -> dict[int, str]:
    """Place → label, as many as there is room for. A label says the larger unit where that changes."""
    if not starts:
        return {}
    if per == "hour":
        return {
            place: f"{start:%H}:00" for place, start in enumerate(starts) if start.hour % 4 == 0
        }
    every = 7 if per == "day" and 7 < len(starts) <= 35 else -(-len(starts) // X_LABELS)
    if per == "day" and len(starts) > 35:
        every = 7
    found = {}
    before: datetime | None = None
    for place in range(0, len(starts), every):
        start = starts[place]
        found[place] = _x_label(start, before, per)
        before = start
    return found


def _x_label(start: datetime, before: datetime | None, per: str) -> str:
    if per == "month":
        is_new = before is None or start.year != before.year
        return f"{start:%b %Y}" if is_new else f"{start:%b}"
    is_new = before is None or start.month != before.month
    return f"{start.day} {start:%b}" if is_new or per == "week" else str(start.day)


def when(start: datetime, per: str) -> str:
    """A period in words."""
    if per == "hour":
        return f"{start.day} {start:%b}, {start:%H}:00 to {start + timedelta(hours=1):%H}:00 UTC"
    if per == "month":
        return f"{start:%B %Y}"
    day = f"{start.day} {start:%B %Y}"
    return f"week from {day}" if per == "week" else day


def summary(spend: Stacked) -> str:
    """The drawing in a sentence or two, for who does not see it."""
    dearest = max(spend.columns, key=lambda column: column.total.cost, default=None)
    text = f"Spend per {spend.range.per} by {spend.by}, {spend.range.label}: {money(spend.total.cost)} in all."
    if dearest is None or not dearest.total.cost:
        return text
    parts = ", ".join(f"{one.label} {money(one.total.cost)}" for one in spend.series)
    return (
        f"{text} The most in one {spend.range.per}: {when(dearest.start, spend.range.per)} with "
        f"{money(dearest.total.cost)}. {parts}."
    )
