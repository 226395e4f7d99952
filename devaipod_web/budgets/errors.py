"""What can go wrong with budgets.

BudgetError             what a person or a program is told when a budget could not be set or an incident resolved
├── InvalidBudget       fields that cannot be as they were given, each with its sentence
├── BudgetExists        this scope has a budget of this metric and window already
└── IncidentClosed      somebody resolved the incident first, or its window has ended
OverBudget              a request has no room in a budget; the proxy tells the agent in its API's own form
LedgerUnavailable       neither a lease nor the database to take one from: no request may go out
SettledTwice            a reservation was settled before; a mistake of the caller
"""

from __future__ import annotations

from datetime import datetime

from devaipod_web.errors import DevaipodError, InvalidFields


class BudgetError(DevaipodError):
    """A budget could not be set, or an incident resolved. `message` is a sentence, `next_step` another."""

    code = "budget-error"
    status = 409


class InvalidBudget(InvalidFields, BudgetError):
    """Fields that cannot be as they were given: `errors` has a sentence for each by its name."""

    code = "invalid-budget"
    status = 400


class BudgetExists(BudgetError):
    """The scope has a budget of this metric and window already."""

    code = "budget-exists"


class IncidentClosed(BudgetError):
    """Somebody resolved the incident first, or its window has ended."""

    code = "incident-closed"


class OverBudget(DevaipodError):
    """A request has no room in a budget. 402; an incident of level hard is open when this is raised.

    `message` says whose budget of what is used up, `next_step` what a person can do. `budget` and `incident` are public keys,
    `scope`, `metric` and `window` the words of the budget, `until` the end of the window (None: it has none).
    """

    code = "over-budget"
    status = 402

    def __init__(
        self,
        message: str,
        *,
        next_step: str,
        budget: str,
        incident: str,
        scope: str,
        metric: str,
        window: str,
        until: datetime | None,
    ) -> None:
        super().__init__(message, next_step=next_step)
        self.budget = budget
        self.incident = incident
        self.scope = scope
        self.metric = metric
        self.window = window
        self.until = until


class LedgerUnavailable(DevaipodError):
    """The ledger can neither spend from a lease nor take one (database or journal not writable). 503; nothing was sent."""

    code = "budgets-unavailable"
    status = 503


class SettledTwice(RuntimeError):
    """A reservation was settled before. The second settlement changed nothing."""
