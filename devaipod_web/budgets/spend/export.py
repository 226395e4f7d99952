"""Spend as CSV: sums of a range, and the calls themselves, however many they are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from datetime import datetime
from typing import Any

from django.db.models import Q, QuerySet

from devaipod_web import db, sheets
from devaipod_web.llm.models import LlmCall
from devaipod_web.llm.reports import Sums

#: Calls that are read, and held in memory, at once.
PIECE = 2000
SUMS = (
    "calls",
    "failed_calls",
    "tokens_in",
    "tokens_cached",
    "tokens_out",
    "cost",
    "unpriced_calls",
    "uncounted_calls",
    "estimated_calls",
)
CALLS = (
    "at",
    "run",
    "project",
    "owner",
    "agent",
    "model",
    "provider",
    "form",
    "status",
    "milliseconds",
    "first_byte_milliseconds",
    "tokens_in",
    "tokens_cached",
    "tokens_cache_written",
    "tokens_out",
    "tokens_reasoning",
    "cost",
    "unpriced",
    "estimated",
    "error",
)


def series(rows: Iterable[Sums], by: str, per: str) -> bytes:
    """One line a period and group; `cost` is US dollars. Groups are said as programs know them."""
    body = ([row.period, row.group, *(getattr(row, name) for name in SUMS)] for row in rows)
    return sheets.lines([[per, by, *SUMS], *body])


async def calls(
    found: QuerySet[LlmCall], encode: Callable[[list[dict[str, Any]]], bytes]
) -> AsyncIterator[bytes]:
    """These calls, the oldest first, a piece at a time: memory is bounded, and no reading lasts long."""
    after: tuple[datetime, int] | None = None
    while True:
        rows, after = await db.read(_piece, found, after)
        if not rows:
            return
        yield encode(rows)
        if len(rows) < PIECE:
            return


async def calls_csv(found: QuerySet[LlmCall]) -> AsyncIterator[bytes]:
    """These calls as CSV with a line of names."""
    yield sheets.lines([CALLS])
    async for piece in calls(found, _cells):
        yield piece


def _cells(rows: list[dict[str, Any]]) -> bytes:
    return sheets.lines([row[name] for name in CALLS] for row in rows)


def _piece(
    found: QuerySet[LlmCall], after: tuple[datetime, int] | None
) -> tuple[list[dict[str, Any]], tuple[datetime, int] | None]:
    rows = found.select_related("run__project", "run__owner", "project", "owner", "provider")
    if after is not None:
        at, pk = after
        rows = rows.filter(at__gte=at).filter(Q(at__gt=at) | Q(pk__gt=pk))
    piece = list(rows.order_by("at", "pk")[:PIECE])
    last = (piece[-1].at, piece[-1].pk) if piece else None
    return [document(call) for call in piece], last


def document(call: LlmCall) -> dict[str, Any]:
    """One call as programs are told it: names of CALLS → values."""
    run = call.run
    project = run.project if run is not None else call.project
    owner = run.owner if run is not None else call.owner
    return {
        **{name: getattr(call, name) for name in CALLS if name not in _OF_OTHERS},
        "run": run.key if run is not None else call.run_key,
        "project": project.slug if project is not None else "",
        "owner": owner.username if owner is not None else "",
        "agent": run.agent if run is not None else call.agent,
        "provider": call.provider.name if call.provider is not None else call.provider_kind,
    }


_OF_OTHERS = frozenset({"run", "project", "owner", "agent", "provider"})
