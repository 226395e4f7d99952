"""What runs asked of models: one `LlmCall` row a request, kept as plain values until the ledger's next batch."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from devaipod_web.budgets.amounts import CallRow, LostCall
from devaipod_web.budgets.money import usd
from devaipod_web.llm.models import LlmCall
from devaipod_web.runs.models import Run
from devaipod_web.runs.wake import wake


def store(rows: Iterable[CallRow]) -> None:
    """Write a batch of rows and add them to their runs. To be called in the writer's transaction, once for each row.

    Rows of runs that are gone are left out.
    """
    given = list(rows)
    runs = set(
        Run.objects.filter(pk__in={row["run_id"] for row in given}).values_list("pk", flat=True)
    )
    made = [_call(row) for row in given if row["run_id"] in runs]
    LlmCall.objects.bulk_create(made, batch_size=200)
    by_run: dict[int, list[LlmCall]] = {}
    for call in made:
        assert call.run_id is not None
        by_run.setdefault(call.run_id, []).append(call)
    # Read and added here: SQLite would add decimals as floating-point numbers.
    for run in Run.objects.select_for_update().filter(pk__in=by_run).order_by("pk"):
        calls = by_run[run.pk]
        Run.objects.filter(pk=run.pk).update(
            tokens_in=run.tokens_in + sum(call.tokens_in for call in calls),
            tokens_cached=run.tokens_cached + sum(call.tokens_cached for call in calls),
            tokens_out=run.tokens_out + sum(call.tokens_out for call in calls),
            cost=run.cost + sum((call.cost or Decimal(0) for call in calls), Decimal(0)),
            unpriced_calls=run.unpriced_calls + sum(call.cost is None for call in calls),
        )
        wake(run.key)


def lost(call: LostCall) -> CallRow:
    """The row of a request whose process was killed before it was settled: its whole reservation is charged."""
    return {
        "run_id": call.payer.run_id,
        "provider_kind": "",
        "model": "",
        "at": datetime.fromtimestamp(call.at, UTC).isoformat(),
        "status": 0,
        "error": "The gateway was killed during this request; what it may have cost at most is charged.",
        "tokens_out": call.charged.tokens,
        "estimated": True,
        "cost": str(usd(call.charged.pico_usd)),
    }


def _call(row: CallRow) -> LlmCall:
    values = dict[str, Any](row)
    values["at"] = datetime.fromisoformat(values["at"])
    values["cost"] = Decimal(values["cost"]) if values["cost"] is not None else None
    return LlmCall(**values)
