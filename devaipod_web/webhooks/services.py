"""What can be done to a webhook and to a delivery. Each change is in the audit log; a secret never is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from devaipod_web.accounts.models import User
from devaipod_web.forges import guard
from devaipod_web.forges.errors import ForgeError
from devaipod_web.llm import vault
from devaipod_web.projects.models import Project
from devaipod_web.reviews import audit
from devaipod_web.runs import wake
from devaipod_web.webhooks import kinds, signing
from devaipod_web.webhooks.errors import InvalidWebhook, WebhookDisabled
from devaipod_web.webhooks.kinds import SUBSCRIBABLE, Kind
from devaipod_web.webhooks.models import Delivery, DeliveryState, Webhook

MAX_NAME = 80
#: How long the secret before signs beside the new one.
ROTATION = timedelta(hours=24)
#: Deliveries removed in one transaction: the database's writer is not held up.
PRUNE_AT_ONCE = 500


def create(
    by: User, *, name: str, url: str, events: Sequence[str], project: Project | None = None
) -> tuple[Webhook, str]:
    """Make a webhook and return it with its secret, which is shown this once. Raises InvalidWebhook."""
    fields = _checked(name=name, url=url, events=events)
    secret = signing.new_secret()
    with transaction.atomic():
        webhook = Webhook.objects.create(
            **fields, project=project, secret=vault.seal(secret.encode()), created_by=by
        )
        _audit(by, webhook, "added", _facts(webhook))
    return webhook, secret


def change(
    webhook: Webhook,
    by: User,
    *,
    name: str,
    url: str,
    events: Sequence[str],
    project: Project | None,
) -> Webhook:
    """Change name, address, kinds and project. What is queued goes to the new address. Raises InvalidWebhook."""
    fields = {**_checked(name=name, url=url, events=events), "project": project}
    changed = [field for field, value in fields.items() if getattr(webhook, field) != value]
    if not changed:
        return webhook
    for field, value in fields.items():
        setattr(webhook, field, value)
    with transaction.atomic():
        webhook.save(update_fields=list(fields))
        _audit(by, webhook, "changed", {**_facts(webhook), "changed": changed})
    return webhook


def rotate(webhook: Webhook, by: User) -> str:
    """Give the webhook a new secret and return it. For `ROTATION` the one before signs too, so that nothing is lost meanwhile."""
    secret = signing.new_secret()
    until = timezone.now() + ROTATION
    with transaction.atomic():
        webhook.previous_secret, webhook.previous_until = webhook.secret, until
        webhook.secret = vault.seal(secret.encode())
        webhook.save(update_fields=["secret", "previous_secret", "previous_until"])
        _audit(by, webhook, "rotated", {"previous_signs_until": until.isoformat()})
    return secret


def enable(webhook: Webhook, by: User) -> None:
    """Send again; what was queued when it was disabled is sent now. What happened meanwhile was not queued."""
    with transaction.atomic():
        done = Webhook.objects.filter(pk=webhook.pk, enabled=False).update(
            enabled=True, disabled_reason="", disabled_at=None, failing_since=None, quiet_until=None
        )
        if done:
            _audit(by, webhook, "enabled")
            wake.wake(wake.WEBHOOKS)
    webhook.refresh_from_db()


def disable(webhook: Webhook, by: User | None, *, reason: str = "") -> None:
    """Send nothing more until somebody enables it. `by` is None when the sender does it, for a reason of the receiver's."""
    words = (reason or f"Disabled by {by}.")[:500]
    with transaction.atomic():
        done = Webhook.objects.filter(pk=webhook.pk, enabled=True).update(
            enabled=False, disabled_reason=words, disabled_at=timezone.now()
        )
        if done:
            _audit(by, webhook, "disabled", {"reason": words})
            wake.wake(wake.WEBHOOKS)
    webhook.refresh_from_db()


def remove(webhook: Webhook, by: User) -> None:
    """Remove a webhook with its deliveries."""
    with transaction.atomic():
        audit.write(by, "webhook.removed", target=webhook.name, detail=_facts(webhook))
        webhook.delete()


def test(webhook: Webhook, by: User) -> Delivery:
    """Queue an event of the kind `webhook.test`. Raises WebhookDisabled."""
    _must_be_enabled(webhook)
    now = timezone.now()
    data = {"webhook": webhook.key, "name": webhook.name, "by": by.get_username()}
    with transaction.atomic():
        delivery = Delivery.objects.create(
            webhook=webhook,
            kind=Kind.TEST,
            payload=kinds.payload(Kind.TEST, data, at=now),
            next_attempt_at=now,
        )
        _audit(by, webhook, "tested", {"delivery": delivery.key})
        wake.wake(wake.WEBHOOKS)
    return delivery


def redeliver(delivery: Delivery, by: User) -> Delivery:
    """Send a delivery again, now: the same payload under the same `webhook-id`, with the whole schedule before it.

    One that waits for its next attempt is tried at once. Raises WebhookDisabled.
    """
    _must_be_enabled(delivery.webhook)
    now = timezone.now()
    with transaction.atomic():
        Delivery.objects.filter(pk=delivery.pk, lease_owner="").update(
            state=DeliveryState.QUEUED, attempts_made=0, next_attempt_at=now, ended_at=None
        )
        _audit(by, delivery.webhook, "redelivered", {"delivery": delivery.key})
        wake.wake(wake.WEBHOOKS)
    delivery.refresh_from_db()
    return delivery


def prune(now: datetime) -> int:
    """Remove a batch of deliveries older than KEEP_DELIVERIES and return how many; 0 when nothing is left."""
    old = Delivery.objects.filter(created_at__lt=now - settings.KEEP_DELIVERIES)
    batch = list(old.order_by("created_at").values_list("pk", flat=True)[:PRUNE_AT_ONCE])
    Delivery.objects.filter(pk__in=batch).delete()
    return len(batch)


def _must_be_enabled(webhook: Webhook) -> None:
    if not webhook.enabled:
        raise WebhookDisabled(
            f"{webhook.name} is disabled, so nothing is sent to it.",
            next_step="Enable it first.",
        )


def _checked(*, name: str, url: str, events: Sequence[str]) -> dict[str, Any]:
    errors: dict[str, str] = {}
    name = " ".join(name.split())
    if not name or len(name) > MAX_NAME or not name.isprintable():
        errors["name"] = f"A name has 1 to {MAX_NAME} characters."
    try:
        url = guard.check_webhook(url)
    except ForgeError as error:
        errors["url"] = error.sentence
    chosen = [str(kind) for kind in SUBSCRIBABLE if kind in events]
    unknown = [event for event in events if event not in SUBSCRIBABLE]
    if unknown:
        errors["events"] = f"There is no kind of event {str(unknown[0])[:40]!r}."
    elif not chosen:
        errors["events"] = "Choose at least one kind of event."
    if errors:
        raise InvalidWebhook(errors)
    return {"name": name, "url": url, "events": chosen}


def _facts(webhook: Webhook) -> dict[str, Any]:
    # What stands after the ? may be a credential of the receiver's.
    return {
        "url": webhook.url.partition("?")[0],
        "events": webhook.events,
        "project": webhook.project.slug if webhook.project else "",
    }


def _audit(
    by: User | None, webhook: Webhook, verb: str, detail: dict[str, Any] | None = None
) -> None:
    audit.write(
        by,
        f"webhook.{verb}",
        target=webhook.name,
        target_url=f"/webhooks/{webhook.key}/",
        detail=detail,
    )
