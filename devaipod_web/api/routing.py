"""Declare an operation once: its id is its name in the permission table, in the URL map and in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints

from ninja import Router
from ninja.constants import NOT_SET
from ninja.pagination import CursorPagination, paginate

from devaipod_web.api.auth import Caller

F = TypeVar("F", bound=Callable[..., Any])


def operation(
    router: Router,
    method: str,
    path: str,
    *,
    operation_id: str,
    response: Any = NOT_SET,
    **more: Any,
) -> Callable[[F], F]:
    """Mount a view as this operation. Raises KeyError at import when `api:<operation_id>` is not in the permission table."""

    def mount(view: F) -> F:
        router.api_operation(
            [method],
            path,
            auth=Caller(operation_id),
            response=response,
            operation_id=operation_id,
            summary=(view.__doc__ or operation_id).strip().splitlines()[0].rstrip("."),
            description=(view.__doc__ or "").strip(),
            url_name=operation_id,
            **more,
        )(view)
        return view

    return mount


def paged(*ordering: str, size: int = 50) -> Callable[[F], F]:
    """Page the query set that a view returns by cursor, in this order; the last field must be unique."""

    def wrap(view: F) -> F:
        # The paginator's wrapper has another module's globals, in which names written as strings are not found.
        view.__annotations__ = get_type_hints(view, include_extras=True)
        wrapped: F = paginate(CursorPagination, ordering=ordering, page_size=size)(view)
        return wrapped

    return wrap
