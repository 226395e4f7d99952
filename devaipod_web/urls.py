"""The web app's URL map: each room's own, mounted at the root. The gateway has a map of its own and shares none of it."""

from __future__ import annotations

from importlib.util import find_spec

from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, URLResolver, include, path


def healthz(request: HttpRequest) -> HttpResponse:
    """Answers while the web service does."""
    return HttpResponse("ok\n", content_type="text/plain")


ROOMS = (
    "accounts",
    "projects",
    "llm",
    "targets",
    "reviews",
    "runs",
    "budgets",
    "webhooks",
    "health",
    "api",
)

urlpatterns: list[URLPattern | URLResolver] = [
    path("healthz", healthz, name="healthz"),
    *(
        path("", include(f"devaipod_web.{room}.urls"))
        for room in ROOMS
        if find_spec(f"devaipod_web.{room}.urls")
    ),
]
