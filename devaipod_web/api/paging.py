"""Lists by cursor: each page begins after the last row of the one before it, whatever was added or removed meanwhile.

A cursor holds the sort, the value that the last row had in it, and that row's public key, which settles ties. It is opaque,
but no secret: it is read as carefully as any other parameter. A row whose value changes between two pages (its cost grows) may
come twice or not at all; one that does not change comes exactly once.
"""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeVar, get_type_hints
from urllib.parse import parse_qsl, urlencode, urlsplit

from django.core.exceptions import ValidationError
from django.db.models import F as Column
from django.db.models import Q, QuerySet
from django.db.models.expressions import Combinable
from django.http import HttpRequest
from django.utils import timezone
from django.utils.duration import duration_string
from ninja import Field, Schema
from ninja.pagination import PaginationBase
from ninja.utils import contribute_operation_args

from devaipod_web.api import reach
from devaipod_web.api.auth import caller
from devaipod_web.api.problems import Problem

F = TypeVar("F", bound=Callable[..., Any])

PAGE_SIZE = 50
MAX_PAGE_SIZE = 100
MAX_CURSOR = 1000


@dataclass(frozen=True)
class Order:
    """One way to sort: a field or an expression that is never null, and the direction.

    `by` may be a function of a moment, for what grows by itself: all pages of a list are sorted as at its first one.
    """

    by: str | Combinable | Callable[[datetime], Combinable]
    descending: bool = False

    def column(self, moment: datetime) -> Combinable:
        """The expression that rows are sorted by."""
        if isinstance(self.by, str):
            return Column(self.by)
        return self.by if isinstance(self.by, Combinable) else self.by(moment)


@dataclass(frozen=True)
class Cursor:
    """A place in a sorted list: after the row of this value and key, or `back`: before it. `at` is when the list began."""

    sort: str
    value: str
    key: str
    at: datetime
    back: bool = False

    def text(self) -> str:
        """The cursor as a parameter."""
        parts = [self.sort, self.value, self.key, self.at.isoformat(), int(self.back)]
        packed = json.dumps(parts, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(packed).decode().rstrip("=")

    @classmethod
    def of(cls, text: str) -> Cursor:
        """Read a parameter. Raises Problem with 400."""
        try:
            packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            sort, value, key, at, back = json.loads(packed)
            began = datetime.fromisoformat(at).astimezone(UTC)
        except (ValueError, TypeError, RecursionError, OverflowError):
            raise _bad_cursor() from None
        strings = all(isinstance(part, str) and "\x00" not in part for part in (sort, value, key))
        if not strings or back not in (0, 1):
            raise _bad_cursor()
        return cls(sort, value, key, began, bool(back))


def _bad_cursor() -> Problem:
    return Problem(
        400,
        "bad-cursor",
        "This is no cursor of this list.",
        next_step="Take `next` or `previous` of an answer as it is, or leave the cursor out to begin anew.",
    )


class Page(Schema):
    """What every list takes."""

    cursor: str | None = Field(
        None,
        max_length=MAX_CURSOR,
        description="Where the page begins: from `next` or `previous` of an answer. Opaque.",
    )
    page_size: int = Field(
        PAGE_SIZE, ge=1, le=MAX_PAGE_SIZE, description="How many rows a page has at most."
    )


def paged(orders: Mapping[str, Order]) -> Callable[[F], F]:
    """Page the query set that a view returns; `sort` takes the names of `orders`, of which the first is the default.

    The rows are narrowed to the project of the caller's token, so that no list can forget it. The model needs a `key`, and
    a row in `reach.PROJECT_OF`.
    """
    Sorted = _page_parameters(orders)

    def wrap(view: F) -> F:
        # The wrapper has this module's globals, in which the view's names are not found.
        view.__annotations__ = get_type_hints(view, include_extras=True)

        @functools.wraps(view)
        def page_of_view(request: HttpRequest, **given: Any) -> Any:
            page = given.pop("ninja_page")
            rows = reach.within(caller(request), view(request, **given))
            return _page(request, rows, orders, page)

        contribute_operation_args(page_of_view, "ninja_page", Sorted, PaginationBase.InputSource)
        page_of_view.is_paged = True  # type: ignore[attr-defined]
        return page_of_view  # type: ignore[return-value]

    return wrap


def _page_parameters(orders: Mapping[str, Order]) -> type[Page]:
    words = tuple(orders)
    # Literal, not Enum: the document then has the words in the parameter itself.
    sort = Annotated[
        Literal[words],  # type: ignore[valid-type]
        Field(description=f"The order. Without it {words[0]}.", examples=[words[0]]),
    ]
    made: type[Page] = type(
        "SortedPage",
        (Page,),
        {"__annotations__": {"sort": sort}, "sort": words[0], "__module__": __name__},
    )
    return made


def page_schema(item: type[Schema]) -> type[Schema]:
    """The schema of a page of these."""
    return type(
        f"Paged{item.__name__}",
        (Schema,),
        {
            "__module__": __name__,
            "__doc__": f"A page of a list: {(item.__doc__ or '').strip().splitlines()[0]}",
            "__annotations__": {
                "previous": str | None,
                "next": str | None,
                "results": list[item],  # type: ignore[valid-type]
            },
            "previous": Field(
                ..., description="The address of the page before this one, or null on the first."
            ),
            "next": Field(..., description="The address of the next page, or null on the last."),
            "results": Field(..., description="The rows of this page."),
        },
    )


def _page(request: HttpRequest, rows: QuerySet[Any], orders: Mapping[str, Order], page: Any) -> Any:
    cursor = Cursor.of(page.cursor) if page.cursor else None
    if cursor is not None and cursor.sort != page.sort:
        raise _bad_cursor()
    order, began = orders[page.sort], cursor.at if cursor is not None else timezone.now()
    back = cursor is not None and cursor.back
    # Back means: the rows before, the nearest first.
    descending = order.descending is not back
    rows = rows.annotate(page_value=order.column(began))
    if cursor is not None:
        rows = rows.filter(_beyond(rows, cursor, descending=descending))
    sign = "-" if descending else ""
    found = list(rows.order_by(f"{sign}page_value", f"{sign}key")[: page.page_size + 1])
    more = len(found) > page.page_size
    found = found[: page.page_size]
    if back:
        found.reverse()

    def address(row: Any, *, back: bool) -> str:
        there = Cursor(page.sort, _plain(row.page_value), row.key, began, back)
        return _address(request, there.text())

    has_next = bool(found) and (more or back)
    has_previous = bool(found) and (more if back else cursor is not None)
    return {
        "results": found,
        "next": address(found[-1], back=False) if has_next else None,
        "previous": address(found[0], back=True) if has_previous else None,
    }


def _beyond(rows: QuerySet[Any], cursor: Cursor, *, descending: bool) -> Q:
    field: Any = rows.query.annotations["page_value"].output_field
    try:
        value = field.to_python(cursor.value)
        if isinstance(value, datetime):
            value = value.astimezone(UTC)
    except (ValidationError, ValueError, OverflowError):
        raise _bad_cursor() from None
    if value is None or (isinstance(value, Decimal) and not value.is_finite()):
        raise _bad_cursor()
    past = "lt" if descending else "gt"
    return Q(**{f"page_value__{past}": value}) | Q(page_value=value, **{f"key__{past}": cursor.key})


def _address(request: HttpRequest, cursor: str) -> str:
    """This request's address with another cursor; the filters stay."""
    parts = urlsplit(request.build_absolute_uri())
    query = [(k, v) for k, v in parse_qsl(parts.query, keep_blank_values=True) if k != "cursor"]
    return parts._replace(query=urlencode([*query, ("cursor", cursor)])).geturl()


def _plain(value: Any) -> str:
    """A value as its field reads it again."""
    if isinstance(value, datetime):
        return value.isoformat()
    return duration_string(value) if isinstance(value, timedelta) else str(value)
