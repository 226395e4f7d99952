"""Prices that managers set, over the API."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja import Router
from ninja.responses import Status

from devaipod_web.api.auth import caller
from devaipod_web.api.projects import find as find_project
from devaipod_web.api.reach import nothing
from devaipod_web.api.routing import operation
from devaipod_web.api.schemas.routes import PriceChanges, PriceIn, PriceOut, decimals
from devaipod_web.llm import price_rows
from devaipod_web.llm.models import Price
from devaipod_web.llm.price_rows import PARTS

router = Router(tags=["prices"])

#: Fields for which null is a value.
NULLABLE = {"project", *(name for name, optional in PARTS.items() if optional)}


def find(key: str) -> Price:
    """The price of this key. Raises Http404."""
    price = Price.objects.select_related("project").filter(key=key).first()
    if price is None:
        raise nothing("price", key)
    return price


def _fields(given: dict[str, Any]) -> dict[str, Any]:
    if "project" in given:
        given["project"] = find_project(given["project"]) if given["project"] else None
    return decimals(given, PARTS)


@operation(router, "GET", "", operation_id="prices_list", response=list[PriceOut])
def prices_list(request: HttpRequest) -> list[Price]:
    """List the prices that managers set."""
    return list(Price.objects.select_related("project").order_by("pattern", "pk"))


@operation(router, "POST", "", operation_id="price_create", response={201: PriceOut}, once=True)
def price_create(request: HttpRequest, body: PriceIn) -> Any:
    """Enter a price.

    It replaces the price list's for the models that match, or with `is_ceiling` bounds those that nobody knows the price of.
    """
    return Status(201, price_rows.save(caller(request), None, **_fields(body.model_dump())))


@operation(router, "GET", "/{key}", operation_id="price_get", response=PriceOut)
def price_get(request: HttpRequest, key: str) -> Price:
    """One price."""
    return find(key)


@operation(router, "PATCH", "/{key}", operation_id="price_update", response=PriceOut)
def price_update(request: HttpRequest, key: str, body: PriceChanges) -> Price:
    """Change a price.

    Fields that are not named stay.
    """
    row = find(key)
    present = {name: getattr(row, name) for name in ("pattern", "project", "is_ceiling", *PARTS)}
    given = body.model_dump(exclude_unset=True)
    given = {k: v for k, v in given.items() if v is not None or k in NULLABLE}
    return price_rows.save(caller(request), row, **{**present, **_fields(given)})


@operation(router, "DELETE", "/{key}", operation_id="price_delete", response={204: None})
def price_delete(request: HttpRequest, key: str) -> Any:
    """Remove a price.

    The price list counts again.
    """
    price_rows.remove(caller(request), find(key))
    return Status(204, None)
