"""The web app's URL map: each room's own, mounted at the root. The gateway has a map of its own and shares none of it."""

from __future__ import annotations

from importlib.util import find_spec

from django.urls import URLPattern, URLResolver, include, path

from devaipod_web.health import probes

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
    path("healthz", probes.healthz, name="healthz"),
    path("readyz", probes.readyz, name="readyz"),
    *(
        path("", include(f"devaipod_web.{room}.urls"))
        for room in ROOMS
        if find_spec(f"devaipod_web.{room}.urls")
    ),
]
