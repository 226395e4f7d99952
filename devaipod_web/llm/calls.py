"""What runs asked of models: one `LlmCall` row a request, kept as plain values until the ledger's next batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from devaipod_web.budgets.amounts import CallRow, LostCall
from devaipod_web.budgets.money import usd
from devaipod_web.llm.models import LlmCall, Provider
from devaipod_web.llm.routing import Candidate
from devaipod_web.llm.usage import Tokens
from devaipod_web.runs.models import Run
from devaipod_web.runs.wake import wake

MAX_ERROR = 500


def row(
    *,
    run_id: int,
    candidate: Candidate,
    form: str,
    at: datetime,
    status: int,
    error: str,
    milliseconds: int,
    first_byte_milliseconds: int | None,
    tokens: Tokens,
    pico_usd: int,
    unpriced: bool,
) -> CallRow:
    """The columns of one call as JSON values."""
    used = bool(tokens.sent or tokens.received)
    return {
        "run_id": run_id,
        "provider_id": candidate.upstream.id,
        "provider_kind": str(candidate.upstream.kind),
        "form": form,
        "route": candidate.route,
        "model": candidate.model[:200],
        "at": at.isoformat(),
        "status": status,
        "error": error[:MAX_ERROR],
        "milliseconds": milliseconds,
        "first_byte_milliseconds": first_byte_milliseconds,
        "tokens_in": tokens.sent,
        "tokens_cached": tokens.cached,
        "tokens_cache_written": tokens.written + tokens.written_hour,
        "tokens_out": tokens.received,
        "tokens_reasoning": tokens.reasoning,
        "estimated": tokens.estimated and used,
        "unpriced": unpriced and used,
        "cost": str(usd(pico_usd)),
    }


def store(rows: Iterable[CallRow]) -> None:
    """Write a batch of rows and add them to their runs. To be called in the writer's transaction, once for each row.

    Rows of runs that are gone are left out; a provider that is gone is null.
    """
    given = list(rows)
    runs = set(Run.objects.filter(pk__in={r["run_id"] for r in given}).values_list("pk", flat=True))
    providers = set(
        Provider.objects.filter(pk__in={r["provider_id"] for r in given}).values_list(
            "pk", flat=True
        )
    )
    made = [_call(r, providers) for r in given if r["run_id"] in runs]
    LlmCall.objects.bulk_create(made, batch_size=200)
    by_run: dict[int, list[LlmCall]] = {}
    for call in made:
        by_run.setdefault(call.run_id, []).append(call)
    # Read and added here: SQLite would add decimals as floating-point numbers.
    for run in Run.objects.select_for_update().filter(pk__in=by_run).order_by("pk"):
        calls = by_run[run.pk]
        Run.objects.filter(pk=run.pk).update(
            tokens_in=run.tokens_in + sum(c.tokens_in for c in calls),
            tokens_cached=run.tokens_cached + sum(c.tokens_cached for c in calls),
            tokens_out=run.tokens_out + sum(c.tokens_out for c in calls),
            cost=run.cost + sum((c.cost or Decimal(0) for c in calls), Decimal(0)),
            unpriced_calls=run.unpriced_calls + sum(c.unpriced for c in calls),
        )
        wake(run.key)


def lost(call: LostCall) -> CallRow:
    """The row of a request whose process was killed before it was settled: its whole reservation is charged."""
    return {
        "run_id": call.payer.run_id,
        "provider_id": None,
        "provider_kind": "",
        "form": "",
        "route": "",
        "model": "",
        "at": datetime.fromtimestamp(call.at, UTC).isoformat(),
        "status": 0,
        "error": "The gateway was killed during this request; what it may have cost at most is charged.",
        "milliseconds": 0,
        "first_byte_milliseconds": None,
        "tokens_in": 0,
        "tokens_cached": 0,
        "tokens_cache_written": 0,
        "tokens_out": call.charged.tokens,
        "tokens_reasoning": 0,
        "estimated": True,
        "unpriced": False,
        "cost": str(usd(call.charged.pico_usd)),
    }


def _call(given: Mapping[str, Any], providers: set[int]) -> LlmCall:
    values = dict(given)
    if values["provider_id"] not in providers:
        values["provider_id"] = None
    values["at"] = datetime.fromisoformat(values["at"])
    values["cost"] = Decimal(values["cost"])
    return LlmCall(**values)
