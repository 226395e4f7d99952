"""Model providers and the calls that runs made to them."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from devaipod_web.fields import KeyField


class ProviderKind(models.TextChoices):
    """The wire form a provider speaks."""

    OPENAI = "openai", "OpenAI-compatible"
    DEMO = "demo", "scripted demo, no AI"


class Provider(models.Model):
    """Where models are reached: base URL and a credential that is encrypted at rest and shown never."""

    key = KeyField()
    name = models.CharField(max_length=80, unique=True)
    kind = models.CharField(
        max_length=20, choices=ProviderKind.choices, default=ProviderKind.OPENAI
    )
    base_url = models.CharField(max_length=500, blank=True)
    credential = models.BinaryField(blank=True, default=b"")
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.name


class LlmCall(models.Model):
    """One request of a run to a model. Cost in USD; null when the model's price is not known.

    It outlives its run: what was spent stays known. Then `run` is null, and `run_key`, `project` and `owner` say whose it was.
    """

    key = KeyField()
    run = models.ForeignKey(
        "runs.Run", null=True, on_delete=models.SET_NULL, related_name="llm_calls"
    )
    run_key = models.CharField(max_length=10, blank=True)
    project = models.ForeignKey(
        "projects.Project", null=True, on_delete=models.SET_NULL, related_name="+"
    )
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    provider = models.ForeignKey(Provider, null=True, on_delete=models.SET_NULL)
    provider_kind = models.CharField(max_length=20)
    model = models.CharField(max_length=200)
    at = models.DateTimeField()
    status = models.PositiveSmallIntegerField()
    error = models.CharField(max_length=500, blank=True)
    milliseconds = models.PositiveIntegerField(default=0)
    first_byte_milliseconds = models.PositiveIntegerField(null=True)
    tokens_in = models.PositiveIntegerField(default=0)
    tokens_cached = models.PositiveIntegerField(default=0)
    tokens_out = models.PositiveIntegerField(default=0)
    estimated = models.BooleanField(default=False)
    cost = models.DecimalField(max_digits=16, decimal_places=8, null=True)

    class Meta:
        indexes = [models.Index(fields=["run", "at"])]
