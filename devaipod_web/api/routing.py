"""Declare an operation once: its id is its name in the permission table, in the URL map and in the OpenAPI document.

    @operation(router, "POST", "", operation_id="hook_create", response={201: HookOut}, once=True, problems=(409,))
    def hook_create(request: HttpRequest, body: HookIn) -> Any:
        \"""Make a hook.\"""

    @operation(router, "GET", "", operation_id="hooks_list", response=list[HookOut])
    @paged({"newest": Order("created_at", descending=True)})
    def hooks_list(request: HttpRequest, filters: Query[Filters]) -> QuerySet[Hook]:
        \"""List hooks.\"""

`api:<operation_id>` stands in `permissions.ROUTES` (who may) and in `permissions.REACH` (how a token of one project meets it).
Who calls, unknown query parameters, `Idempotency-Key`, and the answers that every operation can give are looked after here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, get_args, get_type_hints

from django.http import HttpRequest
from ninja import Router, Schema
from ninja.constants import NOT_SET
from ninja.decorators import decorate_view

from devaipod_web.accounts.permissions import ROUTES, Permission
from devaipod_web.api import once as idempotency
from devaipod_web.api import openapi
from devaipod_web.api.auth import Caller, caller
from devaipod_web.api.paging import Order, page_schema, paged

__all__ = ["Order", "operation", "paged"]

F = TypeVar("F", bound=Callable[..., Any])

WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


def operation(
    router: Router,
    method: str,
    path: str,
    *,
    operation_id: str,
    response: Any = NOT_SET,
    once: bool = False,
    problems: tuple[int, ...] = (),
    media: dict[str, type[Schema] | None] | None = None,
    headers: dict[str, str] | None = None,
    **more: Any,
) -> Callable[[F], F]:
    """Mount a view as this operation.

    `once` gives it `Idempotency-Key`: its service then does database work alone. `problems` are the statuses of refusals of
    its own; those that any operation can answer are declared without saying so. `media` is for answers that are not JSON:
    media type → the schema of a line of it, or None for plain text. `headers` are headers of the answer, name → what it
    says. Raises KeyError at import when `api:<operation_id>` is not in the permission table.
    """
    permission = ROUTES[f"api:{operation_id}"]

    def mount(view: F) -> F:
        mounted = _carried_out_once(view) if once else view
        answer = page_schema(get_args(response)[0]) if hasattr(view, "is_paged") else response
        router.api_operation(
            [method],
            path,
            auth=Caller(operation_id),
            response=answer,
            operation_id=operation_id,
            summary=(view.__doc__ or operation_id).strip().splitlines()[0].rstrip("."),
            description=_paragraphs(view.__doc__ or ""),
            url_name=operation_id,
            openapi_extra=openapi.extra(
                problems=_problems(permission, method, once=once, own=problems),
                media=media or {},
                headers=headers or {},
                once=once,
            ),
            **more,
        )(mounted)
        return view

    return mount


def _problems(
    permission: Permission, method: str, *, once: bool, own: tuple[int, ...]
) -> list[int]:
    """The statuses of problem documents that the operation can answer with."""
    found = {401, 403, 404, 422, 500, *own}
    if permission is Permission.SELF:
        found -= {404} - set(own)
    if method in WITH_BODY:
        found |= {400, 413}
    if once:
        found |= {400, 409}
    return sorted({400, *found})


def _paragraphs(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())


def _carried_out_once(view: F) -> F:
    # The wrapper has this module's globals, in which the view's names are not found.
    view.__annotations__ = get_type_hints(view, include_extras=True)

    @functools.wraps(view)
    def replayed_or_new(request: HttpRequest, **given: Any) -> Any:
        known = idempotency.replay(request, caller(request))
        return known if known is not None else view(request, **given)

    decorated: F = decorate_view(idempotency.whole)(replayed_or_new)  # type: ignore[assignment]
    return decorated
