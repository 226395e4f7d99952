"""What calls to models came to, over the API."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.utils import timezone
from ninja import Field, Query, Router, Schema

from devaipod_web import sheets
from devaipod_web.api import streams
from devaipod_web.api.auth import caller
from devaipod_web.api.filters import Moment
from devaipod_web.api.problems import Problem
from devaipod_web.api.reach import bound_to, nothing
from devaipod_web.api.routing import operation
from devaipod_web.api.schemas.usage import (
    CallOut,
    GroupName,
    PeriodName,
    SeriesName,
    SeriesOut,
    SummaryOut,
    UsageOut,
)
from devaipod_web.budgets.spend import export, figures
from devaipod_web.budgets.windows import bounds
from devaipod_web.llm import reports
from devaipod_web.llm.models import LlmCall
from devaipod_web.projects.models import Project

router = Router(tags=["usage"])
Response = TypeVar("Response", HttpResponse, StreamingHttpResponse)

MAX_GROUPS = 1000
#: Periods that a series may have: a year of hours, and more days than anybody has.
MAX_PERIODS = 10_000
HOURS = {"hour": 1, "day": 24, "week": 7 * 24, "month": 28 * 24}


class Calls(Schema):
    """Which calls."""

    project: str = Field("", description="The short name or key of a project.", max_length=60)
    run: str = Field("", description="The key of a run, deleted ones too.", max_length=20)
    owner: str = Field("", description="Who asked for the runs: a name, or `me`.", max_length=150)
    model: str = Field("", description="The model.", max_length=200)
    since: Moment | None = Field(None, description="Calls at this time or later.")
    until: Moment | None = Field(None, description="Calls before this time.")


class Filters(Calls):
    """Which calls, and what to sum them by."""

    group_by: GroupName = Field("project", description="What to sum by.")
    limit: int = Field(100, ge=1, le=MAX_GROUPS, description="How many groups at most.")


class SeriesFilters(Calls):
    """Which calls, and what to sum them by."""

    group_by: SeriesName = Field("project", description="What to sum by.")
    per: PeriodName = Field("day", description="The length of the periods, UTC.")
    since: Moment | None = Field(
        None, description="Calls at this time or later; without it, of the present month."
    )
    format: Literal["json", "csv"] = Field(
        "json", description="`csv` is a file for spreadsheets, a line a period and group."
    )


class CallFilters(Calls):
    """Which calls, and how they are written."""

    format: Literal["ndjson", "csv"] = Field(
        "ndjson", description="`csv` is a file for spreadsheets, a line a call."
    )


class SummaryFilters(Schema):
    """Which time and project."""

    project: str = Field("", description="The short name or key of a project.", max_length=60)
    since: Moment | None = Field(
        None, description="From this time on; without it, from the beginning of the month."
    )
    until: Moment | None = Field(None, description="Before this time; without it, until now.")


@operation(router, "GET", "", operation_id="usage", response=UsageOut)
def usage(request: HttpRequest, filters: Query[Filters]) -> dict[str, Any]:
    """Sum up the calls to models.

    Tokens and costs by project, run, owner, agent, model, provider or day (UTC). What deleted runs spent counts on.
    """
    found = _calls(request, filters)
    rows = reports.sums(found, filters.group_by, limit=filters.limit + 1)
    return {
        "group_by": filters.group_by,
        "results": rows[: filters.limit],
        "more": len(rows) > filters.limit,
        "total": reports.total(found),
    }


@operation(
    router,
    "GET",
    "/series",
    operation_id="usage_series",
    response=SeriesOut,
    media={sheets.CONTENT_TYPE.partition(";")[0]: None},
)
def usage_series(request: HttpRequest, filters: Query[SeriesFilters]) -> Any:
    """Sum up the calls to models over time.

    Tokens and costs of each hour, day, week or month (UTC) by project, run, owner, agent, model or provider.
    """
    since, until = _time(filters.since, filters.until)
    if (until - since) / timedelta(hours=HOURS[filters.per]) > MAX_PERIODS:
        raise Problem(
            400,
            "bad-range",
            f"A series has at most {MAX_PERIODS:,} periods.",
            next_step="Ask for a later `since`, or for longer periods.",
        )
    filters.since, filters.until = since, until
    rows = reports.named_series(_calls(request, filters), filters.group_by, filters.per)
    if filters.format == "csv":
        return _file(
            HttpResponse(
                export.series(rows, filters.group_by, filters.per),
                content_type=sheets.CONTENT_TYPE,
            ),
            "spend",
        )
    return {
        "group_by": filters.group_by,
        "per": filters.per,
        "results": rows,
        "total": reports.added(rows),
    }


@operation(router, "GET", "/summary", operation_id="usage_summary", response=SummaryOut)
def usage_summary(request: HttpRequest, filters: Query[SummaryFilters]) -> dict[str, Any]:
    """The figures that managers look at first.

    What was spent in a time and in as long a time before it, what a promoted change costs, what went into changes that stand
    rejected, and what the present month comes to.
    """
    since, until = _time(filters.since, filters.until)
    if since >= until:
        raise Problem(400, "bad-range", "`until` must be after `since`.")
    project = _project(request, filters.project)
    before = (since - min(until - since, since - datetime.min.replace(tzinfo=since.tzinfo)), since)
    found = figures.of_time(since, until, (*before, ""), timezone.now(), project)
    return {
        "since": since,
        "until": until,
        "cost": found.spent,
        "previous_cost": found.before,
        "promoted_changes": found.changes.promoted,
        "median_promoted_cost": found.changes.median_cost,
        "cost_per_promoted_change": found.per_change,
        "rejected_cost": found.rejected,
        "month": found.month,
    }


@operation(
    router,
    "GET",
    "/calls",
    operation_id="usage_calls",
    media={
        streams.CONTENT_TYPE: CallOut,
        sheets.CONTENT_TYPE.partition(";")[0]: None,
    },
)
def usage_calls(request: HttpRequest, filters: Query[CallFilters]) -> StreamingHttpResponse:
    """The calls to models, one a line.

    The oldest first, as NDJSON or CSV, however many they are; those of deleted runs among them.
    """
    found = _calls(request, filters)
    if filters.format == "csv":
        response = streams.respond(export.calls_csv(found))
        response.headers["Content-Type"] = sheets.CONTENT_TYPE
        return _file(response, "calls")
    return streams.respond(export.calls(found, _documents))


def _documents(rows: list[dict[str, Any]]) -> bytes:
    return streams.lines(
        {
            **row,
            "at": row["at"].isoformat().replace("+00:00", "Z"),
            "cost": None if row["cost"] is None else f"{row['cost']:f}",
        }
        for row in rows
    )


def _calls(request: HttpRequest, filters: Calls) -> QuerySet[LlmCall]:
    """The calls that are asked for, of those that the caller may see."""
    user = caller(request)
    found = reports.calls(
        project=filters.project,
        run=filters.run,
        owner=user.username if filters.owner == "me" else filters.owner,
        model=filters.model,
        since=filters.since,
        until=filters.until,
    )
    bound = bound_to(user)
    return found if bound is None else reports.of_project(found, bound)


def _time(since: datetime | None, until: datetime | None) -> tuple[datetime, datetime]:
    now = timezone.now()
    return since or bounds("month", until or now)[0], until or now


def _project(request: HttpRequest, name: str) -> Project | None:
    """The project that is asked for, or that the caller's token counts for alone. Raises Http404."""
    bound = bound_to(caller(request))
    if not name:
        return bound
    found = Project.objects.filter(slug=name).first() or Project.objects.filter(key=name).first()
    if found is None or (bound is not None and found != bound):
        raise nothing("project", name)
    return found


def _file(response: Response, name: str) -> Response:
    response.headers["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    return response
