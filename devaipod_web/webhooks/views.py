"""Pages of webhooks and their deliveries, for managers."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from devaipod_web.accounts.models import User
from devaipod_web.webhooks import queries, services
from devaipod_web.webhooks.errors import InvalidWebhook, WebhookDisabled
from devaipod_web.webhooks.forms import WebhookForm
from devaipod_web.webhooks.models import Delivery, DeliveryState, Webhook


def _me(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


def _find(key: str) -> Webhook:
    found = queries.by_key(key)
    if found is None:
        raise Http404
    return found


def _find_delivery(key: str, delivery: str) -> Delivery:
    found = queries.delivery(delivery)
    if found is None or found.webhook.key != key:
        raise Http404
    return found


@require_GET
def webhook_list(request: HttpRequest) -> HttpResponse:
    """Every webhook and how it does."""
    return render(request, "webhooks/list.html", {"webhooks": queries.webhooks()})


@never_cache
def webhook_new(request: HttpRequest) -> HttpResponse:
    """Make a webhook; its secret is shown this once, in the answer to the POST."""
    form = WebhookForm(None, request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            row, secret = services.create(_me(request), **_given(form))
            return render(request, "webhooks/made.html", {"webhook": row, "secret": secret})
        except InvalidWebhook as error:
            _explain(form, error)
    status = 400 if form.is_bound else 200
    return render(request, "webhooks/new.html", {"form": form}, status=status)


@require_GET
def webhook(request: HttpRequest, key: str) -> HttpResponse:
    """What was sent to a webhook, the newest first; state and page are in the address."""
    row = _find(key)
    state = request.GET.get("state", "")
    state = state if state in DeliveryState.values else ""
    rows = Paginator(queries.deliveries(row, state=state), queries.PAGE)
    context = {
        "webhook": row,
        "tab": "deliveries",
        "rows": rows.get_page(request.GET.get("page")),
        "states": DeliveryState.values,
        "state": state,
        "query": f"state={state}",
    }
    return render(request, "webhooks/deliveries.html", context)


@never_cache
def webhook_settings(request: HttpRequest, key: str) -> HttpResponse:
    """Change a webhook: name, address, kinds, project."""
    row = _find(key)
    form = WebhookForm(row, request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            services.change(row, _me(request), **_given(form))
            messages.success(request, f"{row.name} is saved.")
            return redirect("webhook_settings", row.key)
        except InvalidWebhook as error:
            _explain(form, error)
            row.refresh_from_db()
    return _settings(request, row, form, status=400 if form.is_bound else 200)


@never_cache
@require_POST
def webhook_rotate(request: HttpRequest, key: str) -> HttpResponse:
    """Make a new secret and show it, this once."""
    row = _find(key)
    secret = services.rotate(row, _me(request))
    return _settings(request, row, WebhookForm(row), secret=secret)


@require_POST
def webhook_switch(request: HttpRequest, key: str) -> HttpResponse:
    """Enable a webhook (`to=on`) or disable it."""
    row = _find(key)
    if request.POST.get("to") == "on":
        services.enable(row, _me(request))
        messages.success(request, f"{row.name} is enabled.")
    else:
        services.disable(row, _me(request))
        messages.success(request, f"{row.name} is disabled.")
    return redirect("webhook", row.key)


@require_POST
def webhook_test(request: HttpRequest, key: str) -> HttpResponse:
    """Send a test event, and go where its attempt shows."""
    row = _find(key)
    try:
        made = services.test(row, _me(request))
    except WebhookDisabled as error:
        messages.error(request, error.sentence)
        return redirect("webhook", row.key)
    return redirect("delivery", row.key, made.key)


@require_POST
def webhook_remove(request: HttpRequest, key: str) -> HttpResponse:
    """Remove a webhook with its deliveries."""
    row = _find(key)
    services.remove(row, _me(request))
    messages.success(request, f"{row.name} is removed.")
    return redirect("webhooks")


@require_GET
def delivery(request: HttpRequest, key: str, delivery: str) -> HttpResponse:
    """One delivery: its attempts, and what is sent."""
    row = _find_delivery(key, delivery)
    context = {
        "delivery": row,
        "webhook": row.webhook,
        "attempts": row.attempts.all(),
        "payload": json.loads(row.payload),
    }
    return render(request, "webhooks/delivery.html", context)


@require_POST
def delivery_redeliver(request: HttpRequest, key: str, delivery: str) -> HttpResponse:
    """Send a delivery again, now."""
    row = _find_delivery(key, delivery)
    try:
        services.redeliver(row, _me(request))
        messages.success(request, "It is sent again.")
    except WebhookDisabled as error:
        messages.error(request, error.sentence)
    return redirect("delivery", key, delivery)


def _given(form: WebhookForm) -> dict[str, Any]:
    data = form.cleaned_data
    return {
        "name": data["name"],
        "url": data["url"],
        "events": data["events"],
        "project": form.chosen_project(),
    }


def _explain(form: WebhookForm, error: InvalidWebhook) -> None:
    for name, text in error.errors.items():
        form.add_error(name, text)


def _settings(
    request: HttpRequest, row: Webhook, form: WebhookForm, *, secret: str = "", status: int = 200
) -> HttpResponse:
    context = {
        "webhook": row,
        "tab": "settings",
        "form": form,
        "secret": secret,
        "rotation_hours": services.ROTATION.total_seconds() // 3600,
    }
    return render(request, "webhooks/settings.html", context, status=status)
