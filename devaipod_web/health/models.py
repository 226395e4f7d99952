"""What each process last said of the services that it looks after, and whether the installation takes new runs."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class Health(models.TextChoices):
    """How a service is."""

    OK = "ok", "ok"
    DEGRADED = "degraded", "degraded"
    DOWN = "down", "down"
    UNKNOWN = "unknown", "unknown"


class ServiceBeat(models.Model):
    """One service as one process last found it. Written by that process alone, save `restart_asked_at`, which anybody sets."""

    service = models.CharField(max_length=60, help_text="Its name: stable, in addresses and API.")
    process = models.CharField(
        max_length=60, help_text="Host, pid and start of who looks after it."
    )
    title = models.CharField(max_length=120)
    kind = models.CharField(max_length=20)
    version = models.CharField(max_length=80, blank=True)
    health = models.CharField(max_length=10, choices=Health.choices, default=Health.UNKNOWN)
    says = models.CharField(max_length=500, blank=True)
    next_step = models.CharField(max_length=500, blank=True)
    facts = models.JSONField(default=dict, blank=True, help_text="Label → text, for the details.")
    since = models.DateTimeField(help_text="Since when its health is what it is.")
    at = models.DateTimeField(db_index=True, help_text="When the process last wrote this row.")
    ended = models.BooleanField(default=False, help_text="The process said good-bye.")
    lag_seconds = models.FloatField(null=True, blank=True)
    last_beat = models.DateTimeField(
        null=True, blank=True, help_text="When its loop last went round."
    )
    last_error = models.CharField(max_length=500, blank=True)
    last_error_at = models.DateTimeField(null=True, blank=True)
    restart_does = models.CharField(max_length=300, blank=True)
    no_restart = models.CharField(max_length=300, blank=True)
    restart_asked_at = models.DateTimeField(null=True, blank=True)
    restarted_at = models.DateTimeField(null=True, blank=True)
    restart_error = models.CharField(max_length=500, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["service", "process"], name="one_beat_a_service_and_process"
            )
        ]

    def __str__(self) -> str:
        return f"{self.service} ({self.health})"


class Drain(models.Model):
    """While a row is there, the installation takes no new runs. There is at most one (its key is always 1)."""

    at = models.DateTimeField(auto_now_add=True)
    by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL)

    def __str__(self) -> str:
        return f"draining since {self.at:%Y-%m-%d %H:%M}"
