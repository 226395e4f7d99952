"""The control plane's own parts over the API, and taking the whole into and out of work."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.http import HttpRequest
from ninja import Router

from devaipod_web.api.auth import caller
from devaipod_web.api.routing import operation
from devaipod_web.api.schemas.services import ServiceOut, SetupOut, TeardownIn, TeardownOut
from devaipod_web.health import queries
from devaipod_web.health.verbs import setup as setting_up
from devaipod_web.health.verbs import teardown as tearing_down
from devaipod_web.health.verbs.restart import restart

router = Router(tags=["services"])
installation_router = Router(tags=["services"])


@operation(router, "GET", "", operation_id="services_list", response=list[ServiceOut])
def services_list(request: HttpRequest) -> list[queries.State]:
    """List the services.

    Each with health, version, last error, and whether it can be restarted. Not paged: there are a handful.
    """
    return queries.services()


@operation(
    router,
    "POST",
    "/{name}/restart",
    operation_id="service_restart",
    response=ServiceOut,
    problems=(409, 503),
)
def service_restart(request: HttpRequest, name: str) -> queries.State:
    """Restart a service.

    The answer is how it is then.

    Waits until it is done, at most 40 seconds. 409 `no-restart` says what to do instead where there is nothing to restart from
    here, 503 `not-restarted` what went wrong.
    """
    return restart(name, caller(request))


@operation(
    installation_router, "POST", "/setup", operation_id="setup", response=SetupOut, problems=(503,)
)
def setup(request: HttpRequest) -> dict[str, Any]:
    """Bring up what is missing and take new runs again.

    Each part of the server's side is checked. Safe to repeat.

    `ready` says whether runs can be launched now; each step has a result (`ok` it was so, `done`, `failed`) and a sentence.
    """
    steps = setting_up.setup(caller(request))
    return {"ready": setting_up.is_ready(steps), "steps": [asdict(step) for step in steps]}


@operation(
    installation_router,
    "POST",
    "/teardown",
    operation_id="teardown",
    response=TeardownOut,
    problems=(503,),
)
def teardown(request: HttpRequest, body: TeardownIn) -> dict[str, Any]:
    """Take the installation out of work.

    It takes no new runs, stops those at work with their work staged, and ends every pod. Safe to repeat; `setup` undoes it.

    While pods still stage, their step is `waiting` and `done` false: ask again. Runs, reviews and volumes stay.
    """
    steps = tearing_down.teardown(caller(request), confirm=body.confirm)
    return {"done": tearing_down.is_done(steps), "steps": [asdict(step) for step in steps]}
