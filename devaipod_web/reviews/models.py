"""Reviews of what runs staged, promotions, and the audit log."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from devaipod_web.fields import KeyField


class ReviewState(models.TextChoices):
    """Where a review is."""

    OPEN = "open", "waiting for review"
    PROMOTED = "promoted"
    REJECTED = "rejected"


class Review(models.Model):
    """What a run staged: base, head and the hash of the diff between them are fixed until the next push.

    `head` is pinned in the run's repository under `refs/devaipod/reviews/<key>/<head>`.
    """

    key = KeyField()
    run = models.OneToOneField("runs.Run", on_delete=models.CASCADE, related_name="review")
    state = models.CharField(max_length=10, choices=ReviewState.choices, default=ReviewState.OPEN)
    base = models.CharField(max_length=64)
    head = models.CharField(max_length=64)
    diff_digest = models.CharField(max_length=64)
    revision = models.PositiveIntegerField(default=1)
    commits = models.PositiveIntegerField(default=0)
    files = models.PositiveIntegerField(default=0)
    additions = models.PositiveIntegerField(default=0)
    deletions = models.PositiveIntegerField(default=0)
    largest_files = models.JSONField(
        default=list, help_text="[{path, additions, deletions}], those that changed most first."
    )
    risks = models.JSONField(
        default=list, help_text="[{code, path, text}] each needs a tick of its own."
    )
    opened_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True, blank=True)
    closed_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL)

    class Meta:
        ordering = ["-updated_at"]

    def __str__(self) -> str:
        return f"{self.key} at {self.head[:12]}"

    @property
    def ticks(self) -> int:
        """How many risks a person must confirm before it is promoted."""
        return sum(1 for risk in self.risks if risk.get("tick", True))


class PromotionState(models.TextChoices):
    """How far a promotion is."""

    STARTED = "started"
    DONE = "done"
    REFUSED = "refused"


class Promotion(models.Model):
    """One push of a reviewed commit to the production remote."""

    key = KeyField()
    review = models.ForeignKey(Review, on_delete=models.CASCADE, related_name="promotions")
    head = models.CharField(max_length=64)
    diff_digest = models.CharField(max_length=64)
    target_url = models.CharField(max_length=500)
    target_branch = models.CharField(max_length=250)
    by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL)
    state = models.CharField(
        max_length=10, choices=PromotionState.choices, default=PromotionState.STARTED
    )
    message = models.CharField(max_length=1000, blank=True)
    started_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-started_at"]


class AuditEntry(models.Model):
    """Who did what. Each entry carries the hash of the one before it, so that a removal shows."""

    key = KeyField()
    at = models.DateTimeField()
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL)
    actor_name = models.CharField(max_length=200)
    action = models.CharField(max_length=60)
    target = models.CharField(max_length=200, blank=True)
    target_url = models.CharField(max_length=200, blank=True)
    detail = models.JSONField(default=dict)
    digest = models.CharField(max_length=64, unique=True)

    class Meta:
        ordering = ["-id"]
