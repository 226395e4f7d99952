"""Decide what becomes of an incident: the four ways, by their words; and change a budget so that what waits for it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import transaction

from devaipod_web.accounts.models import User
from devaipod_web.budgets.errors import IncidentClosed, InvalidBudget
from devaipod_web.budgets.models import Budget, How, Incident, IncidentState
from devaipod_web.budgets.services.budget import update
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


@transaction.atomic
def change(budget: Budget, by: User, changes: Mapping[str, Any]) -> list[str]:
    """As `update`; a limit that gives room again resolves the incidents that wait for it, as `resolve` with `raise` does.

    Returns the names of what differs from before. Raises InvalidBudget.
    """
    changed = update(
        budget, by, {name: value for name, value in changes.items() if name != "limit"}
    )
    if "limit" not in changes:
        return changed
    waiting = budget.incidents.filter(state=IncidentState.OPEN).select_related("budget", "run")
    incident = waiting.order_by("level", "pk").first()
    if incident is not None:
        try:
            resolve(incident, by, "raise", amount=str(changes["limit"]))
        except InvalidBudget:
            # Lower, the same, or still below what is spent: it is set all the same, and they go on waiting.
            pass
        else:
            return [*changed, "limit"]
    return [*changed, *update(budget, by, {"limit": changes["limit"]})]
