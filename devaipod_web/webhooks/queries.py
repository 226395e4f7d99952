"""What lists and pages of webhooks read."""

from __future__ import annotations

from django.db.models import Count, Q, QuerySet

from devaipod_web.webhooks.models import Delivery, DeliveryState, Webhook

#: Deliveries on a page.
PAGE = 50


def webhooks() -> QuerySet[Webhook]:
    """Every webhook by name, with its project, and how many of its deliveries wait (`queued`) or were given up (`failed`)."""
    return (
        Webhook.objects.select_related("project", "created_by")
        .annotate(
            queued=Count("deliveries", filter=Q(deliveries__state=DeliveryState.QUEUED)),
            failed=Count("deliveries", filter=Q(deliveries__state=DeliveryState.FAILED)),
        )
        .order_by("name", "pk")
    )


def by_key(key: str) -> Webhook | None:
    """The webhook of this key."""
    return webhooks().filter(key=key).first()


def deliveries(webhook: Webhook, *, state: str = "", kind: str = "") -> QuerySet[Delivery]:
    """A webhook's deliveries with their attempts, the newest first; of one state or kind when given."""
    rows = Delivery.objects.filter(webhook=webhook).prefetch_related("attempts")
    if state:
        rows = rows.filter(state=state)
    if kind:
        rows = rows.filter(kind=kind)
    return rows.order_by("-pk")


def delivery(key: str) -> Delivery | None:
    """The delivery of this key with its webhook and attempts."""
    return (
        Delivery.objects.select_related("webhook__project")
        .prefetch_related("attempts")
        .filter(key=key)
        .first()
    )
