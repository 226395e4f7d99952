"""A token that is bound to a project sees and does only that project's things.

How the project of an operation is found stands in `permissions.REACH`; here it is looked up. Things of other projects are
not there for such a token (404), things of the whole installation are refused (403).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TypeVar

from django.db.models import Model, Q, QuerySet
from django.http import Http404, HttpRequest

from devaipod_web.accounts.models import User
from devaipod_web.accounts.permissions import REACH, Reach
from devaipod_web.api.problems import Problem
from devaipod_web.budgets.models import Budget, Incident
from devaipod_web.projects.models import Project
from devaipod_web.reviews.models import Review
from devaipod_web.runs.models import PermissionRequest, Run, RunPod
from devaipod_web.webhooks.models import Delivery

M = TypeVar("M", bound=Model)

#: The field of each listed model that leads to its project. A model that is missing here fails (KeyError).
PROJECT_OF: dict[type[Model], str] = {
    Project: "pk",
    Run: "project",
    RunPod: "run__project",
    Review: "run__project",
    PermissionRequest: "run__project",
    Delivery: "webhook__project",
    Budget: "project",
    Incident: "run__project",
}


def nothing(thing: str, name: str) -> Http404:
    """What is told when there is no such thing: the same words whether it is nowhere or only out of reach."""
    return Http404(f"There is no {thing} {name[:63]!r}.")


def bound_to(user: User) -> Project | None:
    """The one project that this caller's token counts for, or None when it counts for all."""
    return user.through.project if user.through is not None else None


def within(user: User, rows: QuerySet[M]) -> QuerySet[M]:
    """The rows of these that the caller may see."""
    project = bound_to(user)
    return rows if project is None else rows.filter(**{PROJECT_OF[rows.model]: project.pk})


def check(user: User, route: str, path: Mapping[str, str], *, body: bytes = b"") -> None:
    """Let the caller through to `route` (a name of the permission table) if their token reaches what `path` names.

    `path` has the values of the address by name. Raises Http404 for another project's things, Problem with 403 for the
    installation's and for a body that names no project.
    """
    project = bound_to(user)
    if project is None:
        return
    match REACH.get(route, Reach.INSTALLATION):
        case Reach.CALLER | Reach.LIST:
            return
        case Reach.RUN:
            runs = Run.objects.filter(project=project, key=path["key"])
            _need(runs.exists(), "run", path["key"])
        case Reach.POD:
            pods = RunPod.objects.filter(run__project=project, name=path["name"])
            _need(pods.exists(), "pod", path["name"])
        case Reach.REVIEW:
            key = path["key"]
            reviews = Review.objects.filter(run__project=project)
            _need(reviews.filter(Q(key=key) | Q(run__key=key)).exists(), "review", key)
        case Reach.PROJECT:
            _need(path["slug"] == project.slug, "project", path["slug"])
        case Reach.BODY:
            _check_body(project, body)
        case Reach.INSTALLATION:
            raise Problem(
                403,
                "token-bound",
                f"This token counts for the project {project.slug} alone; this is about the whole installation.",
                next_step="Use a token without a project.",
            )


def _need(found: bool, thing: str, name: str) -> None:
    if not found:
        raise nothing(thing, name)


def _check_body(project: Project, body: bytes) -> None:
    """The body's `project` must be the token's. What is no JSON object is left to the operation's own form."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        return
    if not isinstance(given, dict):
        return
    named = given.get("project")
    if named == project.slug:
        return
    if isinstance(named, str) and named:
        raise nothing("project", named)
    raise Problem(
        403,
        "token-bound",
        f"This token counts for the project {project.slug} alone.",
        next_step=f'Name it in the body: "project": "{project.slug}".',
    )


def of_request(user: User, route: str, request: HttpRequest) -> None:
    """`check` with what this request's address and body name."""
    match = request.resolver_match
    path = {name: str(value) for name, value in match.kwargs.items()} if match else {}
    needs_body = REACH.get(route) is Reach.BODY and bound_to(user) is not None
    check(user, route, path, body=request.body if needs_body else b"")
