"""Make what came from a pod fit to be stored: bounded, and valid on every database.

PostgreSQL refuses U+0000 and lone surrogates in text and `NaN` in JSON; SQLite takes all three and hands them on. What a pod
sends is therefore cleaned once, on the way in.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from pods.sidecar.protocol import MAX_PAYLOAD_BYTES

#: Deeper nesting than any tool call has; a bomb of brackets ends here.
MAX_DEPTH = 40
#: Entries of one object or list that are kept.
MAX_ITEMS = 50_000
#: A stamp further ahead of our clock than this is taken for now.
MAX_AHEAD = timedelta(minutes=5)
TOO_DEEP = "… (nested too deep)"


def text(value: object, limit: int = MAX_PAYLOAD_BYTES) -> str:
    """`value` as text that every database stores, at most `limit` characters. Anything but text becomes empty."""
    if not isinstance(value, str):
        return ""
    cut = value[:limit]
    if "\x00" in cut:
        cut = cut.replace("\x00", "\ufffd")
    if cut.isascii():
        return cut
    return cut.encode("utf-8", "replace").decode() if _has_surrogate(cut) else cut


def _has_surrogate(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return True
    return False


def number(value: object, *, default: int = 0, most: int = 2**31 - 1) -> int:
    """`value` as a whole number from 0 to `most`, or `default` when it is none."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        return default
    return value


def storable(value: Any, depth: int = 0) -> Any:
    """A JSON value with every text cleaned, non-finite numbers as null, and depth and length bounded."""
    if isinstance(value, str):
        return text(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value)[:40]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if depth >= MAX_DEPTH:
        return TOO_DEEP
    if isinstance(value, dict):
        items = list(value.items())[:MAX_ITEMS]
        return {text(str(key), 500): storable(item, depth + 1) for key, item in items}
    if isinstance(value, (list, tuple)):
        return [storable(item, depth + 1) for item in value[:MAX_ITEMS]]
    return text(str(value))


def moment(value: object, *, now: datetime) -> datetime:
    """An RFC 3339 stamp as an aware time; `now` when it is unreadable, ahead of us, or older than a year."""
    if not isinstance(value, str) or len(value) > 40:
        return now
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return now
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    try:
        if not now - timedelta(days=365) <= found <= now + MAX_AHEAD:
            return now
        return found.astimezone(UTC)
    except OverflowError:
        return now
