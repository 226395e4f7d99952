"""How a body becomes values: JSON (RFC 8259), and text that every database stores."""

from __future__ import annotations

import json
import math
from typing import Any, cast

from django.http import HttpRequest
from ninja.parser import Parser

from devaipod_web.api.problems import Problem


class StrictParser(Parser):
    """Refuses what Python's parser takes beyond JSON (`NaN`), lone surrogates and U+0000, and nesting without end."""

    def parse_body(self, request: HttpRequest) -> dict[str, Any]:
        """The body's value. Raises Problem with 400."""
        try:
            value = json.loads(request.body, parse_constant=_refuse, parse_float=_number)
            text = json.dumps(value, ensure_ascii=False)
            text.encode()
        except RecursionError:
            raise _bad("The body is nested too deep.") from None
        except UnicodeEncodeError:
            raise _bad("The body holds half of a character (a lone surrogate).") from None
        except ValueError as error:
            raise _bad(f"The body is not JSON: {error}") from None
        if "\\u0000" in text and _holds_nul(value):
            raise _bad("The body holds a NUL character.")
        return cast("dict[str, Any]", value)


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no number in JSON")


def _number(text: str) -> float | int:
    """`5.0` is the whole number 5, as JSON Schema has it; what no 64-bit float holds is refused."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large a number")
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any("\x00" in key or _holds_nul(item) for key, item in value.items())
    return isinstance(value, list) and any(_holds_nul(item) for item in value)


def _bad(sentence: str) -> Problem:
    return Problem(400, "bad-body", sentence, next_step="Send the body as JSON in UTF-8.")
