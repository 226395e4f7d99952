"""Rows of calls, between the ledger and the room llm: written in batches, and looked up when a budget is made."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

import structlog
from django.db import DatabaseError, transaction
from django.db.models import Count, F, Q, Sum

from devaipod_web.budgets import money
from devaipod_web.budgets.amounts import CallRow
from devaipod_web.budgets.models import Budget, Scope
from devaipod_web.llm import calls
from devaipod_web.llm.models import LlmCall

log = structlog.get_logger("devaipod.budgets")


def store(rows: Sequence[CallRow]) -> None:
    """Store a batch; a row that cannot be stored is logged and left out. Must run in a transaction.

    It was paid for, so it must hold up neither the others nor the totals that are written with them.
    """
    if not rows:
        return
    try:
        with transaction.atomic():
            calls.store(rows)
    except (DatabaseError, ArithmeticError, ValueError, TypeError, KeyError):
        if len(rows) == 1:
            log.exception("budgets.call_not_stored", row=dict(rows[0]))
            return
        middle = len(rows) // 2
        store(rows[:middle])
        store(rows[middle:])


def spent_since(budget: Budget, start: datetime) -> tuple[int, int, int]:
    """What a new budget would have counted from `start` until now: pico US dollars, tokens, requests.

    What runs that were deleted had spent counts, but not for a token: their calls do not name it.
    """
    of = {
        Scope.INSTALLATION: Q(),
        Scope.PROJECT: Q(run__project_id=budget.project_id) | Q(project_id=budget.project_id),
        Scope.PERSON: Q(run__owner_id=budget.person_id) | Q(owner_id=budget.person_id),
        Scope.TOKEN: Q(run__token_id=budget.token_id),
        Scope.RUN: Q(run_id=budget.run_id),
    }[Scope(budget.scope)]
    found = LlmCall.objects.filter(of, at__gte=start).aggregate(
        cost=Sum("cost"), tokens=Sum(F("tokens_in") + F("tokens_out")), requests=Count("pk")
    )
    return money.pico(found["cost"] or Decimal(0)), found["tokens"] or 0, found["requests"]
