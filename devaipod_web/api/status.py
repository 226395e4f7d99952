"""What this installation is doing, in a few figures."""

from __future__ import annotations

import shutil
from typing import Any

from django.http import HttpRequest
from ninja import Router

from devaipod_web import __version__, home
from devaipod_web.accounts.permissions import role_of
from devaipod_web.api.auth import caller
from devaipod_web.api.reach import bound_to, within
from devaipod_web.api.routing import operation
from devaipod_web.api.schemas.status import StatusOut
from devaipod_web.health import drain, queries
from devaipod_web.reviews.models import Review, ReviewState
from devaipod_web.runs.models import PermissionRequest, PermissionState, Run
from devaipod_web.runs.states import ACTIVE, State
from devaipod_web.runs.supervisor import image
from devaipod_web.targets import queries as targets
from pods.agents import ACP_PROFILES, AgentProfile

router = Router(tags=["status"])


@operation(router, "GET", "", operation_id="status", response=StatusOut)
def status(request: HttpRequest) -> dict[str, Any]:
    """This installation, the caller, and what waits.

    By a token that is bound to a project, the figures are that project's.
    """
    user = caller(request)
    project = bound_to(user)
    runs = within(user, Run.objects.all())
    asked = within(user, PermissionRequest.objects.filter(state=PermissionState.OPEN))
    reviews = within(user, Review.objects.filter(state=ReviewState.OPEN))
    services = queries.services()
    supervisor = next(one for one in services if one.name == "supervisor")
    disk = shutil.disk_usage(home.home())
    return {
        "version": __version__,
        "installation": home.installation_id(),
        "user": user.username,
        "role": role_of(user) or "",
        "project": project.slug if project is not None else None,
        "max_runs": targets.most_at_once(),
        "active_runs": runs.filter(state__in=ACTIVE).count(),
        "queued_runs": runs.filter(state=State.QUEUED).count(),
        "waiting_permissions": asked.count(),
        "open_reviews": reviews.count(),
        "supervisor_last_beat": supervisor.last_beat,
        "supervisor_error": supervisor.last_error,
        "health": queries.worst(services),
        "agents": [_agent(profile) for profile in ACP_PROFILES.values()],
        "services": services,
        "draining_since": drain.since(),
        "disk_free_bytes": disk.free,
        "disk_total_bytes": disk.total,
    }


def _agent(profile: AgentProfile) -> dict[str, Any]:
    return {
        "key": profile.key,
        "title": profile.title,
        "program": profile.program,
        "forms": list(profile.forms),
        "image": image.default_image(profile.key),
    }
