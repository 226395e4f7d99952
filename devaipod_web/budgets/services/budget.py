"""Set, change and remove a budget."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from devaipod_web.accounts.models import ApiToken, User
from devaipod_web.budgets import leases
from devaipod_web.budgets.errors import BudgetError, BudgetExists, InvalidBudget
from devaipod_web.budgets.incidents import close, raised
from devaipod_web.budgets.limits import amount
from devaipod_web.budgets.models import SUBJECTS, Budget, BudgetWindow, How, Metric, Scope, Window
from devaipod_web.projects.models import Project
from devaipod_web.reviews import audit
from devaipod_web.runs.models import Run
from devaipod_web.runs.untrusted import text

_SUBJECT_MODELS: dict[str, Any] = {
    Scope.PROJECT: Project,
    Scope.PERSON: User,
    Scope.TOKEN: ApiToken,
    Scope.RUN: Run,
}


def create(
    by: User,
    *,
    scope: str,
    metric: str,
    window: str,
    limit: Decimal | str | int,
    subject: Project | User | ApiToken | Run | None = None,
    soft_percent: int = 80,
    enabled: bool = True,
    note: str = "",
) -> Budget:
    """Make a budget. `subject` is what the scope names (None for the installation), `limit` is in dollars, tokens or requests.

    Its present window begins with what the scope's calls have cost in it already; requests that are under way in this moment may be
    missing from that. Processes keep to it within two seconds. Raises InvalidBudget and BudgetExists.
    """
    errors = _errors(scope=scope, metric=metric, window=window, subject=subject)
    clean = _clean(
        {"limit": limit, "soft_percent": soft_percent, "enabled": enabled, "note": note},
        metric,
        errors,
    )
    if errors:
        raise InvalidBudget(errors)
    named = {} if subject is None else {scope: subject}
    try:
        with transaction.atomic():
            budget = Budget.objects.create(
                scope=scope, metric=metric, window=window, created_by=by, **named, **clean
            )
            if window != Window.EACH_RUN:
                leases.window_of(budget, timezone.now())
            _audit(by, "budget.created", budget, _plain(budget))
    except IntegrityError:
        raise BudgetExists(
            f"This scope has a budget in {Metric(metric).label} with the window {window} already.",
            next_step="Change that one.",
        ) from None
    return budget


def update(budget: Budget, by: User, changes: Mapping[str, Any]) -> list[str]:
    """Change `limit`, `soft_percent`, `enabled` or `note`, and return the names of those that differ from before.

    A limit below what is spent is allowed: nothing more goes out. One that gives room again resolves the budget's open incidents, and
    the runs that these paused go on. Raises InvalidBudget.
    """
    errors = {name: f"{name} cannot be changed." for name in changes if name not in _SETTABLE}
    clean = _clean(
        {name: value for name, value in changes.items() if name in _SETTABLE},
        budget.metric,
        errors,
    )
    if errors:
        raise InvalidBudget(errors)
    with transaction.atomic():
        budget = live(budget)
        before = _plain(budget)
        changed = [name for name, value in clean.items() if getattr(budget, name) != value]
        if changed:
            for name in changed:
                setattr(budget, name, clean[name])
            save(budget, *changed)
            if "limit" in changed and _has_room(budget):
                close(budget.incidents, by, How.RAISED, why=raised(budget, by))
            after = _plain(budget)
            _audit(
                by,
                "budget.changed",
                budget,
                {name: {"from": before[name], "to": after[name]} for name in changed},
            )
    return changed


def remove(budget: Budget, by: User) -> None:
    """Take a budget out of force; what it counted and its incidents stay. Its open incidents are dismissed."""
    from devaipod_web.budgets.services.incident import dismiss_all

    with transaction.atomic():
        budget = live(budget)
        budget.removed_at = timezone.now()
        save(budget, "removed_at")
        dismiss_all(budget, by)
        _audit(by, "budget.removed", budget, _plain(budget))


_SETTABLE = frozenset({"limit", "soft_percent", "enabled", "note"})


def live(budget: Budget) -> Budget:
    """The budget's row, locked. Raises BudgetError when it was removed. In a transaction."""
    found = Budget.objects.select_for_update().filter(pk=budget.pk, removed_at=None).first()
    if found is None:
        raise BudgetError("This budget was removed.", next_step="Make a new one.")
    return found


def save(budget: Budget, *names: str) -> None:
    """Save these fields, and put a new limit on the windows that have not ended."""
    budget.save(update_fields=[*names, "changed_at"])
    if "limit" in names:
        rearm(budget.windows.exclude(end__lte=timezone.now()), limit=budget.limit)
    elif "soft_percent" in names:
        rearm(budget.windows.exclude(end__lte=timezone.now()))


def rearm(windows: Any, **changes: Any) -> None:
    """Change windows, and warn again where the threshold is ahead again."""
    for window in windows.select_for_update().order_by("pk"):
        for name, value in changes.items():
            setattr(window, name, value)
        if window.spent * 100 < window.cap * window.budget.soft_percent:
            window.soft_at = None
        window.save(update_fields=[*changes, "soft_at"])


def _has_room(budget: Budget) -> bool:
    return budget.window != Window.EACH_RUN and (
        (window := current_window(budget)).spent < window.cap
    )


def current_window(budget: Budget) -> BudgetWindow:
    """The window that is now, made when nothing has been asked for in it."""
    return leases.window_of(budget, timezone.now())


def _errors(*, scope: str, metric: str, window: str, subject: Any) -> dict[str, str]:
    errors = {}
    for name, value, choices in (
        ("scope", scope, Scope),
        ("metric", metric, Metric),
        ("window", window, Window),
    ):
        if value not in choices.values:
            errors[name] = f"{name} must be one of: {', '.join(choices.values)}."
    if "scope" not in errors and not isinstance(subject, _SUBJECT_MODELS.get(scope, type(None))):
        errors["subject"] = (
            "The installation has no subject."
            if scope == Scope.INSTALLATION
            else f"Name the {'API token' if scope == Scope.TOKEN else scope} that the budget is for."
        )
    if window == Window.EACH_RUN and scope not in (Scope.INSTALLATION, Scope.PROJECT):
        errors["window"] = "A limit of each run is set on the installation or a project."
    if scope == Scope.RUN and window != Window.TOTAL:
        errors["window"] = "A run's budget has the window total."
    return errors


def _clean(given: Mapping[str, Any], metric: str, errors: dict[str, str]) -> dict[str, Any]:
    clean: dict[str, Any] = {}
    if "limit" in given and metric in Metric.values:
        try:
            clean["limit"] = amount(metric, given["limit"])
        except ValueError as error:
            errors["limit"] = f"limit: {error}"
    if "soft_percent" in given:
        percent = given["soft_percent"]
        if not isinstance(percent, int) or not 1 <= percent <= 100:
            errors["soft_percent"] = "soft_percent must be between 1 and 100."
        clean["soft_percent"] = percent
    if "enabled" in given:
        clean["enabled"] = bool(given["enabled"])
    if "note" in given:
        clean["note"] = text(str(given["note"]), 300).strip()
    return clean


def _plain(budget: Budget) -> dict[str, Any]:
    return {
        "scope": budget.scope,
        "metric": budget.metric,
        "window": budget.window,
        "limit": f"{budget.limit_shown.normalize():f}",
        "soft_percent": budget.soft_percent,
        "enabled": budget.enabled,
        "note": budget.note,
    }


def _audit(by: User | None, action: str, budget: Budget, detail: dict[str, Any]) -> None:
    audit.write(by, action, target=named(budget), detail={"budget": budget.key, **detail})


def named(budget: Budget) -> str:
    """A budget in words, for the audit log."""
    subject = next((getattr(budget, name) for name in SUBJECTS if name == budget.scope), None)
    whose = f" {subject.key if isinstance(subject, Run) else subject}" if subject else ""
    return f"{budget.scope}{whose}: {budget.metric}, {Window(budget.window).label}"[:200]
