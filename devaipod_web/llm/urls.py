"""Addresses of the providers' pages; `devaipod_web/urls.py` includes them at the root."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from devaipod_web.llm import views

urlpatterns: list[URLPattern | URLResolver] = [
    path("providers/", views.provider_list, name="providers"),
    path("providers/new/", views.provider_new, name="provider_new"),
    path("providers/<str:key>/", views.provider, name="provider"),
    path("providers/<str:key>/test/", views.provider_test, name="provider_test"),
]
