"""What an orchestrator asks: `/healthz` answers while the web service does, `/readyz` while its database does too."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse, HttpResponseBase

log = structlog.get_logger("devaipod.health")


def healthz(request: HttpRequest) -> HttpResponse:
    """Always 200. Touches nothing: a database that is away is no reason to kill the process."""
    return HttpResponse("ok\n", content_type="text/plain")


def readyz(request: HttpRequest) -> HttpResponse:
    """200 when the database answers, else 503: no page can be shown then."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError as error:
        log.warning("health.not_ready", error=str(error))
        return HttpResponse("The database does not answer.\n", "text/plain", status=503)
    return healthz(request)


class Probes:
    """Answers both before the Host is looked at: kubelets and load balancers ask by the pod's address, which no ALLOWED_HOSTS knows."""

    sync_capable = True
    async_capable = False

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer a probe, or pass the request on."""
        if request.path == "/healthz":
            return healthz(request)
        if request.path == "/readyz":
            return readyz(request)
        return self.get_response(request)
