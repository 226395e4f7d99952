"""Webhooks, what is to be delivered to them, and each attempt at it.

A delivery is written in the transaction of what it is about (an outbox): whatever happened is sent, and nothing is sent that
did not happen. Its key is the `webhook-id` of every attempt, by which a receiver knows a repetition.
"""

from __future__ import annotations

from django.conf import settings
from django.db import models

from devaipod_web.fields import KeyField


class Webhook(models.Model):
    """An address that is told about runs and reviews, signed with a secret that is encrypted at rest."""

    key = KeyField()
    name = models.CharField(max_length=80)
    url = models.CharField(max_length=500)
    events = models.JSONField(default=list, help_text="The kinds of events that it is sent.")
    project = models.ForeignKey(
        "projects.Project",
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="webhooks",
        help_text="Only of this project; of all when null.",
    )
    secret = models.BinaryField()
    previous_secret = models.BinaryField(blank=True, default=b"")
    previous_until = models.DateTimeField(
        null=True, blank=True, help_text="Until then the secret before signs too."
    )
    enabled = models.BooleanField(default=True)
    disabled_reason = models.CharField(max_length=500, blank=True)
    disabled_at = models.DateTimeField(null=True, blank=True)
    failing_since = models.DateTimeField(
        null=True, blank=True, help_text="The first failure since the last success."
    )
    quiet_until = models.DateTimeField(
        null=True, blank=True, help_text="The receiver asked not to be sent anything before."
    )
    last_delivered_at = models.DateTimeField(null=True, blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name", "id"]

    def __str__(self) -> str:
        return self.name


class DeliveryState(models.TextChoices):
    """How far a delivery is."""

    QUEUED = "queued"
    DELIVERED = "delivered"
    FAILED = "failed"


class Delivery(models.Model):
    """One event for one webhook."""

    key = KeyField()
    webhook = models.ForeignKey(Webhook, on_delete=models.CASCADE, related_name="deliveries")
    kind = models.CharField(max_length=40)
    payload = models.TextField(help_text="The JSON text that is sent, to the byte.")
    state = models.CharField(
        max_length=10, choices=DeliveryState.choices, default=DeliveryState.QUEUED
    )
    attempts_made = models.PositiveSmallIntegerField(
        default=0, help_text="Since it was queued last; the schedule counts them."
    )
    next_attempt_at = models.DateTimeField(null=True, blank=True)
    lease_owner = models.CharField(max_length=40, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "deliveries"
        indexes = [
            models.Index(
                fields=["webhook", "next_attempt_at"],
                name="delivery_queue",
                condition=models.Q(state="queued"),
            ),
            models.Index(fields=["created_at"], name="delivery_age"),
        ]

    def __str__(self) -> str:
        return f"{self.key} {self.kind}"


class Attempt(models.Model):
    """One request of a delivery and what came back. `status` is null when no answer came; `error` then says why."""

    delivery = models.ForeignKey(Delivery, on_delete=models.CASCADE, related_name="attempts")
    at = models.DateTimeField()
    status = models.PositiveSmallIntegerField(null=True)
    milliseconds = models.PositiveIntegerField()
    error = models.CharField(max_length=500, blank=True)
    answer = models.CharField(
        max_length=500, blank=True, help_text="The answer's first characters."
    )

    class Meta:
        ordering = ["id"]

    @property
    def ok(self) -> bool:
        """Whether the receiver took it: any 2xx."""
        return self.status is not None and 200 <= self.status < 300
