"""What can be done to a budget and to an incident, one verb a function; each with its audit entry in one transaction."""

from devaipod_web.budgets.services.budget import create, remove, update
from devaipod_web.budgets.services.incident import dismiss, stop_run
from devaipod_web.budgets.services.resolve import resolve
from devaipod_web.budgets.services.room import extend_once, raise_limit

__all__ = [
    "create",
    "dismiss",
    "extend_once",
    "raise_limit",
    "remove",
    "resolve",
    "stop_run",
    "update",
]
