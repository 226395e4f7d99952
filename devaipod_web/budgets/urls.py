"""Addresses of the pages of spend, budgets and incidents; `devaipod_web/urls.py` includes them at the root."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from devaipod_web.budgets import incident_views, views
from devaipod_web.budgets.spend import views as spend

urlpatterns: list[URLPattern | URLResolver] = [
    path("spend/", spend.spend, name="spend"),
    path("spend/export.csv", spend.export, name="spend_export"),
    path("spend/calls.csv", spend.calls, name="spend_calls"),
    path("spend/budgets/", views.budget_list, name="budgets"),
    path("spend/budgets/new/", views.budget_new, name="budget_new"),
    path("spend/budgets/<slug:key>/", views.budget, name="budget"),
    path("spend/budgets/<slug:key>/change/", views.budget_change, name="budget_change"),
    path("spend/budgets/<slug:key>/remove/", views.budget_remove, name="budget_remove"),
    path("spend/incidents/", incident_views.incident_list, name="incidents"),
    path("spend/incidents/<slug:key>/", incident_views.incident, name="incident"),
    path(
        "spend/incidents/<slug:key>/resolve/",
        incident_views.incident_resolve,
        name="incident_resolve",
    ),
]
