"""Addresses of the targets' pages; `devaipod_web/urls.py` includes them at the root."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from devaipod_web.targets import views

urlpatterns: list[URLPattern | URLResolver] = [
    path("targets/", views.target_list, name="targets"),
    path("targets/new/", views.target_new, name="target_new"),
    path("targets/<str:key>/", views.target, name="target"),
    path("targets/<str:key>/test/", views.target_test, name="target_test"),
]
