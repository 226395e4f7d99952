"""What calls to models came to: sums of `LlmCall` rows. Costs are US dollars."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db.models import Count, F, Q, QuerySet, Sum, Value
from django.db.models.functions import Coalesce, NullIf, TruncDay

from devaipod_web.llm.models import LlmCall
from devaipod_web.projects.models import Project

#: What can be summed by → the column that names a group.
GROUPS: dict[str, Any] = {
    "project": Coalesce("run__project__slug", "project__slug"),
    "run": Coalesce("run__key", NullIf(F("run_key"), Value(""))),
    "owner": Coalesce("run__owner__username", "owner__username"),
    "model": F("model"),
    "provider": Coalesce("provider__name", "provider_kind"),
    "day": TruncDay("at"),
}


@dataclass(frozen=True)
class Sums:
    """What some calls came to. `unpriced_calls` are those whose price is not known: `cost` lacks them."""

    group: str
    calls: int
    failed_calls: int
    tokens_in: int
    tokens_cached: int
    tokens_out: int
    cost: Decimal
    unpriced_calls: int


def calls(
    *,
    project: str = "",
    run: str = "",
    owner: str = "",
    model: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
) -> QuerySet[LlmCall]:
    """The calls of this project (short name or key), run, owner (name), model and time; those of deleted runs among them."""
    found = LlmCall.objects.order_by()
    if project:
        found = found.filter(
            Q(run__project__slug=project)
            | Q(run__project__key=project)
            | Q(project__slug=project)
            | Q(project__key=project)
        )
    if run:
        found = found.filter(Q(run__key=run) | Q(run_key=run))
    if owner:
        found = found.filter(Q(run__owner__username=owner) | Q(owner__username=owner))
    if model:
        found = found.filter(model=model)
    if since is not None:
        found = found.filter(at__gte=since)
    if until is not None:
        found = found.filter(at__lt=until)
    return found


def of_project(found: QuerySet[LlmCall], project: Project) -> QuerySet[LlmCall]:
    """Of these calls, the project's."""
    return found.filter(Q(run__project=project) | Q(project=project))


def sums(found: QuerySet[LlmCall], by: str, *, limit: int) -> list[Sums]:
    """The calls summed by a word of GROUPS: the dearest first, days in their order. At most `limit` groups."""
    grouped = found.annotate(group=GROUPS[by]).values("group").annotate(**_AMOUNTS)
    order = ("group",) if by == "day" else ("-sum_cost", "-calls", "group")
    return [_row(dict(row)) for row in grouped.order_by(*order)[:limit]]


def total(found: QuerySet[LlmCall]) -> Sums:
    """All of the calls together."""
    return _row({"group": "", **found.aggregate(**_AMOUNTS)})


_MONEY = Value(Decimal(0))
_AMOUNTS: dict[str, Any] = {
    "calls": Count("pk"),
    "failed_calls": Count("pk", filter=Q(status__gte=400)),
    "sum_in": Coalesce(Sum("tokens_in"), 0),
    "sum_cached": Coalesce(Sum("tokens_cached"), 0),
    "sum_out": Coalesce(Sum("tokens_out"), 0),
    "sum_cost": Coalesce(Sum("cost"), _MONEY, output_field=LlmCall._meta.get_field("cost")),
    "unpriced": Count("pk", filter=Q(cost=None)),
}


def _row(row: dict[str, Any]) -> Sums:
    group = row["group"]
    return Sums(
        group=group.date().isoformat() if isinstance(group, datetime) else str(group or ""),
        calls=row["calls"],
        failed_calls=row["failed_calls"],
        tokens_in=row["sum_in"],
        tokens_cached=row["sum_cached"],
        tokens_out=row["sum_out"],
        cost=row["sum_cost"],
        unpriced_calls=row["unpriced"],
    )
