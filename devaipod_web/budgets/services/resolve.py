"""Decide what becomes of an incident: the four ways, by their words."""

from __future__ import annotations

from devaipod_web.accounts.models import User
from devaipod_web.budgets.errors import IncidentClosed, InvalidBudget
from devaipod_web.budgets.models import How, Incident, IncidentState
from devaipod_web.budgets.services.incident import dismiss, stop_run
from devaipod_web.budgets.services.room import extend_once, raise_limit
from devaipod_web.runs.wake import wake

WAYS = ("raise", "extend", "dismiss", "stop")


def resolve(
    incident: Incident, by: User, how: str, *, amount: str | None = None, note: str = ""
) -> None:
    """`raise` the limit to `amount`, `extend` the window once by `amount`, `dismiss`, or `stop` the run.

    Raises IncidentClosed when somebody was first, InvalidBudget for an amount that is missing or too small, and what stopping a run raises.
    """
    if incident.state != IncidentState.OPEN:
        raise IncidentClosed(
            f"This incident is resolved already: {How(incident.how).label.lower()}.",
            next_step="Look at the budget again.",
        )
    if how in ("raise", "extend") and amount is None:
        raise InvalidBudget({"amount": f"An amount is needed to {how}."})
    if how == "raise" and amount is not None:
        raise_limit(incident.budget, by, amount, note=note)
    elif how == "extend" and amount is not None:
        extend_once(incident.window, by, amount, note=note)
    elif how == "stop":
        stop_run(incident, by, note=note)
    elif how == "dismiss":
        dismiss(incident, by, note=note)
    else:
        raise InvalidBudget({"how": f"how must be one of: {', '.join(WAYS)}."})
    # The counts beside the pages' names are fetched anew.
    wake(incident.run.key)
