"""Errors as problem documents (RFC 9457): one table from exception class to document.

Every document has `type` (urn:devaipod:problem:<code>), `title`, `status`, `detail` and, where there is one, `next_step`.
"""

from __future__ import annotations

import json
import logging
from typing import Any, Protocol

from django.http import Http404, HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.errors import HttpError, ValidationError
from ninja.errors import ValidationError as RequestInvalid

from devaipod_web.accounts.errors import AccountError
from devaipod_web.forges.errors import ForgeError
from devaipod_web.health.errors import HealthError
from devaipod_web.projects.errors import InvalidProject, ProjectError
from devaipod_web.reviews.errors import ReviewError
from devaipod_web.runs.errors import RunError

logger = logging.getLogger(__name__)

URN = "urn:devaipod:problem:"
CONTENT_TYPE = "application/problem+json"

TITLES = {
    400: "The request cannot be carried out as it is",
    401: "Who is asking is not known",
    403: "Not allowed",
    404: "Not found",
    405: "This address does not take that method",
    409: "Not possible now",
    410: "Gone",
    422: "The request does not have the form that is needed",
    429: "Too many requests",
    500: "Something went wrong here",
    502: "Another service refused",
    503: "Not available now",
}


class Problem(Exception):
    """A refusal of the API's own, outside any room's tree."""

    def __init__(self, status: int, code: str, message: str, *, next_step: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.next_step = next_step


class _Told(Protocol):
    code: str
    status: int
    message: str
    next_step: str


#: Roots of the error trees whose classes carry code, status, message and next_step.
ROOTS: tuple[type[Exception], ...] = (
    Problem,
    RunError,
    AccountError,
    ProjectError,
    ForgeError,
    ReviewError,
    HealthError,
)


def document(
    status: int, code: str, detail: str, *, next_step: str = "", **more: Any
) -> HttpResponse:
    """A problem document as a response."""
    body: dict[str, Any] = {
        "type": URN + code,
        "title": TITLES.get(status, "Error"),
        "status": status,
        "detail": detail,
        **more,
    }
    if next_step:
        body["next_step"] = next_step
    response = HttpResponse(json.dumps(body), status=status, content_type=CONTENT_TYPE)
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="devaipod"'
    return response


def install(api: NinjaAPI) -> None:
    """Give the API one handler for each root of an error tree, and for the framework's own errors."""
    for root in ROOTS:
        api.add_exception_handler(root, _told)
    api.add_exception_handler(Http404, _missing)
    api.add_exception_handler(ValidationError, _invalid)
    api.add_exception_handler(HttpError, _http)
    api.add_exception_handler(Exception, _unforeseen)


def _told(request: HttpRequest, error: Any) -> HttpResponse:
    told: _Told = error
    more: dict[str, Any] = {}
    if isinstance(error, InvalidProject):
        more["errors"] = [{"field": name, "detail": text} for name, text in error.errors.items()]
    return document(told.status, told.code, told.message, next_step=told.next_step, **more)


def _missing(request: HttpRequest, error: Any) -> HttpResponse:
    return document(404, "not-found", str(error) or "There is nothing here.")


def _invalid(request: HttpRequest, error: Any) -> HttpResponse:
    invalid: RequestInvalid = error
    errors = [
        {
            # ("body", "body", "task") → "task": the framework's own names of places say nothing to a caller.
            "field": ".".join(
                str(part)
                for part in found.get("loc", ())[1:]
                if part not in ("body", "query", "filters")
            ),
            "detail": str(found.get("msg", "")),
        }
        for found in invalid.errors[:50]
    ]
    sentence = "; ".join(f"{item['field'] or 'request'}: {item['detail']}" for item in errors[:5])
    return document(422, "invalid-request", sentence, errors=errors)


def _http(request: HttpRequest, error: Any) -> HttpResponse:
    status = int(error.status_code)
    return document(status, "refused", str(error))


def _unforeseen(request: HttpRequest, error: Any) -> HttpResponse:
    # The cause goes to the server's log alone: it may name paths, addresses or worse.
    logger.exception("api.failed", exc_info=error, extra={"path": request.path})
    return document(
        500,
        "internal",
        "The server failed to answer; what was asked for may or may not be done.",
        next_step="Look again, and at the server's log.",
    )
