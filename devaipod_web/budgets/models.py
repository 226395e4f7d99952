"""Budgets, their windows, the leases that gateway processes hold on them, and incidents.

Amounts are whole units of the budget's metric: pico US dollars (`money.PICO`), tokens, or requests.
"""

from __future__ import annotations

from decimal import Decimal

from django.conf import settings
from django.db import models
from django.db.models import Q

from devaipod_web.budgets import money
from devaipod_web.fields import KeyField


class Scope(models.TextChoices):
    """Whose requests a budget counts. All but the installation are named by the foreign key of the same name."""

    INSTALLATION = "installation"
    PROJECT = "project"
    PERSON = "person"
    TOKEN = "token", "API token"
    RUN = "run"


class Metric(models.TextChoices):
    """What a budget counts."""

    USD = "usd", "US dollars"
    TOKENS = "tokens"
    REQUESTS = "requests"


class Window(models.TextChoices):
    """Over which time a budget counts, in UTC. `each_run` is a policy: what every new run of the scope may spend by itself."""

    DAY = "day"
    MONTH = "month"
    TOTAL = "total"
    EACH_RUN = "each_run", "each run"


#: Scopes that a foreign key names, in the order in which they are looked at.
SUBJECTS = (Scope.PROJECT, Scope.PERSON, Scope.TOKEN, Scope.RUN)


def _names_its_subject() -> Q:
    """Exactly the scope's own foreign key is set, and none for the installation."""
    found = Q(scope=Scope.INSTALLATION, **{f"{name}__isnull": True for name in SUBJECTS})
    for scope in SUBJECTS:
        found |= Q(scope=scope, **{f"{name}__isnull": name != scope for name in SUBJECTS})
    return found


def _once(scope: Scope) -> models.UniqueConstraint:
    """One budget of a metric and a window in a scope, removed ones aside."""
    subject = [] if scope is Scope.INSTALLATION else [scope.value]
    return models.UniqueConstraint(
        fields=[*subject, "metric", "window"],
        condition=Q(scope=scope, removed_at__isnull=True),
        name=f"budget_once_{scope.value}",
    )


class Budget(models.Model):
    """What one scope may spend in one window. `limit` is hard; at `soft_percent` of it people are warned."""

    key = KeyField()
    scope = models.CharField(max_length=12, choices=Scope.choices)
    project = models.ForeignKey(
        "projects.Project", null=True, blank=True, on_delete=models.CASCADE, related_name="budgets"
    )
    person = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="budgets",
    )
    token = models.ForeignKey(
        "accounts.ApiToken", null=True, blank=True, on_delete=models.CASCADE, related_name="budgets"
    )
    run = models.ForeignKey(
        "runs.Run", null=True, blank=True, on_delete=models.CASCADE, related_name="budgets"
    )
    metric = models.CharField(max_length=8, choices=Metric.choices)
    window = models.CharField(max_length=8, choices=Window.choices)
    limit = models.BigIntegerField(help_text="Units of the metric.")
    soft_percent = models.PositiveSmallIntegerField(default=80)
    enabled = models.BooleanField(default=True)
    note = models.CharField(max_length=300, blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(auto_now=True)
    removed_at = models.DateTimeField(
        null=True, blank=True, help_text="Counts no more; kept for its incidents."
    )

    class Meta:
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(condition=_names_its_subject(), name="budget_names_its_subject"),
            models.CheckConstraint(condition=Q(limit__gte=0), name="budget_limit_not_negative"),
            models.CheckConstraint(
                condition=Q(soft_percent__gte=1, soft_percent__lte=100), name="budget_soft_percent"
            ),
            models.CheckConstraint(
                condition=~Q(window=Window.EACH_RUN)
                | Q(scope__in=[Scope.INSTALLATION, Scope.PROJECT]),
                name="budget_each_run_of",
            ),
            models.CheckConstraint(
                condition=~Q(scope=Scope.RUN) | Q(window=Window.TOTAL), name="budget_run_in_all"
            ),
            *(_once(scope) for scope in Scope),
        ]
        indexes = [models.Index(fields=["changed_at"], name="budget_changed")]

    def __str__(self) -> str:
        return f"{self.key} {self.scope} {self.metric} {self.window}"

    @property
    def limit_shown(self) -> Decimal:
        """The limit in US dollars, tokens or requests."""
        return shown(self.metric, self.limit)


class BudgetWindow(models.Model):
    """One budget in one day, month, or in all: what was spent, and what processes hold of the rest.

    `spent + leased <= limit + extra` is kept by the UPDATE that leases. `limit` follows the budget's; `extra` is of this window
    alone. Only a settlement above its reservation, or a limit that a manager lowers, can pass it.
    """

    budget = models.ForeignKey(Budget, on_delete=models.CASCADE, related_name="windows")
    start = models.DateTimeField()
    end = models.DateTimeField(null=True)
    limit = models.BigIntegerField()
    extra = models.BigIntegerField(default=0)
    spent = models.BigIntegerField(default=0)
    leased = models.BigIntegerField(default=0)
    soft_at = models.DateTimeField(null=True, help_text="When people were warned.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["budget", "start"], name="budget_window_once"),
        ]
        ordering = ["-start"]

    @property
    def cap(self) -> int:
        """What may be spent in this window, once-only extensions included."""
        return self.limit + self.extra


class BudgetProcess(models.Model):
    """A process that holds leases, and how much of its journal has been counted."""

    key = KeyField()
    owner = models.CharField(max_length=40, help_text="host:pid:start, for people.")
    journal = models.PositiveIntegerField(default=1, help_text="The journal file's number.")
    position = models.PositiveBigIntegerField(
        default=0, help_text="Bytes of it whose settlements are counted."
    )
    beat = models.PositiveBigIntegerField(default=0, help_text="Flushes that were committed.")
    started_at = models.DateTimeField(auto_now_add=True)
    heartbeat = models.DateTimeField()


class BudgetLease(models.Model):
    """The part of a window's `leased` that one process may spend from, its unwritten settlements included."""

    process = models.ForeignKey(BudgetProcess, on_delete=models.CASCADE, related_name="leases")
    window = models.ForeignKey(BudgetWindow, on_delete=models.CASCADE, related_name="leases")
    amount = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["process", "window"], name="budget_lease_once"),
        ]


class BudgetExtension(models.Model):
    """What a manager added to one window, once."""

    window = models.ForeignKey(BudgetWindow, on_delete=models.CASCADE, related_name="extensions")
    amount = models.BigIntegerField()
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    at = models.DateTimeField(auto_now_add=True)
    note = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering = ["id"]


class Level(models.TextChoices):
    """Of an incident: the soft threshold was passed, or a request was refused at the hard limit."""

    SOFT = "soft"
    HARD = "hard"


class IncidentState(models.TextChoices):
    """Whether a manager has still to look at an incident."""

    OPEN = "open"
    RESOLVED = "resolved"


class How(models.TextChoices):
    """How an incident was resolved."""

    RAISED = "raised", "limit raised"
    EXTENDED = "extended", "extended once"
    STOPPED = "stopped", "run stopped"
    DISMISSED = "dismissed"
    WINDOW_ENDED = "window_ended", "window ended"


class Incident(models.Model):
    """A budget was used up, or nearly, and a manager decides. One open one per window, level and run."""

    key = KeyField()
    budget = models.ForeignKey(Budget, on_delete=models.CASCADE, related_name="incidents")
    window = models.ForeignKey(BudgetWindow, on_delete=models.CASCADE, related_name="incidents")
    run = models.ForeignKey("runs.Run", on_delete=models.CASCADE, related_name="incidents")
    level = models.CharField(max_length=4, choices=Level.choices)
    state = models.CharField(
        max_length=8, choices=IncidentState.choices, default=IncidentState.OPEN
    )
    message = models.CharField(max_length=500)
    opened_at = models.DateTimeField()
    resolved_at = models.DateTimeField(null=True, blank=True)
    resolved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    how = models.CharField(max_length=12, choices=How.choices, blank=True)
    note = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering = ["-opened_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["window", "level", "run"],
                condition=Q(state=IncidentState.OPEN),
                name="incident_open_once",
            )
        ]
        indexes = [
            models.Index(
                fields=["opened_at"], name="incident_open", condition=Q(state=IncidentState.OPEN)
            )
        ]

    def __str__(self) -> str:
        return f"{self.key} {self.level} {self.state}"


def units(metric: str, value: Decimal) -> int:
    """US dollars, tokens or requests as whole units of the metric. A fraction of a unit is rounded up."""
    return money.pico(value) if metric == Metric.USD else int(value.to_integral_value())


def shown(metric: str, amount: int) -> Decimal:
    """Units of the metric as US dollars, tokens or requests, exact."""
    return money.usd(amount) if metric == Metric.USD else Decimal(amount)
