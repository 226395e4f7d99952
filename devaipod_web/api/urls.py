"""Addresses of the API; `devaipod_web/urls.py` includes them at the root."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from devaipod_web.api.app import api
from devaipod_web.api.docs import docs

urlpatterns: list[URLPattern | URLResolver] = [
    path("api/devaipod/docs", docs, name="api_docs"),
    path("api/devaipod/", api.urls),
]
