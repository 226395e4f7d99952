"""The page of the services. What happens is decided in `verbs/`."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from devaipod_web.accounts.models import User
from devaipod_web.health import queries
from devaipod_web.health.errors import HealthError
from devaipod_web.health.verbs import setup
from devaipod_web.health.verbs.restart import restart


def _me(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


@require_GET
def services(request: HttpRequest) -> HttpResponse:
    """Every part of the control plane with its health."""
    return render(request, "services/page.html", {"services": queries.services()})


@require_GET
def services_live(request: HttpRequest) -> HttpResponse:
    """The table alone, fetched again every few seconds."""
    return render(request, "services/_table.html", {"services": queries.services()})


@require_POST
def service_restart(request: HttpRequest, service: str) -> HttpResponse:
    """Restart a service and say how it is then."""
    try:
        state = restart(service, _me(request))
    except HealthError as error:
        messages.error(request, error.sentence)
    else:
        messages.success(
            request, f"{state.title} was restarted. It is {state.health}: {state.says}"
        )
    return redirect("services")


@require_POST
def installation_setup(request: HttpRequest) -> HttpResponse:
    """Check every part, bring up what is missing, take runs again; shows what became of each step."""
    steps = setup.setup(_me(request))
    return render(
        request,
        "services/page.html",
        {"services": queries.services(), "steps": steps, "ready": setup.is_ready(steps)},
    )
