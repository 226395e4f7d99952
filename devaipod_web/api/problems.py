"""Errors as problem documents (RFC 9457): one table from exception class to document.

Every document has `type` (urn:devaipod:problem:<code>), `title`, `status`, `detail` and, where there is one, `next_step`.
422 means that the request does not have the form that the OpenAPI document states, 400 that it has the form and breaks a rule
(or is no JSON at all). `ProblemDocuments` gives the same form to what never reaches an operation.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, UnreadablePostError
from ninja import NinjaAPI
from ninja.errors import HttpError, ValidationError
from ninja.errors import ValidationError as RequestInvalid

from devaipod_web.errors import DevaipodError, InvalidFields
from devaipod_web.reviews.errors import TicksMissing

logger = logging.getLogger(__name__)

ROOT = "/api/devaipod/"
#: The one page below the API's root; its errors are pages.
DOCS = "/api/devaipod/docs"
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
    413: "The request is too large",
    422: "The request does not have the form that is needed",
    429: "Too many requests",
    500: "Something went wrong here",
    502: "Another service refused",
    503: "Not available now",
}


#: Codes of refusals that are the framework's.
CODES = {400: "bad-request", 413: "too-large", 429: "too-many-requests"}


class Problem(DevaipodError):
    """A refusal of the API's own, outside any room's tree. `more` are further members of its document."""

    def __init__(
        self, status: int, code: str, message: str, *, next_step: str = "", **more: Any
    ) -> None:
        super().__init__(message, next_step=next_step)
        self.status = status
        self.code = code
        self.more = more


def invalid(errors: Sequence[tuple[str, str]], *, next_step: str = "") -> Problem:
    """A request that does not have the form: (field, sentence) for each place."""
    sentence = "; ".join(f"{field or 'request'}: {detail}" for field, detail in errors[:5])
    return Problem(
        422,
        "invalid-request",
        sentence,
        next_step=next_step,
        errors=[{"field": field, "detail": detail} for field, detail in errors],
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
    """Give the API a handler for our own errors, and for the framework's."""
    api.add_exception_handler(DevaipodError, _told)
    api.add_exception_handler(Http404, _missing)
    api.add_exception_handler(ValidationError, _invalid)
    api.add_exception_handler(HttpError, _http)
    api.add_exception_handler(RequestDataTooBig, _too_large)
    api.add_exception_handler(UnreadablePostError, _unreadable)
    api.add_exception_handler(Exception, _unforeseen)


def _told(request: HttpRequest, error: Any) -> HttpResponse:
    told: DevaipodError = error
    more: dict[str, Any] = dict(getattr(error, "more", {}))
    if isinstance(error, InvalidFields):
        more["errors"] = [{"field": name, "detail": text} for name, text in error.errors.items()]
    if isinstance(error, TicksMissing):
        more["missing"] = error.missing
    return document(told.status, told.code, told.message, next_step=told.next_step, **more)


def _missing(request: HttpRequest, error: Any) -> HttpResponse:
    return document(404, "not-found", str(error) or "There is nothing here.")


def _invalid(request: HttpRequest, error: Any) -> HttpResponse:
    found: RequestInvalid = error
    return _told(
        request,
        invalid(
            [(_field(one.get("loc", ())), str(one.get("msg", ""))) for one in found.errors[:50]]
        ),
    )


def _field(place: Sequence[Any]) -> str:
    """("body", "body", "task") → "task": the framework's own names of places say nothing to a caller."""
    own = ("body", "query", "filters", "window", "ninja_pagination")
    return ".".join(str(part)[:60] for part in place[1:] if part not in own)


def _http(request: HttpRequest, error: Any) -> HttpResponse:
    if isinstance(error.__cause__, Problem):
        # What the parser of bodies said, wrapped by the framework.
        return _told(request, error.__cause__)
    status = int(error.status_code)
    return document(status, CODES.get(status, "refused"), str(error))


def _too_large(request: HttpRequest, error: Any) -> HttpResponse:
    return document(
        413,
        "too-large",
        f"A request's body has at most {settings.DATA_UPLOAD_MAX_MEMORY_SIZE:,} bytes.",
        next_step="Put long material into the repository and name its path.",
    )


def _unreadable(request: HttpRequest, error: Any) -> HttpResponse:
    return document(400, "unreadable", "The request's body broke off.")


def _unforeseen(request: HttpRequest, error: Any) -> HttpResponse:
    # The cause goes to the server's log alone: it may name paths, addresses or worse.
    logger.exception("api.failed", exc_info=error, extra={"path": request.path})
    return internal()


def internal() -> HttpResponse:
    """The document of a fault here."""
    return document(
        500,
        "internal",
        "The server failed to answer; what was asked for may or may not be done.",
        next_step="Look again, and at the server's log.",
    )


class ProblemDocuments:
    """Outermost: makes a problem document of every error below the API's root that is none yet.

    These are the ones that never reach an operation: unknown paths (404), other methods (405, `Allow` stays), foreign hosts
    (400), and faults of the middlewares (500).
    """

    sync_capable = True
    async_capable = False

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Pass the request on; look at what comes back."""
        response = self.get_response(request)
        mine = (request.path_info + "/").startswith(ROOT) and request.path_info != DOCS
        if not mine or response.status_code < 400:
            return response
        if response.headers.get("Content-Type", "") == CONTENT_TYPE:
            return response
        problem = _plain(request, response)
        for name in ("Allow", "Retry-After"):
            if name in response.headers:
                problem.headers[name] = response.headers[name]
        return problem


def _plain(request: HttpRequest, response: HttpResponseBase) -> HttpResponse:
    status = response.status_code
    if status >= 500:
        return internal()
    if status == 404:
        return document(
            404,
            "not-found",
            f"There is no operation at {request.path_info[:200]!r}.",
            next_step=f"{DOCS} lists the operations.",
        )
    if status == 405:
        allowed = " and ".join(sorted(response.headers.get("Allow", "").split(", ")))
        return document(
            405, "method-not-allowed", f"This address takes {allowed}, not {request.method}."
        )
    detail = TITLES.get(status, response.reason_phrase)
    return document(status, CODES.get(status, "refused"), f"{detail}.")
