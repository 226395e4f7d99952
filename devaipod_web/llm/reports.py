"""What calls to models came to: sums of `LlmCall` rows. Costs are US dollars, exact; days are UTC's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db.models import Count, F, Q, QuerySet, Sum, Value
from django.db.models.functions import Coalesce, NullIf

from devaipod_web.accounts.models import User
from devaipod_web.llm.exact import Period, money_of, money_sums
from devaipod_web.llm.models import LlmCall
from devaipod_web.projects.models import Project

#: What can be summed by → the column that tells the groups apart. Projects and people are ids: `names` has their words.
GROUPS: dict[str, Any] = {
    "project": Coalesce("run__project_id", "project_id"),
    "run": Coalesce("run__key", NullIf(F("run_key"), Value(""))),
    "owner": Coalesce("run__owner_id", "owner_id"),
    "agent": Coalesce("run__agent", "agent"),
    "model": F("model"),
    "provider": Coalesce("provider__name", "provider_kind"),
    "day": Period("at", "day"),
}


@dataclass(frozen=True)
class Sums:
    """What some calls came to.

    `unpriced_calls` are those whose price nobody knows: charged at a manager's ceiling, or, `uncounted_calls` of them, not at all,
    so that `cost` lacks them. `estimated_calls` are those whose tokens were estimated, since the provider did not say them.
    """

    group: str
    calls: int
    failed_calls: int
    tokens_in: int
    tokens_cached: int
    tokens_out: int
    cost: Decimal
    unpriced_calls: int
    uncounted_calls: int
    estimated_calls: int
    period: str = ""


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
    grouped = found.annotate(group=GROUPS[by]).values("group").annotate(**_amounts())
    if by == "day":
        rows = grouped.order_by("group")
    else:
        rows = grouped.annotate(about=Sum("cost")).order_by(
            F("about").desc(nulls_last=True), F("calls").desc(), "group"
        )
    return worded([_row(dict(row)) for row in rows[:limit]], by)


def series(found: QuerySet[LlmCall], by: str, per: str) -> list[Sums]:
    """The calls summed by a word of GROUPS in each hour, day, week (from Monday) or month, in the order of time.

    `group` is the id where GROUPS says so: `names` words it.
    """
    grouped = (
        found.annotate(group=GROUPS[by], period=Period("at", per))
        .values("period", "group")
        .annotate(**_amounts())
        .order_by("period", "group")
    )
    return [_row(dict(row)) for row in grouped]


def named_series(found: QuerySet[LlmCall], by: str, per: str) -> list[Sums]:
    """`series` with the groups' words, as programs are told them."""
    return worded(series(found, by, per), by)


def total(found: QuerySet[LlmCall]) -> Sums:
    """All of the calls together."""
    return _row({"group": "", **found.aggregate(**_amounts())})


def cost(found: QuerySet[LlmCall]) -> Decimal:
    """What the calls cost together."""
    return money_of(found.aggregate(**money_sums("cost", "sum_cost")), "sum_cost")


def costs_per_day(found: QuerySet[LlmCall]) -> dict[str, Decimal]:
    """What each day (`2026-11-24`, UTC) with calls cost."""
    rows = (
        found.annotate(period=Period("at", "day"))
        .values("period")
        .annotate(**money_sums("cost", "sum_cost"))
        .order_by()
    )
    return {row["period"]: money_of(dict(row), "sum_cost") for row in rows}


def added(rows: Iterable[Sums]) -> Sums:
    """Rows together, exact."""
    adding: dict[str, Any] = defaultdict(int, cost=Decimal(0))
    for row in rows:
        for name in _NUMBERS:
            adding[name] += getattr(row, name)
    return Sums(group="", **{name: adding[name] for name in _NUMBERS})


def names(by: str, groups: Collection[str]) -> dict[str, str]:
    """The words of groups as programs know them: short names of projects, people's names for signing in, the groups themselves."""
    if by not in ("project", "owner"):
        return {group: group for group in groups}
    ids = [int(group) for group in groups if group]
    rows = (
        Project.objects.filter(pk__in=ids).values_list("pk", "slug")
        if by == "project"
        else User.objects.filter(pk__in=ids).values_list("pk", "username")
    )
    return {"": "", **{str(pk): word for pk, word in rows}}


def worded(rows: list[Sums], by: str) -> list[Sums]:
    """Rows whose groups are said in the words of `names`."""
    words = names(by, {row.group for row in rows})
    return [replace(row, group=words.get(row.group, "")) for row in rows]


_NUMBERS = (
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


def _amounts() -> dict[str, Any]:
    return {
        "calls": Count("pk"),
        "failed_calls": Count("pk", filter=Q(status__gte=400)),
        "sum_in": Coalesce(Sum("tokens_in"), 0),
        "sum_cached": Coalesce(Sum("tokens_cached"), 0),
        "sum_out": Coalesce(Sum("tokens_out"), 0),
        **money_sums("cost", "sum_cost"),
        "unpriced_calls": Count("pk", filter=Q(cost=None) | Q(unpriced=True)),
        "uncounted_calls": Count("pk", filter=Q(cost=None)),
        "estimated_calls": Count("pk", filter=Q(estimated=True)),
    }


def _row(row: dict[str, Any]) -> Sums:
    group = row["group"]
    return Sums(
        group="" if group is None else str(group),
        calls=row["calls"],
        failed_calls=row["failed_calls"],
        tokens_in=row["sum_in"],
        tokens_cached=row["sum_cached"],
        tokens_out=row["sum_out"],
        cost=money_of(row, "sum_cost"),
        unpriced_calls=row["unpriced_calls"],
        uncounted_calls=row["uncounted_calls"],
        estimated_calls=row["estimated_calls"],
        period=row.get("period", ""),
    )
