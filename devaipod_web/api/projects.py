"""Projects and providers over the API."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import Http404, HttpRequest
from ninja import Router
from ninja.responses import Status

from devaipod_web.api.auth import caller
from devaipod_web.api.routing import operation, paged
from devaipod_web.api.schemas import (
    ProjectChanges,
    ProjectIn,
    ProjectOut,
    ProviderOut,
    provider_out,
)
from devaipod_web.llm.models import Provider
from devaipod_web.projects import queries, services
from devaipod_web.projects.models import Project

router = Router(tags=["projects"])
providers_router = Router(tags=["projects"])


def find(slug: str) -> Project:
    """The project of this short name. Raises Http404."""
    project = queries.by_slug(slug)
    if project is None:
        raise Http404(f"There is no project {slug[:60]!r}.")
    return project


@operation(router, "GET", "", operation_id="projects_list", response=list[ProjectOut])
@paged("name", "id")
def projects_list(request: HttpRequest, archived: bool = False) -> QuerySet[Project]:
    """List projects by name."""
    return Project.objects.select_related("provider").filter(archived_at__isnull=not archived)


@operation(router, "POST", "", operation_id="project_create", response={201: ProjectOut})
def project_create(request: HttpRequest, body: ProjectIn) -> Any:
    """Make a project. Needs a name and the upstream's address; the rest has defaults."""
    given = body.model_dump(exclude_unset=True, exclude_none=True)
    return Status(201, services.create(caller(request), **given))


@operation(router, "GET", "/{slug}", operation_id="project_get", response=ProjectOut)
def project_get(request: HttpRequest, slug: str) -> Project:
    """One project with its settings."""
    return find(slug)


@operation(router, "PATCH", "/{slug}", operation_id="project_update", response=ProjectOut)
def project_update(request: HttpRequest, slug: str, body: ProjectChanges) -> Project:
    """Change settings of a project; runs that were launched keep theirs."""
    project = find(slug)
    services.update(project, caller(request), body.model_dump(exclude_unset=True))
    return find(slug)


@operation(router, "POST", "/{slug}/archive", operation_id="project_archive", response=ProjectOut)
def project_archive(request: HttpRequest, slug: str) -> Project:
    """Take a project out of the lists; its runs and reviews stay."""
    project = find(slug)
    services.archive(project, caller(request))
    return find(slug)


@operation(providers_router, "GET", "", operation_id="providers_list", response=list[ProviderOut])
def providers_list(request: HttpRequest) -> list[dict[str, Any]]:
    """List the providers of models, without their credentials."""
    return [provider_out(row) for row in Provider.objects.order_by("name")]
