"""Addresses of the webhooks' pages; `devaipod_web/urls.py` includes them at the root."""

from __future__ import annotations

from django.urls import path

from devaipod_web.webhooks import views

urlpatterns = [
    path("webhooks/", views.webhook_list, name="webhooks"),
    path("webhooks/new/", views.webhook_new, name="webhook_new"),
    path("webhooks/<slug:key>/", views.webhook, name="webhook"),
    path("webhooks/<slug:key>/settings/", views.webhook_settings, name="webhook_settings"),
    path("webhooks/<slug:key>/rotate/", views.webhook_rotate, name="webhook_rotate"),
    path("webhooks/<slug:key>/switch/", views.webhook_switch, name="webhook_switch"),
    path("webhooks/<slug:key>/test/", views.webhook_test, name="webhook_test"),
    path("webhooks/<slug:key>/remove/", views.webhook_remove, name="webhook_remove"),
    path("webhooks/<slug:key>/deliveries/<slug:delivery>/", views.delivery, name="delivery"),
    path(
        "webhooks/<slug:key>/deliveries/<slug:delivery>/redeliver/",
        views.delivery_redeliver,
        name="delivery_redeliver",
    ),
]
