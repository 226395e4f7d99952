"""Projects over the API."""

from __future__ import annotations

from typing import Any

from django.db.models import Q, QuerySet
from django.http import HttpRequest
from ninja import Field, Query, Router, Schema
from ninja.responses import Status

from devaipod_web.api.auth import caller
from devaipod_web.api.reach import nothing
from devaipod_web.api.routing import Order, operation, paged
from devaipod_web.api.schemas.projects import ProjectChanges, ProjectIn, ProjectOut
from devaipod_web.projects import queries, services
from devaipod_web.projects.models import Project

router = Router(tags=["projects"])

ORDERS = {
    "name": Order("name"),
    "newest": Order("created_at", descending=True),
    "oldest": Order("created_at"),
}


def find(slug: str) -> Project:
    """The project of this short name. Raises Http404."""
    project = queries.by_slug(slug)
    if project is None:
        raise nothing("project", slug)
    return project


class Filters(Schema):
    """Which projects."""

    archived: bool = Field(False, description="The archived ones instead of the others.")
    agent: str = Field("", description="The agent profile.", max_length=40)
    text: str = Field(
        "", description="Words of the name, short name or description.", max_length=200
    )


@operation(router, "GET", "", operation_id="projects_list", response=list[ProjectOut])
@paged(ORDERS)
def projects_list(request: HttpRequest, filters: Query[Filters]) -> QuerySet[Project]:
    """List projects.

    By name, unless `sort` says otherwise.
    """
    rows = Project.objects.select_related("provider").filter(
        archived_at__isnull=not filters.archived
    )
    if filters.agent:
        rows = rows.filter(agent=filters.agent)
    if filters.text:
        rows = rows.filter(
            Q(name__icontains=filters.text)
            | Q(slug__icontains=filters.text)
            | Q(description__icontains=filters.text)
        )
    return rows


@operation(
    router,
    "POST",
    "",
    operation_id="project_create",
    response={201: ProjectOut},
    once=True,
)
def project_create(request: HttpRequest, body: ProjectIn) -> Any:
    """Make a project.

    Needs a name and the upstream's address; the rest has defaults.
    """
    given = body.model_dump(exclude_unset=True, exclude_none=True)
    return Status(201, services.create(caller(request), **given))


@operation(router, "GET", "/{slug}", operation_id="project_get", response=ProjectOut)
def project_get(request: HttpRequest, slug: str) -> Project:
    """One project with its settings."""
    return find(slug)


@operation(router, "PATCH", "/{slug}", operation_id="project_update", response=ProjectOut)
def project_update(request: HttpRequest, slug: str, body: ProjectChanges) -> Project:
    """Change settings of a project.

    Fields that are not named stay. Runs that were launched keep what they were launched with.
    """
    project = find(slug)
    services.update(project, caller(request), body.model_dump(exclude_unset=True))
    return find(slug)


@operation(
    router,
    "POST",
    "/{slug}/archive",
    operation_id="project_archive",
    response=ProjectOut,
    problems=(409,),
)
def project_archive(request: HttpRequest, slug: str) -> Project:
    """Take a project out of the lists.

    Its runs and reviews stay. Refused (409) while a run of it has not ended.
    """
    project = find(slug)
    services.archive(project, caller(request))
    return find(slug)
