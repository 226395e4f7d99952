"""Resolve incidents. Raising and extending (`room`) resolve those that they help."""

from __future__ import annotations

from django.db import transaction

from devaipod_web.accounts.models import User
from devaipod_web.budgets.errors import IncidentClosed
from devaipod_web.budgets.incidents import close
from devaipod_web.budgets.models import Budget, How, Incident
from devaipod_web.reviews import audit
from devaipod_web.runs.services.stop import stop


def dismiss(incident: Incident, by: User, *, note: str = "") -> None:
    """Close an incident without giving room; a run that it paused stays so until somebody resumes it.

    Raises IncidentClosed when somebody was first.
    """
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
