"""The one table of services: which kind of process looks after which. A new one is a line here and a file in `checks/`."""

from __future__ import annotations

from devaipod_web.health.checks import (
    clusters,
    database,
    listeners,
    loops,
    podman,
    providers,
    staging,
)
from devaipod_web.health.contract import Source

SOURCES: tuple[Source, ...] = (
    Source("web", listeners.web),
    Source("gateway", listeners.gateway),
    # Only there when DEVAIPOD_GATEWAY_LISTEN names one.
    Source("gateway-port", listeners.gateway_port),
    Source("supervisor", loops.supervisor),
    # A part of its own beside the supervisor.
    Source("webhooks", loops.deliveries),
    Source("supervisor", podman.service),
    Source("supervisor", clusters.each),
    Source("gateway", staging.forge),
    Source("gateway", database.store),
    Source("gateway", providers.each),
)

#: Services that are always listed, with their titles, also when no process says anything about them.
ALWAYS: dict[str, str] = {
    "web": "Web app and API",
    "gateway": "Gateway",
    "supervisor": "Supervisor",
    "webhooks": "Webhook deliveries",
    "podman": "podman's API service",
    "staging": "Staging forge",
    "database": "Database and event writer",
}
#: Of these the process itself is the service: nobody saying anything means that it does not run.
PROCESSES = ("web", "gateway", "supervisor")
