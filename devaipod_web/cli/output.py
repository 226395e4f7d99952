"""How the CLI writes: tables for people, JSON for programs, and nothing of an agent's text executed by the terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, TextIO

from devaipod_web.plain import clean

STATE_MARKS = {
    "queued": ("○", "dim"),
    "preparing": ("◔", "cyan"),
    "starting": ("◑", "cyan"),
    "running": ("●", "blue"),
    "waiting": ("◆", "yellow"),
    "paused": ("‖", "yellow"),
    "succeeded": ("✓", "green"),
    "failed": ("✗", "red"),
    "stopped": ("■", "dim"),
    "timed_out": ("⧖", "red"),
    "open": ("◆", "yellow"),
    "promoted": ("✓", "green"),
    "rejected": ("■", "dim"),
    "delivered": ("✓", "green"),
    "ok": ("✓", "green"),
    "degraded": ("▲", "yellow"),
    "down": ("■", "red"),
    "unknown": ("○", "dim"),
    "done": ("✓", "green"),
}
FLEXIBLE = frozenset({"TITLE", "LAST", "NAME", "UPSTREAM", "FOUND", "LAST ERROR"})
_CODES = {
    "dim": "2",
    "bold": "1",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "cyan": "36",
}


__all__ = ["clean", "document", "money", "note", "paint", "say", "since", "state", "table"]


def paint(text: str, style: str, *, to: TextIO | None = None) -> str:
    """The text in a style, when the output is a terminal that wants one."""
    import os

    stream = to or sys.stdout
    if style not in _CODES or not stream.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m"


def state(word: str) -> str:
    """A state's shape and word."""
    mark, style = STATE_MARKS.get(word, ("·", ""))
    return paint(f"{mark} {word.replace('_', ' ')}", style)


def say(text: str = "") -> None:
    """One line on standard output."""
    print(text, flush=True)


def note(text: str) -> None:
    """One line on standard error: what is not the command's result."""
    print(text, file=sys.stderr, flush=True)


def document(value: Any) -> None:
    """A result for programs."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def ask_once(question: str, *, yes: bool) -> None:
    """Ask a person before something that can't be undone. Raises CliError without a terminal, and Exit(1) on a no."""
    if yes:
        return
    from devaipod_web.cli.client import CliError

    if not sys.stdin.isatty():
        raise CliError(
            f"{question} There is no terminal to ask on.", next_step="Add --yes.", status=2
        )
    import typer

    if not typer.confirm(question, err=True):
        note("Nothing was done.")
        raise typer.Exit(1)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """A table that fits the terminal; `empty` is the sentence for none. Cells are cleaned already."""
    found = [list(row) for row in rows]
    if not found:
        say(empty)
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(*heads, box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    for number, column in enumerate(grid.columns):
        column.overflow = "ellipsis"
        column.no_wrap = True
        # Titles and last lines give way on a narrow terminal; keys, states and figures are never cut.
        if heads[number] not in FLEXIBLE:
            cells = [Text.from_ansi(row[number]).cell_len for row in found]
            column.min_width = max(len(heads[number]), *cells)
    for row in found:
        # Text.from_ansi keeps our own colours and, unlike markup, takes no brackets of a title for tags.
        grid.add_row(*(Text.from_ansi(cell) for cell in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, 160))
    console.print(grid)


def moment(text: str | None) -> datetime | None:
    """A time of the API."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None


def since(text: str | None) -> str:
    """How long ago: `12 s`, `4 m`, `3 h`, `2 d`."""
    at = moment(text)
    if at is None:
        return "—"
    seconds = max(0, int((datetime.now(UTC) - at).total_seconds()))
    for limit, unit, size in ((60, "s", 1), (3600, "m", 60), (48 * 3600, "h", 3600)):
        if seconds < limit:
            return f"{seconds // size} {unit}"
    return f"{seconds // 86400} d"


def duration(seconds: float) -> str:
    """`0.8 s`, `12 s`, `4 m 12 s`, `2 h 05 m`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} m"


def money(text: object) -> str:
    """US dollars, with a cent's fraction below one dollar."""
    try:
        value = Decimal(str(text))
    except InvalidOperation:
        return "—"
    if value == 0:
        return "$0"
    return f"${value:.2f}" if value >= 1 else f"${value:.4f}"
