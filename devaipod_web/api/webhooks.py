"""Webhooks over the API: made, changed, tested, removed; and their deliveries."""

from __future__ import annotations

from typing import Any, Literal

from django.db.models import QuerySet
from django.http import HttpRequest
from ninja import Field, Query, Router, Schema
from ninja.responses import Status

from devaipod_web.api.auth import caller
from devaipod_web.api.projects import find as find_project
from devaipod_web.api.reach import nothing
from devaipod_web.api.routing import Order, operation, paged
from devaipod_web.api.schemas.webhooks import (
    DeliveryDetail,
    DeliveryOut,
    WebhookChanges,
    WebhookIn,
    WebhookMade,
    WebhookOut,
)
from devaipod_web.webhooks import queries, services
from devaipod_web.webhooks.models import Delivery, Webhook

router = Router(tags=["webhooks"])
deliveries_router = Router(tags=["webhooks"])


ORDERS = {
    "newest": Order("created_at", descending=True),
    "oldest": Order("created_at"),
}


class Filters(Schema):
    """Which deliveries."""

    state: Literal["", "queued", "delivered", "failed"] = Field("", description="How far it is.")
    kind: str = Field("", description="The kind of event.", max_length=60)


def find(key: str) -> Webhook:
    """The webhook of this key. Raises Http404."""
    found = queries.by_key(key)
    if found is None:
        raise nothing("webhook", key)
    return found


def find_delivery(key: str) -> Delivery:
    """The delivery of this key. Raises Http404."""
    found = queries.delivery(key)
    if found is None:
        raise nothing("delivery", key)
    return found


def _out(row: Webhook) -> dict[str, Any]:
    plain = WebhookOut.model_fields.keys() - {"project", "created_by"}
    return {
        **{name: getattr(row, name) for name in plain},
        "project": row.project.slug if row.project else None,
        "created_by": row.created_by.get_username() if row.created_by else None,
    }


@operation(router, "GET", "", operation_id="webhooks_list", response=list[WebhookOut])
def webhooks_list(request: HttpRequest) -> list[dict[str, Any]]:
    """List webhooks by name, without their secrets."""
    return [_out(row) for row in queries.webhooks()]


@operation(
    router, "POST", "", operation_id="webhook_create", response={201: WebhookMade}, once=True
)
def webhook_create(request: HttpRequest, body: WebhookIn) -> Any:
    """Make a webhook.

    Its secret is in this answer and nowhere else.
    """
    webhook, secret = services.create(
        caller(request),
        name=body.name,
        url=body.url,
        events=body.events,
        project=find_project(body.project) if body.project is not None else None,
    )
    return Status(201, {**_out(webhook), "secret": secret})


@operation(router, "GET", "/{key}", operation_id="webhook_get", response=WebhookOut)
def webhook_get(request: HttpRequest, key: str) -> dict[str, Any]:
    """One webhook, without its secret."""
    return _out(find(key))


@operation(router, "PATCH", "/{key}", operation_id="webhook_update", response=WebhookOut)
def webhook_update(request: HttpRequest, key: str, body: WebhookChanges) -> dict[str, Any]:
    """Change a webhook, or enable or disable it.

    What is queued goes to the new address.
    """
    webhook, by = find(key), caller(request)
    project = webhook.project
    if "project" in body.model_fields_set:
        project = find_project(body.project) if body.project is not None else None
    services.change(
        webhook,
        by,
        name=webhook.name if body.name is None else body.name,
        url=webhook.url if body.url is None else body.url,
        events=webhook.events if body.events is None else body.events,
        project=project,
    )
    if body.enabled is not None:
        (services.enable if body.enabled else services.disable)(webhook, by)
    return _out(find(key))


@operation(router, "DELETE", "/{key}", operation_id="webhook_delete", response={204: None})
def webhook_delete(request: HttpRequest, key: str) -> Any:
    """Remove a webhook with its deliveries."""
    services.remove(find(key), caller(request))
    return Status(204, None)


@operation(router, "POST", "/{key}/rotate", operation_id="webhook_rotate", response=WebhookMade)
def webhook_rotate(request: HttpRequest, key: str) -> dict[str, Any]:
    """Give a webhook a new secret.

    It is in this answer and nowhere else. For a day both sign.
    """
    webhook = find(key)
    secret = services.rotate(webhook, caller(request))
    return {**_out(webhook), "secret": secret}


@operation(
    router,
    "POST",
    "/{key}/test",
    operation_id="webhook_test",
    response={202: DeliveryDetail},
    once=True,
    problems=(409,),
)
def webhook_test(request: HttpRequest, key: str) -> Any:
    """Queue an event of the kind `webhook.test`.

    How it went is in the delivery.
    """
    return Status(202, services.test(find(key), caller(request)))


@operation(
    router, "GET", "/{key}/deliveries", operation_id="deliveries_list", response=list[DeliveryOut]
)
@paged(ORDERS)
def deliveries_list(request: HttpRequest, key: str, filters: Query[Filters]) -> QuerySet[Delivery]:
    """List a webhook's deliveries.

    With their attempts, the newest first. They are kept for 30 days.
    """
    rows = queries.deliveries(find(key), state=filters.state, kind=filters.kind)
    return rows.select_related("webhook")


@operation(deliveries_router, "GET", "/{key}", operation_id="delivery_get", response=DeliveryDetail)
def delivery_get(request: HttpRequest, key: str) -> Delivery:
    """One delivery with its attempts and its payload."""
    return find_delivery(key)


@operation(
    deliveries_router,
    "POST",
    "/{key}/redeliver",
    operation_id="delivery_redeliver",
    response={202: DeliveryDetail},
    once=True,
    problems=(409,),
)
def delivery_redeliver(request: HttpRequest, key: str) -> Any:
    """Send a delivery again, now.

    It is the same payload under the same `webhook-id`.
    """
    services.redeliver(find_delivery(key), caller(request))
    return Status(202, find_delivery(key))
