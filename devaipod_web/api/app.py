"""The one place that mounts the API's rooms."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja import NinjaAPI, Router

from devaipod_web import __version__
from devaipod_web.api import (
    budgets,
    prices,
    problems,
    providers,
    retention,
    reviews,
    routes,
    runs,
    services,
    status,
    targets,
    tokens,
    usage,
    webhooks,
)
from devaipod_web.api import pods as api_pods
from devaipod_web.api import projects as api_projects
from devaipod_web.api.bodies import StrictParser
from devaipod_web.api.openapi import document
from devaipod_web.api.routing import operation

api = NinjaAPI(
    title="devaipod web",
    version=__version__,
    description=(
        "Launch agents, watch them, unblock them, review their work and promote it. Send "
        "`Authorization: Bearer dvp_…`. Errors are problem documents (RFC 9457), lists are paged by "
        "cursor (`next` is the next page's address), streams are NDJSON."
    ),
    urls_namespace="api",
    parser=StrictParser(),
    # Both are served by views of our own: the framework's page loads scripts from elsewhere.
    openapi_url=None,
    docs_url=None,
)
problems.install(api)

schema_router = Router()


@operation(schema_router, "GET", "/openapi.json", operation_id="openapi", include_in_schema=False)
def openapi(request: HttpRequest) -> dict[str, Any]:
    """The API's OpenAPI document."""
    return document()


api.add_router("/status", status.router)
api.add_router("/services", services.router)
api.add_router("", services.installation_router)
api.add_router("/projects", api_projects.router)
api.add_router("/providers", providers.router)
api.add_router("/targets", targets.router)
api.add_router("/routes", routes.router)
api.add_router("/prices", prices.router)
api.add_router("/runs", runs.router)
api.add_router("/pods", api_pods.router)
api.add_router("/reviews", reviews.router)
api.add_router("/usage", usage.router)
api.add_router("/budgets", budgets.router)
api.add_router("/incidents", budgets.incidents_router)
api.add_router("/tokens", tokens.router)
api.add_router("/webhooks", webhooks.router)
api.add_router("/deliveries", webhooks.deliveries_router)
api.add_router("/retention", retention.router)
api.add_router("", schema_router)
