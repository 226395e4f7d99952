"""Routes of models over the API."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja import Field, Query, Router, Schema
from ninja.responses import Status

from devaipod_web.api.auth import caller
from devaipod_web.api.projects import find as find_project
from devaipod_web.api.providers import find as find_provider
from devaipod_web.api.reach import nothing
from devaipod_web.api.routing import operation
from devaipod_web.api.schemas.routes import RouteChanges, RouteIn, RouteMove, RouteOut, WhichOut
from devaipod_web.llm import routes
from devaipod_web.llm.models import Route

router = Router(tags=["routes"])


def find(key: str) -> Route:
    """The route of this key. Raises Http404."""
    route = Route.objects.select_related("provider", "project").filter(key=key).first()
    if route is None:
        raise nothing("route", key)
    return route


def _fields(given: dict[str, Any]) -> dict[str, Any]:
    """Names of a body as rows and pairs. Raises Http404 for what is not there."""
    if "provider" in given:
        given["provider"] = find_provider(given["provider"])
    if "project" in given:
        given["project"] = find_project(given["project"]) if given["project"] else None
    if "fallbacks" in given:
        given["fallbacks"] = [(each["provider"], each["model"]) for each in given["fallbacks"]]
    return given


@operation(router, "GET", "", operation_id="routes_list", response=list[RouteOut])
def routes_list(request: HttpRequest) -> list[Route]:
    """List routes in their order."""
    return list(Route.objects.select_related("provider", "project"))


@operation(router, "POST", "", operation_id="route_create", response={201: RouteOut}, once=True)
def route_create(request: HttpRequest, body: RouteIn) -> Any:
    """Add a route at the end.

    The first enabled route that matches a model's name wins.
    """
    return Status(201, routes.save(caller(request), None, **_fields(body.model_dump())))


class Which(Schema):
    """Which model."""

    model: str = Field(description="The model's name.", min_length=1, max_length=200)
    project: str = Field("", description="A project's short name.", max_length=60)


@operation(router, "GET", "/which", operation_id="routes_which", response=WhichOut)
def routes_which(request: HttpRequest, asked: Query[Which]) -> dict[str, Any]:
    """Say which route takes a model.

    Of a run that names no provider; `route` is null when none does.
    """
    found = routes.which(asked.model, find_project(asked.project) if asked.project else None)
    return {"route": found[0] if found else None, "model": found[1] if found else ""}


@operation(router, "GET", "/{key}", operation_id="route_get", response=RouteOut)
def route_get(request: HttpRequest, key: str) -> Route:
    """One route."""
    return find(key)


@operation(router, "PATCH", "/{key}", operation_id="route_update", response=RouteOut)
def route_update(request: HttpRequest, key: str, body: RouteChanges) -> Route:
    """Change a route.

    Fields that are not named stay.
    """
    row = find(key)
    present: dict[str, Any] = {
        "pattern": row.pattern,
        "provider": row.provider,
        "rewrite": row.rewrite,
        "fallbacks": [(each["provider"], each["model"]) for each in row.fallbacks],
        "output_limit": row.output_limit,
        "enabled": row.enabled,
        "project": row.project,
    }
    given = body.model_dump(exclude_unset=True)
    # Null is a value of these two alone.
    given = {k: v for k, v in given.items() if v is not None or k in ("output_limit", "project")}
    return routes.save(caller(request), row, **{**present, **_fields(given)})


@operation(router, "POST", "/{key}/move", operation_id="route_move", response=RouteOut)
def route_move(request: HttpRequest, key: str, body: RouteMove) -> Route:
    """Put a route at another place.

    The others move up or down.
    """
    return routes.move(caller(request), find(key), body.position)


@operation(router, "DELETE", "/{key}", operation_id="route_delete", response={204: None})
def route_delete(request: HttpRequest, key: str) -> Any:
    """Remove a route.

    Its models are taken by the next one that matches, if one does.
    """
    routes.remove(caller(request), find(key))
    return Status(204, None)
