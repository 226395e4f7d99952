"""NDJSON: one JSON document a line, written as it comes.

A blank line comes when nothing else did for a while, so that both ends notice a dead connection; readers skip it. A
stream that follows ends by itself when there is nothing more to come, and when the caller's token, session or role has ended.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any

from django.http import HttpRequest, StreamingHttpResponse

from devaipod_web import db
from devaipod_web.api.auth import holder, still_counts

CONTENT_TYPE = "application/x-ndjson"
BLANK_EVERY_SECONDS = 15.0
RECHECK_EVERY_SECONDS = 2.0


def lines(documents: Iterable[dict[str, Any]]) -> bytes:
    """Documents as bytes of NDJSON."""
    return b"".join(
        json.dumps(document, ensure_ascii=False, default=str).encode("utf-8", "replace") + b"\n"
        for document in documents
    )


def respond(stream: AsyncIterator[bytes]) -> StreamingHttpResponse:
    """The stream as a response that no proxy on the way holds back."""
    response = StreamingHttpResponse(stream, content_type=CONTENT_TYPE)
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    return response


class Guard:
    """Asks, at most every two seconds, whether the caller may still read; and says when a blank line is due."""

    def __init__(self, request: HttpRequest) -> None:
        self._who = holder(request)
        self._asked = self._written = time.monotonic()

    async def counts(self) -> bool:
        """Whether the caller's token or session and role still stand."""
        if time.monotonic() - self._asked < RECHECK_EVERY_SECONDS:
            return True
        self._asked = time.monotonic()
        return await db.read(still_counts, *self._who)

    def wrote(self) -> None:
        """Something went out just now."""
        self._written = time.monotonic()

    def blank_due(self) -> bool:
        """Whether nothing has gone out for so long that a blank line should."""
        return time.monotonic() - self._written >= BLANK_EVERY_SECONDS
