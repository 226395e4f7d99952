"""Types of query parameters: moments, and sets of words."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

#: A sign of the zone that was not escaped has become a space.
_LOST_PLUS = re.compile(r" (?=\d\d:\d\d$)")


def _moment(value: Any) -> datetime:
    try:
        found = datetime.fromisoformat(_LOST_PLUS.sub("+", str(value)))
        if found.tzinfo is None or "T" not in str(value).upper():
            raise ValueError
        return found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(
            "A time is needed with its zone (RFC 3339): 2026-11-24T20:14:03Z"
        ) from None


def _split(value: Any) -> Any:
    """`a,b` and `a` `b` are the same set; nothing between commas counts for nothing."""
    given = value if isinstance(value, list) else [value]
    return [word for text in given for word in str(text).split(",") if word]


#: A time with its zone, RFC 3339.
Moment = Annotated[
    datetime,
    BeforeValidator(_moment),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-11-24T00:00:00Z"]}),
]
#: Before a list of words: they may be repeated, or stand with commas between.
CommaSeparated = BeforeValidator(_split)
