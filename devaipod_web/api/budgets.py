"""Budgets and their incidents over the API."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from django.db.models import QuerySet
from django.http import HttpRequest
from ninja import Field, Query, Router, Schema
from ninja.responses import Status

from devaipod_web.accounts.models import ApiToken, User
from devaipod_web.api.auth import caller
from devaipod_web.api.filters import CommaSeparated
from devaipod_web.api.problems import Problem
from devaipod_web.api.reach import nothing
from devaipod_web.api.routing import Order, operation, paged
from devaipod_web.api.schemas.budgets import (
    METRICS,
    SCOPES,
    BudgetChanges,
    BudgetIn,
    BudgetOut,
    IncidentOut,
    ResolveIn,
)
from devaipod_web.budgets import queries, services
from devaipod_web.budgets.models import Budget, Incident, Scope
from devaipod_web.projects.models import Project
from devaipod_web.runs.models import Run

router = Router(tags=["budgets"])
incidents_router = Router(tags=["budgets"])

ORDERS = {"newest": Order("created_at", descending=True), "oldest": Order("created_at")}
INCIDENT_ORDERS = {"newest": Order("opened_at", descending=True), "oldest": Order("opened_at")}


class Filters(Schema):
    """Which budgets."""

    scope: Annotated[list[SCOPES], CommaSeparated] = Field(
        [], description="Whose requests they count: any of these, repeated or with commas between."
    )
    metric: Literal["", METRICS] = Field("", description="What they count.")
    project: str = Field("", description="The short name of a project.", max_length=60)
    run: str = Field("", description="The key of a run.", max_length=20)


class IncidentFilters(Schema):
    """Which incidents."""

    state: Literal["", "open", "resolved"] = Field("", description="Whether it is resolved.")
    level: Literal["", "soft", "hard"] = Field("", description="How grave it is.")
    run: str = Field("", description="The key of a run.", max_length=20)


def find(key: str) -> Budget:
    """The budget of this key. Raises Http404."""
    found = queries.by_key(key)
    if found is None:
        raise nothing("budget", key)
    return found


def find_incident(key: str) -> Incident:
    """The incident of this key. Raises Http404."""
    found = queries.incident(key)
    if found is None:
        raise nothing("incident", key)
    return found


@operation(router, "GET", "", operation_id="budgets_list", response=list[BudgetOut])
@paged(ORDERS)
def budgets_list(request: HttpRequest, filters: Query[Filters]) -> QuerySet[Budget]:
    """List budgets.

    With how each stands in its present window. Every run has some of its own: `scope` tells them apart.
    """
    rows = queries.budgets()
    if filters.scope:
        rows = rows.filter(scope__in=filters.scope)
    if filters.metric:
        rows = rows.filter(metric=filters.metric)
    if filters.project:
        rows = rows.filter(project__slug=filters.project)
    if filters.run:
        rows = rows.filter(run__key=filters.run)
    return rows


@operation(
    router,
    "POST",
    "",
    operation_id="budget_create",
    response={201: BudgetOut},
    once=True,
    problems=(409,),
)
def budget_create(request: HttpRequest, body: BudgetIn) -> Any:
    """Set a budget.

    Its present window begins with what the scope has spent in it already. It binds every request within two seconds.
    """
    given = body.model_dump(exclude={"subject"})
    made = services.create(caller(request), subject=_subject(body.scope, body.subject), **given)
    return Status(201, find(made.key))


@operation(router, "GET", "/{key}", operation_id="budget_get", response=BudgetOut)
def budget_get(request: HttpRequest, key: str) -> Budget:
    """One budget and how it stands."""
    return find(key)


@operation(
    router, "PATCH", "/{key}", operation_id="budget_update", response=BudgetOut, problems=(409,)
)
def budget_update(request: HttpRequest, key: str, body: BudgetChanges) -> Budget:
    """Change a budget.

    A new limit binds within two seconds; one below what is spent lets nothing more through, one with room resolves the budget's
    open incidents.
    """
    services.update(find(key), caller(request), body.model_dump(exclude_none=True))
    return find(key)


@operation(
    router, "DELETE", "/{key}", operation_id="budget_delete", response={204: None}, problems=(409,)
)
def budget_delete(request: HttpRequest, key: str) -> Any:
    """Take a budget out of force.

    Its incidents are dismissed and stay on record.
    """
    services.remove(find(key), caller(request))
    return Status(204, None)


@operation(incidents_router, "GET", "", operation_id="incidents_list", response=list[IncidentOut])
@paged(INCIDENT_ORDERS)
def incidents_list(request: HttpRequest, filters: Query[IncidentFilters]) -> QuerySet[Incident]:
    """List incidents.

    Those that wait for a manager are `open`.
    """
    rows = queries.incidents(filters.state)
    if filters.level:
        rows = rows.filter(level=filters.level)
    if filters.run:
        rows = rows.filter(run__key=filters.run)
    return rows


@operation(incidents_router, "GET", "/{key}", operation_id="incident_get", response=IncidentOut)
def incident_get(request: HttpRequest, key: str) -> Incident:
    """One incident."""
    return find_incident(key)


@operation(
    incidents_router,
    "POST",
    "/{key}/resolve",
    operation_id="incident_resolve",
    response=IncidentOut,
    problems=(409,),
)
def incident_resolve(request: HttpRequest, key: str, body: ResolveIn) -> Incident:
    """Decide what becomes of an incident.

    `raise` and `extend` need `amount`, and resolve whatever else has room again.
    """
    services.resolve(
        find_incident(key), caller(request), body.how, amount=body.amount, note=body.note
    )
    return find_incident(key)


def _subject(scope: str, name: str) -> Project | User | ApiToken | Run | None:
    """What a scope and a name stand for. Raises Problem with 404."""
    if scope == Scope.INSTALLATION and not name:
        return None
    if scope == Scope.PROJECT:
        found: Any = Project.objects.filter(slug=name).first()
    elif scope == Scope.PERSON:
        found = User.objects.filter(username=name).first()
    elif scope == Scope.TOKEN:
        found = ApiToken.objects.filter(key=name).first()
    elif scope == Scope.RUN:
        found = Run.objects.filter(key=name).first()
    else:
        raise Problem(
            400, "invalid-budget", "The installation has no subject.", next_step="Leave it out."
        )
    if found is None:
        raise Problem(404, "no-such-subject", f"There is no {Scope(scope).label} {name[:60]!r}.")
    return found  # type: ignore[no-any-return]
