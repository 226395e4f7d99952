"""Query parameters that an operation does not take are refused by name: a misspelt filter would otherwise show everything."""

from __future__ import annotations

from functools import cache

from django.http import HttpRequest

from devaipod_web.api.problems import Problem, invalid


def check(request: HttpRequest, route: str) -> None:
    """Raise Problem with 422 for a parameter that the operation's document does not list, with 400 for a NUL in a value."""
    taken = names().get(route.removeprefix("api:"), frozenset())
    unknown = [name for name in request.GET if name not in taken]
    if unknown:
        allowed = f"It takes {', '.join(sorted(taken))}." if taken else "It takes none."
        raise invalid(
            [(name[:60], f"There is no such parameter. {allowed}") for name in unknown[:10]],
            next_step=allowed,
        )
    for name, values in request.GET.lists():
        if any("\x00" in value for value in values):
            raise Problem(400, "bad-text", f"{name}: The value holds a NUL character.")


@cache
def names() -> dict[str, frozenset[str]]:
    """Operation id → the query parameters that its document lists."""
    from devaipod_web.api.app import api

    found: dict[str, frozenset[str]] = {}
    for methods in api.get_openapi_schema()["paths"].values():
        for operation in methods.values():
            found[operation["operationId"]] = frozenset(
                item["name"] for item in operation.get("parameters", ()) if item["in"] == "query"
            )
    return found
