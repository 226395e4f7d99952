"""What calls to models came to, over the API."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja import Field, Query, Router, Schema

from devaipod_web.api.auth import caller
from devaipod_web.api.filters import Moment
from devaipod_web.api.reach import bound_to
from devaipod_web.api.routing import operation
from devaipod_web.api.schemas.usage import GroupName, UsageOut
from devaipod_web.llm import reports

router = Router(tags=["usage"])

MAX_GROUPS = 1000


class Filters(Schema):
    """Which calls, and what to sum them by."""

    group_by: GroupName = Field("project", description="What to sum by.")
    project: str = Field("", description="The short name or key of a project.", max_length=60)
    run: str = Field("", description="The key of a run, deleted ones too.", max_length=20)
    owner: str = Field("", description="Who asked for the runs: a name, or `me`.", max_length=150)
    model: str = Field("", description="The model.", max_length=200)
    since: Moment | None = Field(None, description="Calls at this time or later.")
    until: Moment | None = Field(None, description="Calls before this time.")
    limit: int = Field(100, ge=1, le=MAX_GROUPS, description="How many groups at most.")


@operation(router, "GET", "", operation_id="usage", response=UsageOut)
def usage(request: HttpRequest, filters: Query[Filters]) -> dict[str, Any]:
    """Sum up the calls to models.

    Tokens and costs by project, run, owner, model, provider or day (UTC). What deleted runs spent counts on.
    """
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
    if bound is not None:
        found = reports.of_project(found, bound)
    rows = reports.sums(found, filters.group_by, limit=filters.limit + 1)
    return {
        "group_by": filters.group_by,
        "results": rows[: filters.limit],
        "more": len(rows) > filters.limit,
        "total": reports.total(found),
    }
