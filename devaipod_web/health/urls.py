"""Addresses of the services; `devaipod_web/urls.py` includes them at the root."""

from __future__ import annotations

from django.urls import path

from devaipod_web.health import views

urlpatterns = [
    path("services/", views.services, name="services"),
    path("services/live/", views.services_live, name="services_live"),
    path("services/set-up/", views.installation_setup, name="installation_setup"),
    path("services/<slug:service>/restart/", views.service_restart, name="service_restart"),
]
