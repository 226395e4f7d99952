"""Addresses of the pages of providers, routes and prices; `devaipod_web/urls.py` includes them at the root."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from devaipod_web.llm import route_views, views

urlpatterns: list[URLPattern | URLResolver] = [
    path("providers/", views.provider_list, name="providers"),
    path("providers/new/", views.provider_new, name="provider_new"),
    path("providers/<str:key>/", views.provider, name="provider"),
    path("providers/<str:key>/test/", views.provider_test, name="provider_test"),
    path("routes/", route_views.route_list, name="routes"),
    path("routes/new/", route_views.route_new, name="route_new"),
    path("routes/<str:key>/", route_views.route, name="route"),
    path("routes/<str:key>/move/", route_views.route_move, name="route_move"),
    path("prices/", route_views.price_page, name="prices"),
    path("prices/new/", route_views.price_new, name="price_new"),
    path("prices/<str:key>/", route_views.price, name="price"),
]
