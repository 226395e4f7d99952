"""The API alone, for tests that do not need the pages."""

from __future__ import annotations

from devaipod_web.api.urls import urlpatterns as api_urls

urlpatterns = [*api_urls]
