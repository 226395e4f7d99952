"""Resolve incidents. Raising and extending (`room`) resolve those that they help."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.utils import timezone

from devaipod_web.accounts.models import User
from devaipod_web.budgets.errors import IncidentClosed
from devaipod_web.budgets.models import Budget, How, Incident, IncidentState
from devaipod_web.reviews import audit
from devaipod_web.runs.services.stop import stop


def dismiss(incident: Incident, by: User, *, note: str = "") -> None:
    """Close an incident without giving room. Raises IncidentClosed when somebody was first."""
    with transaction.atomic():
        _close_one(incident, by, How.DISMISSED, note)


def stop_run(incident: Incident, by: User, *, note: str = "") -> None:
    """Close an incident by stopping its run. Raises IncidentClosed, and runs' NotNow when the run has ended already."""
    with transaction.atomic():
        _close_one(incident, by, How.STOPPED, note)
        stop(incident.run, by, reason=note or "Its budget is used up.")


def dismiss_all(budget: Budget, by: User) -> None:
    """Close all open incidents of a budget that is removed. In a transaction."""
    close(budget.incidents, by, How.DISMISSED, note="The budget was removed.")


def close(incidents: Any, by: User | None, how: How, *, note: str = "") -> int:
    """Resolve those of these incidents that are open, and return how many. In a transaction, whose audit entry is the caller's."""
    found: int = incidents.filter(state=IncidentState.OPEN).update(
        state=IncidentState.RESOLVED,
        resolved_by=by,
        resolved_at=timezone.now(),
        how=how,
        note=note[:300],
    )
    return found


def _close_one(incident: Incident, by: User, how: How, note: str) -> None:
    if not close(Incident.objects.filter(pk=incident.pk), by, how, note=note):
        incident.refresh_from_db()
        raise IncidentClosed(
            f"This incident is resolved already: {How(incident.how).label.lower()}.",
            next_step="Look at the budget again.",
        )
    audit.write(
        by,
        "incident.resolved",
        target=incident.message[:200],
        detail={"incident": incident.key, "run": incident.run.key, "how": how, "note": note},
    )
