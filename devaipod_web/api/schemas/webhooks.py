"""Schemas of webhooks and their deliveries."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Literal

from ninja import Schema

from devaipod_web.api.schemas.common import Body, doc, optional
from devaipod_web.webhooks.models import Attempt, Delivery

WHEN = "2026-11-24T20:14:03.512Z"
KEY = "k5n2w8c3ue"
URL = "https://receiver.example/devaipod"
MAX_URL = 500


class WebhookOut(Schema):
    """A webhook without its secret."""

    key: str = doc("The webhook's public key.", KEY)
    name: str = doc("Its name.", "Chat")
    url: str = doc("Where its events are sent.", URL)
    events: list[str] = doc("The kinds that it is told.", ["run.state", "review.opened"])
    project: str | None = doc("The project's short name; null for all projects.", "payments")
    enabled: bool = doc("Whether anything is sent.", True)
    disabled_reason: str = doc("Why nothing is sent, in a sentence, or empty.", "")
    disabled_at: datetime | None = doc("Since when nothing is sent, RFC 3339, or null.", None)
    failing_since: datetime | None = doc("The first failure since the last success.", None)
    last_delivered_at: datetime | None = doc("The last success, or null.", WHEN)
    previous_until: datetime | None = doc("Until then the secret before signs too.", None)
    created_by: str | None = doc("Who made it: a name for signing in.", "mona")
    created_at: datetime = doc("When it was made.", WHEN)


class WebhookMade(WebhookOut):
    """A webhook with its secret, which is in this answer and nowhere else."""

    secret: str = doc("What its events are signed with.", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")


class WebhookIn(Body):
    """A new webhook."""

    name: str = doc("A name.", "Chat", max_length=200)
    url: str = doc("Where its events are sent.", URL, max_length=MAX_URL)
    events: list[str] = doc("Kinds.", ["run.state", "review.opened"], max_length=20)
    project: str | None = optional("A project's short name; null: all projects.", max_length=60)


class WebhookChanges(Body):
    """Fields to be changed; those not named stay."""

    name: str | None = optional("A name.", "Chat", max_length=200)
    url: str | None = optional("Where its events are sent.", URL, max_length=MAX_URL)
    events: list[str] | None = optional("Kinds.", ["run.state"], max_length=20)
    project: str | None = optional("A project's short name; null: all projects.", max_length=60)
    enabled: bool | None = optional("Whether anything is sent.", True)


class AttemptOut(Schema):
    """One request and what came back."""

    at: datetime = doc("When it was sent, RFC 3339.", WHEN)
    status: int | None = doc("The HTTP status, or null when no answer came.", 200)
    milliseconds: int = doc("How long it took.", 84)
    error: str = doc("Why no answer came, or empty.", "")
    answer: str = doc("The answer's first characters. They come from the receiver.", "ok")


class DeliveryOut(Schema):
    """One event for one webhook."""

    key: str = doc("The `webhook-id` of every attempt.", "p3d8y5m2ra")
    webhook: str = doc("The key of its webhook.", KEY)
    kind: str = doc("The kind of event.", "run.state")
    state: Literal["queued", "delivered", "failed"] = doc(
        "How far it is; failed: given up.", "delivered"
    )
    attempts: list[AttemptOut] = doc("What was tried so far, oldest first.", [])
    next_attempt_at: datetime | None = doc("When it is tried next, or null.", None)
    created_at: datetime = doc("When the event happened.", WHEN)
    ended_at: datetime | None = doc("When it was delivered or given up, or null.", WHEN)

    @staticmethod
    def resolve_webhook(obj: Delivery) -> str:
        return str(obj.webhook.key)

    @staticmethod
    def resolve_attempts(obj: Delivery) -> list[Attempt]:
        return list(obj.attempts.all())


class DeliveryDetail(DeliveryOut):
    """The same with what is sent."""

    payload: dict[str, Any] = doc(
        "What is sent: `type`, `timestamp`, `version`, `data`.", {"type": "run.state"}
    )

    @staticmethod
    def resolve_payload(obj: Delivery) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(obj.payload)
        return found
