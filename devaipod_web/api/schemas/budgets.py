"""Schemas of budgets and incidents. Amounts are decimal strings: US dollars, tokens or requests, as the metric says."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Literal

from ninja import Schema

from devaipod_web.api.schemas.common import Body, Money, amount, doc, optional
from devaipod_web.budgets.models import Budget, Incident
from devaipod_web.budgets.queries import burn

WHEN = "2026-11-24T20:14:03.512Z"
KEY = "q4m7x2bdue"
SCOPES = Literal["installation", "project", "person", "token", "run"]
METRICS = Literal["usd", "tokens", "requests"]
WINDOWS = Literal["day", "month", "total", "each_run"]
MAX_NOTE = 300


class BudgetOut(Schema):
    """A budget, and how it stands in its present window."""

    key: str = doc("The budget's public key.", KEY)
    scope: SCOPES = doc("Whose requests it counts.", "project")
    subject: str | None = doc(
        "What the scope names: a project's short name, a name for signing in, the key of a token or run; null for the installation.",
        "payments",
    )
    metric: METRICS = doc("What it counts.", "usd")
    window: WINDOWS = doc(
        "Over which time (UTC). `each_run`: what every new run may spend by itself.", "month"
    )
    limit: Money = doc("The hard limit.", "200.00")
    soft_percent: int = doc("People are warned at this share of the limit.", 80)
    enabled: bool = doc("Whether it binds.", True)
    note: str = doc("A note of whoever set it.", "")
    created_by: str | None = doc("Who set it: a name for signing in.", "mona")
    created_at: datetime = doc("When it was set.", WHEN)
    window_start: datetime | None = doc(
        "When the present window began; null for `total` and `each_run`.", WHEN
    )
    window_end: datetime | None = doc("When it ends, or null.", "2026-12-01T00:00:00Z")
    spent: Money = doc("What was spent in it.", "61.200000000000")
    held: Money = doc("What is held for requests under way and soon.", "1.500000000000")
    extra: Money = doc("Once-only extensions of it.", "0")
    left: Money = doc("What is left.", "137.300000000000")
    projected: Money | None = doc(
        "What is spent at its end if it goes on so; null without an end.", "76.5"
    )

    @staticmethod
    def resolve_subject(obj: Budget) -> str | None:
        return subject_of(obj)

    @staticmethod
    def resolve_limit(obj: Budget) -> Decimal:
        return obj.limit_shown

    @staticmethod
    def resolve_created_by(obj: Budget) -> str | None:
        return obj.created_by.username if obj.created_by else None

    @staticmethod
    def resolve_window_start(obj: Budget) -> datetime | None:
        return burn(obj).start

    @staticmethod
    def resolve_window_end(obj: Budget) -> datetime | None:
        return burn(obj).end

    @staticmethod
    def resolve_spent(obj: Budget) -> Decimal:
        return burn(obj).spent

    @staticmethod
    def resolve_held(obj: Budget) -> Decimal:
        return burn(obj).held

    @staticmethod
    def resolve_extra(obj: Budget) -> Decimal:
        return burn(obj).extra

    @staticmethod
    def resolve_left(obj: Budget) -> Decimal:
        return burn(obj).left

    @staticmethod
    def resolve_projected(obj: Budget) -> Decimal | None:
        return burn(obj).projected


class BudgetIn(Body):
    """A new budget."""

    scope: SCOPES = doc("Whose requests it counts.", "project")
    subject: str = doc(
        "What the scope names: a project's short name, a name for signing in, the key of a token or run; empty for the installation.",
        "payments",
        "",
        max_length=150,
    )
    metric: METRICS = doc("What it counts.", "usd")
    window: WINDOWS = doc("Over which time (UTC).", "month")
    limit: str = amount("The hard limit.", "200.00")
    soft_percent: int = doc("People are warned at this share of the limit.", 80, 80, ge=1, le=100)
    enabled: bool = doc("Whether it binds.", True, True)
    note: str = doc("A note.", "Until the new year", "", max_length=MAX_NOTE)


class BudgetChanges(Body):
    """Fields to be changed; those not named stay."""

    limit: str | None = amount("The hard limit.", "250.00", None)
    soft_percent: int | None = optional("The soft threshold, in percent.", 80, ge=1, le=100)
    enabled: bool | None = optional("Whether it binds.", True)
    note: str | None = optional("A note.", "", max_length=MAX_NOTE)


class IncidentOut(Schema):
    """A budget was used up (`hard`), or nearly (`soft`)."""

    key: str = doc("The incident's public key.", "w3n6c2pkra")
    budget: str = doc("The budget's key.", KEY)
    run: str = doc("The key of the run that met it.", "b7kq2mx4dz")
    level: Literal["soft", "hard"] = doc("`hard`: a request was refused.", "hard")
    state: Literal["open", "resolved"] = doc("Whether a manager has still to decide.", "open")
    message: str = doc("What happened, in a sentence.", "The budget of this run has no room.")
    opened_at: datetime = doc("When it was opened.", WHEN)
    resolved_at: datetime | None = doc("When it was resolved, or null.", None)
    resolved_by: str | None = doc("Who resolved it: a name for signing in, or null.", None)
    how: Literal["", "raised", "extended", "stopped", "dismissed", "window_ended"] = doc(
        "How it was resolved; empty while it is open.", ""
    )
    note: str = doc("A note of whoever resolved it.", "")

    @staticmethod
    def resolve_budget(obj: Incident) -> str:
        return str(obj.budget.key)

    @staticmethod
    def resolve_run(obj: Incident) -> str:
        return str(obj.run.key)

    @staticmethod
    def resolve_resolved_by(obj: Incident) -> str | None:
        return obj.resolved_by.username if obj.resolved_by else None


class ResolveIn(Body):
    """What a manager decides."""

    how: Literal["raise", "extend", "dismiss", "stop"] = doc(
        "`raise` the limit for good, `extend` this window once, `dismiss` without giving room, `stop` the run.",
        "extend",
    )
    amount: str | None = amount(
        "The new limit (`raise`), or what is added (`extend`).", "5.00", None
    )
    note: str = doc("A note.", "For the release", "", max_length=MAX_NOTE)


def subject_of(row: Budget) -> str | None:
    """What a budget's scope names, as a person types it."""
    if row.project is not None:
        return row.project.slug
    if row.person is not None:
        return row.person.username
    if row.token is not None:
        return str(row.token.key)
    return str(row.run.key) if row.run is not None else None
