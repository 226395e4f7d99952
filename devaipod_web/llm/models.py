"""Model providers and the calls that runs made to them."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from devaipod_web.fields import KeyField


class ProviderKind(models.TextChoices):
    """What a provider is: which wire forms it speaks, where, and how it takes its credential."""

    OPENAI = "openai", "OpenAI-compatible"
    ANTHROPIC = "anthropic", "Anthropic"
    GEMINI = "gemini", "Google Gemini"
    VERTEX = "vertex", "Google Vertex AI"
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


class Route(models.Model):
    """Which provider takes a model, for runs that name no provider of their own. The first enabled route that matches wins.

    `pattern` is a glob over the model's name (`*` any characters, `?` one); `rewrite` is the name that the provider is sent,
    in which `*` stands for what the pattern's first `*` matched. `fallbacks` are [{"provider": key, "model": name}].
    """

    key = KeyField()
    position = models.PositiveIntegerField()
    pattern = models.CharField(max_length=200)
    provider = models.ForeignKey(Provider, on_delete=models.PROTECT, related_name="routes")
    rewrite = models.CharField(max_length=200, blank=True)
    fallbacks = models.JSONField(default=list, blank=True)
    output_limit = models.PositiveIntegerField(null=True, blank=True)
    enabled = models.BooleanField(default=True)
    project = models.ForeignKey(
        "projects.Project", null=True, blank=True, on_delete=models.CASCADE, related_name="routes"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["position", "id"]

    def __str__(self) -> str:
        return self.pattern


class Price(models.Model):
    """What a manager says a model costs: US dollars per million tokens, and per request.

    A price replaces the price list's. A *ceiling* applies to models that nobody knows the price of: their calls are charged at it and
    shown as unpriced. Empty parts are those of the input (`cached`, `written`) or of the output (`reasoning`).
    """

    key = KeyField()
    project = models.ForeignKey(
        "projects.Project", null=True, blank=True, on_delete=models.CASCADE, related_name="prices"
    )
    pattern = models.CharField(max_length=200)
    is_ceiling = models.BooleanField(default=False)
    sent = models.DecimalField(max_digits=14, decimal_places=6)
    received = models.DecimalField(max_digits=14, decimal_places=6)
    cached = models.DecimalField(max_digits=14, decimal_places=6, null=True, blank=True)
    written = models.DecimalField(max_digits=14, decimal_places=6, null=True, blank=True)
    reasoning = models.DecimalField(max_digits=14, decimal_places=6, null=True, blank=True)
    request = models.DecimalField(max_digits=14, decimal_places=6, default=0)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["project", "pattern", "is_ceiling"], name="price_once_per_pattern"
            ),
            models.UniqueConstraint(
                fields=["pattern", "is_ceiling"],
                condition=models.Q(project=None),
                name="price_once_per_pattern_for_all",
            ),
        ]

    def __str__(self) -> str:
        return self.pattern


class LlmCall(models.Model):
    """One request of a run to a model. Cost in USD, exact; null only in rows from before prices had to be known.

    It outlives its run: what was spent stays known. Then `run` is null, and `run_key`, `project`, `owner` and `agent` say whose it was.
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
    agent = models.CharField(max_length=40, blank=True, help_text="Of a run that is deleted.")
    provider = models.ForeignKey(Provider, null=True, on_delete=models.SET_NULL)
    provider_kind = models.CharField(max_length=20)
    form = models.CharField(max_length=20, blank=True)
    route = models.CharField(max_length=20, blank=True, help_text="The key of the route taken.")
    model = models.CharField(max_length=200)
    at = models.DateTimeField()
    status = models.PositiveSmallIntegerField()
    error = models.CharField(max_length=500, blank=True)
    milliseconds = models.PositiveIntegerField(default=0)
    first_byte_milliseconds = models.PositiveIntegerField(null=True)
    tokens_in = models.PositiveIntegerField(default=0)
    tokens_cached = models.PositiveIntegerField(default=0)
    tokens_cache_written = models.PositiveIntegerField(default=0)
    tokens_out = models.PositiveIntegerField(default=0)
    tokens_reasoning = models.PositiveIntegerField(default=0)
    estimated = models.BooleanField(default=False)
    unpriced = models.BooleanField(
        default=False, help_text="Charged at a manager's ceiling: the model's price is not known."
    )
    cost = models.DecimalField(max_digits=20, decimal_places=12, null=True)

    class Meta:
        indexes = [
            models.Index(fields=["run", "at"]),
            models.Index(fields=["at"], name="call_at"),
        ]
