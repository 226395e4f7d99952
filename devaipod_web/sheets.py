"""CSV (RFC 4180) that no spreadsheet takes for formulas."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

CONTENT_TYPE = "text/csv; charset=utf-8"
#: What makes a spreadsheet take a cell for a formula when it begins with it (OWASP, CSV injection).
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def lines(rows: Iterable[Sequence[Any]]) -> bytes:
    """Rows as bytes of CSV in UTF-8. None is an empty cell, a moment is ISO 8601, an amount has all of its digits."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerows([cell(value) for value in row] for row in rows)
    # Half a surrogate pair in an agent's text must not end the whole file.
    return out.getvalue().encode("utf-8", "replace")


def cell(value: Any) -> str:
    """A value as a cell. Text that begins like a formula is quoted by an apostrophe, as spreadsheets take it for text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return f"{value:f}"
    text = str(value)
    if isinstance(value, int | float):
        return text
    return f"'{text}" if text.startswith(FORMULA) else text
