"""What runs asked of models: one `LlmCall` row a request, kept as plain values until the ledger's next batch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django.db import connection

from devaipod_web.budgets.amounts import CallRow, LostCall
from devaipod_web.budgets.money import usd
from devaipod_web.home import new_key
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

    Rows of runs that are gone are left out; a provider that is gone is null. Hundreds of rows a second come through here beside the
    streams of the same process: making a model of each and compiling its statement took more of it than passing its stream.
    """
    given = list(rows)
    runs = _Totals.of({row["run_id"] for row in given})
    providers = set(
        Provider.objects.filter(pk__in={row.get("provider_id") for row in given}).values_list(
            "pk", flat=True
        )
    )
    values = []
    for row in given:
        totals = runs.get(row["run_id"])
        if totals is not None:
            values.append(_columns(row, providers))
            totals.add(row)
    with connection.cursor() as cursor:
        cursor.executemany(_INSERT, values)
    for totals in runs.values():
        totals.save()


class _Totals:
    """What a run has used, read and added here: SQLite would add decimals as floating-point numbers."""

    FIELDS = ("tokens_in", "tokens_cached", "tokens_out", "cost", "unpriced_calls")

    def __init__(self, pk: int, key: str, *values: Any) -> None:
        self.pk, self.key = pk, key
        self.values = dict(zip(self.FIELDS, values, strict=True))

    @classmethod
    def of(cls, run_ids: Collection[Any]) -> dict[Any, _Totals]:
        rows = Run.objects.select_for_update().filter(pk__in=run_ids).order_by("pk")
        return {row[0]: cls(*row) for row in rows.values_list("pk", "key", *cls.FIELDS)}

    def add(self, row: Mapping[str, Any]) -> None:
        for name in ("tokens_in", "tokens_cached", "tokens_out"):
            self.values[name] += row.get(name, 0)
        cost = row["cost"]
        self.values["cost"] += Decimal(cost or 0)
        self.values["unpriced_calls"] += cost is None or row.get("unpriced", False)

    def save(self) -> None:
        Run.objects.filter(pk=self.pk).update(**self.values)
        wake(self.key)


_COLUMNS = [field for field in LlmCall._meta.concrete_fields if not field.primary_key]
#: What a row need not say.
_DEFAULTS = {field.attname: None if field.null else field.get_default() for field in _COLUMNS}
#: Columns whose values are written differently by each database.
_ADAPTED = {"at", "cost"}
_INSERT = (
    f"INSERT INTO {LlmCall._meta.db_table} ({', '.join(str(f.column) for f in _COLUMNS)}) "  # noqa: S608 - names of our own
    f"VALUES ({', '.join(['%s'] * len(_COLUMNS))})"
)


def _columns(row: Mapping[str, Any], providers: set[int]) -> list[Any]:
    """The values of a row in the order of `_INSERT`."""
    given = {
        **_DEFAULTS,
        **row,
        "key": new_key(),
        "at": datetime.fromisoformat(row["at"]),
        "cost": None if row["cost"] is None else Decimal(row["cost"]),
    }
    if given["provider_id"] not in providers:
        given["provider_id"] = None
    return [
        field.get_db_prep_save(given[field.attname], connection)
        if field.attname in _ADAPTED
        else given[field.attname]
        for field in _COLUMNS
    ]


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
