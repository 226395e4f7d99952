"""How values are shown to a person; built into every template."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from django import template
from django.forms import BoundField
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from devaipod_web.budgets.models import Budget, shown
from devaipod_web.runs import markdown, tools
from devaipod_web.runs.models import Run
from devaipod_web.runs.states import State
from pods.agents import PROFILES

register = template.Library()

#: Characters of a JSON value that are shown; the API has it whole.
MAX_JSON_CHARACTERS = 20_000
#: Characters of a log line that would not be seen (as in static/js/log-lines.js), and how many of them are marked.
HIDDEN = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
)
MAX_MARKS = 20
#: Terminal sequences: CSI, OSC (ended by BEL or ST), and two-character escapes (ECMA-48). The page's script has the same.
ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])|\r")


@dataclass(frozen=True)
class Look:
    """How a state looks: tone (colour), shape and word say the same thing three times."""

    tone: str
    shape: str
    word: str


LOOKS = {
    "queued": Look("grey", "○", "queued"),
    "preparing": Look("blue", "◔", "preparing"),
    "starting": Look("blue", "◑", "starting"),
    "running": Look("blue", "●", "running"),
    "waiting": Look("amber", "◆", "waiting for you"),
    "paused": Look("amber", "❙❙", "paused"),
    "succeeded": Look("green", "✓", "succeeded"),
    "failed": Look("red", "■", "failed"),
    "stopped": Look("grey", "■", "stopped"),
    "timed_out": Look("red", "◷", "timed out"),
}


@register.filter
def state_look(state: str) -> Look:
    """A run's state as tone, shape and word."""
    return LOOKS.get(str(state), Look("grey", "○", str(state or "no runs")))


HEALTH_LOOKS = {
    "ok": Look("green", "✓", "ok"),
    "degraded": Look("amber", "▲", "degraded"),
    "down": Look("red", "■", "down"),
    "unknown": Look("grey", "○", "unknown"),
}
RESULT_LOOKS = {
    "ok": Look("green", "✓", "ok"),
    "done": Look("green", "✓", "done"),
    "waiting": Look("blue", "◑", "waiting"),
    "failed": Look("red", "■", "failed"),
}
SEVERITIES = {"error": ("red", "■"), "warning": ("amber", "▲"), "info": ("blue", "●")}
#: The state of a pod as a diagnosis says it.
POD_STATES = {
    "running": ("blue", "●"),
    "starting": ("blue", "◑"),
    "degraded": ("amber", "▲"),
    "exited": ("grey", "■"),
    "gone": ("grey", "○"),
    "unknown": ("red", "▲"),
}


@register.filter
def health_look(health: str) -> Look:
    """A service's health as tone, shape and word."""
    return HEALTH_LOOKS[str(health)]


@register.filter
def result_look(result: str) -> Look:
    """What became of a step of setup or teardown, as tone, shape and word."""
    return RESULT_LOOKS[str(result)]


@register.filter
def severity_tone(severity: str) -> str:
    """The colour of a finding."""
    return SEVERITIES.get(severity, ("grey", ""))[0]


@register.filter
def severity_shape(severity: str) -> str:
    """The shape of a finding."""
    return SEVERITIES.get(severity, ("", "●"))[1]


@register.filter
def pod_tone(state: str | None) -> str:
    """The colour of a pod's state."""
    return POD_STATES.get(str(state), ("grey", ""))[0]


@register.filter
def pod_shape(state: str | None) -> str:
    """The shape of a pod's state."""
    return POD_STATES.get(str(state), ("", "○"))[1]


@register.filter
def health_tone(health: str) -> str:
    """The colour of a health check's result."""
    return {"healthy": "green", "unhealthy": "red"}.get(health, "grey")


@register.filter
def finding_tone(run: Run) -> str:
    """The colour of what a run says is wrong: red when it has failed, amber while it goes on or when it went well in spite of it."""
    return "red" if run.state in (State.FAILED, State.TIMED_OUT) else "amber"


@register.filter
def finding_shape(run: Run) -> str:
    """The shape that goes with `finding_tone`."""
    return "■" if finding_tone(run) == "red" else "▲"


@register.filter
def permission_tone(state: str) -> str:
    """The colour of what became of a permission request."""
    return {"allowed": "green", "refused": "red", "expired": "red", "open": "amber"}.get(
        state, "grey"
    )


@register.filter
def money(value: Decimal | float | int | None) -> str:
    """US dollars: two digits from a dollar on, four below, so that a cent's fraction is seen."""
    if value is None:
        return "–"
    amount = Decimal(value)
    if amount == 0:
        return "$0.00"
    if abs(amount) < Decimal("0.0001"):
        return "< $0.0001"
    return f"${amount:,.2f}" if abs(amount) >= 1 else f"${amount:.4f}"


@register.filter
def budget_amount(value: Decimal, metric: str) -> str:
    """An amount of a budget in its metric: `$412.60`, `1.2 M tokens`, `1,000 requests`. Without a metric the number alone."""
    if metric == "usd":
        return money(value)
    short = f"{int(value):,}" if value < 100_000 else thousands(int(value))
    return f"{short} {metric}".rstrip()


def plain_amount(value: Decimal) -> str:
    """A number as a form field has it: no thousands, no zeros at its end but those of cents."""
    whole, _, rest = f"{value.normalize():f}".partition(".")
    return f"{whole}.{rest.ljust(2, '0')}" if rest else whole


@register.filter
def once_more(budget: Budget) -> str:
    """What a manager may well add to a window of a budget: half of its limit, as a form field has it."""
    return plain_amount(shown(budget.metric, max(budget.limit // 2, 1)))


@register.filter
def price(value: Decimal | None) -> str:
    """US dollars as they were entered, without zeros at the end."""
    return "–" if value is None else f"${value.normalize():f}"


@register.filter
def duration(seconds: float | int | None) -> str:
    """Seconds as people say them: `0.4 s`, `38 s`, `4 m 12 s`, `2 h 05 m`, `3 d 4 h`."""
    if seconds is None:
        return "–"
    value = max(float(seconds), 0.0)
    if value < 9.95:
        return f"{value:.1f} s".replace(".0 ", " ")
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} m {rest:02d} s" if rest else f"{minutes} m"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02d} m" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


@register.filter
def between(start: datetime | None, end: datetime | None) -> float | None:
    """Seconds from one moment to another, or until now when there is no other."""
    if start is None:
        return None
    return ((end or timezone.now()) - start).total_seconds()


@register.filter
def ago(at: datetime | None) -> str:
    """How long ago, in one unit."""
    if at is None:
        return "never"
    seconds = (timezone.now() - at).total_seconds()
    if seconds < 5:
        return "just now"
    for size, word in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)} {word} ago"
    return f"{int(seconds)} s ago"


@register.filter
def until(at: datetime | None) -> str:
    """How long until a moment, in one unit; `now` when it has come."""
    seconds = (at - timezone.now()).total_seconds() if at is not None else 0
    if seconds < 1:
        return "now"
    for size, word in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"in {int(seconds // size)} {word}"
    return f"in {int(seconds)} s"


@register.filter(name="bytes")
def size(value: int | None) -> str:
    """Bytes in binary units: `512 B`, `3 GiB`, `1.5 MiB`."""
    if value is None:
        return "–"
    amount = float(value)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(amount) < 1024 or unit == "TiB":
            return f"{amount:.1f} {unit}".replace(".0 ", " ")
        amount /= 1024
    return ""


@register.filter
def thousands(value: int | None) -> str:
    """A count in short: `812`, `41.2 k`, `1.3 M`."""
    number = int(value or 0)
    if number < 1000:
        return str(number)
    if number < 999_950:
        return f"{number / 1000:.1f} k".replace(".0 ", " ")
    if number < 999_950_000:
        return f"{number / 1_000_000:.1f} M".replace(".0 ", " ")
    return f"{number / 1_000_000_000:,.1f} G".replace(".0 ", " ")


@register.filter
def visible(text: object) -> SafeString:
    """Text from a pod as safe HTML: escaped, bidirectional and control characters named, line breaks kept."""
    return markdown.plain(str(text))


@register.filter
def log_text(text: str) -> SafeString:
    """A log line as safe HTML: colour and cursor sequences taken out, what else would not be seen named.

    The first `MAX_MARKS` of such characters are marked as elements; a binary line has thousands, and their names alone stand for the rest.
    """
    plain = ANSI.sub("", str(text))
    marks = list(itertools.islice(HIDDEN.finditer(plain), MAX_MARKS + 1))
    if len(marks) <= MAX_MARKS:
        return markdown.plain(plain)
    end = marks[-1].start()
    return format_html("{}{}", markdown.plain(plain[:end]), HIDDEN.sub(_named, plain[end:]))


def _named(match: re.Match[str]) -> str:
    point = ord(match[0])
    return chr(0x2400 + point) if point < 32 else f"U+{point:04X}"


@register.filter(name="markdown")
def rendered(text: str) -> SafeString:
    """An agent's or a person's Markdown as safe HTML."""
    return markdown.render(str(text))


@register.filter
def with_token(html: str, token: str) -> SafeString:
    """Rendered items, which are the same for every viewer, with this page's CSRF token in their forms (for pages without script).

    No text of an agent can hold the mark: it is a comment, and all text is escaped.
    """
    field = format_html('<input type="hidden" name="csrfmiddlewaretoken" value="{}">', token)
    return mark_safe(html.replace("<!--csrf-->", field))  # noqa: S308 - templates made it, escaping


@register.filter
def call_line(call: Any, title: str = "") -> str:
    """What a tool call does, in one line."""
    return tools.call_line(call, title)


@register.filter
def pretty(value: Any) -> str:
    """A JSON value over several lines, cut at `MAX_JSON_CHARACTERS`."""
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    if len(text) > MAX_JSON_CHARACTERS:
        return (
            f"{text[:MAX_JSON_CHARACTERS]}\n… {len(text) - MAX_JSON_CHARACTERS:,} more characters"
        )
    return text


@register.filter
def agent_title(key: str) -> str:
    """The agent's name as people know it."""
    profile = PROFILES.get(key)
    return profile.title if profile else key


@register.filter
def described(field: BoundField) -> SafeString:
    """A form's control that names its help and its errors for screen readers."""
    ids = []
    if field.help_text:
        ids.append(f"{field.id_for_label}-help")
    attributes: dict[str, str | bool] = {}
    if field.errors:
        ids.append(f"{field.id_for_label}-error")
        attributes["aria-invalid"] = "true"
    if ids:
        attributes["aria-describedby"] = " ".join(ids)
    return field.as_widget(attrs=attributes)
