"""Take the installation into work: check each part of the server's side, bring up what is missing, take runs again. Safe to repeat."""

from __future__ import annotations

import time
from collections.abc import Callable

from django.conf import settings
from django.contrib.auth.models import Group
from django.db import connection, transaction
from django.db.migrations.executor import MigrationExecutor

from devaipod_web.accounts.models import User
from devaipod_web.accounts.permissions import ORDER
from devaipod_web.accounts.services import ensure_groups
from devaipod_web.health import drain, queries
from devaipod_web.health.checks import staging
from devaipod_web.health.contract import Health
from devaipod_web.health.errors import HealthError
from devaipod_web.health.verbs.restart import restart
from devaipod_web.health.verbs.steps import Result, Step
from devaipod_web.reviews import audit
from devaipod_web.runs import backends
from pods.errors import BackendError

#: The first beat of a process comes within a second or two of its start.
SPEAK_SECONDS = 8.0
SET_UP = "`devaipod setup` on the server's host"


def setup(by: User) -> list[Step]:
    """Every step with what became of it. Blocking; seconds. Raises nothing that a step could tell."""
    return [step(by) for step in STEPS]


def is_ready(steps: list[Step]) -> bool:
    """Whether runs can be launched and worked on now."""
    return all(step.result in (Result.OK, Result.DONE) for step in steps)


def _migrations(by: User) -> Step:
    executor = MigrationExecutor(connection)
    waiting = len(executor.migration_plan(executor.loader.graph.leaf_nodes()))
    if waiting:
        # A server never migrates under itself: `serve` refuses to start like this, so the program was changed meanwhile.
        return Step(
            "migrations",
            Result.FAILED,
            f"The database lacks {waiting} migrations of the program that is installed now.",
            f"End the server and run {SET_UP}.",
        )
    return Step("migrations", Result.OK, "The database is up to date.")


def _roles(by: User) -> Step:
    there = Group.objects.filter(name__in=ORDER).count()
    ensure_groups()
    if there == len(ORDER):
        return Step("roles", Result.OK, "The four roles are there.")
    return Step("roles", Result.DONE, f"{len(ORDER) - there} roles were made.")


def _service(name: str) -> Callable[[User], Step]:
    """A step that restarts a service which is down."""

    def step(by: User) -> Step:
        state = _spoken_for(name)
        if state.health in (Health.OK, Health.DEGRADED):
            return Step(name, Result.OK, f"{state.title}: {state.says}")
        if not state.may_restart:
            return Step(name, Result.FAILED, f"{state.title}: {state.says}", state.next_step)
        try:
            after = restart(name, by)
        except HealthError as error:
            return Step(name, Result.FAILED, error.message, error.next_step)
        if after.health in (Health.OK, Health.DEGRADED):
            return Step(name, Result.DONE, f"{after.title} was restarted. {after.says}")
        return Step(name, Result.FAILED, f"{after.title}: {after.says}", after.next_step)

    return step


def _spoken_for(name: str) -> queries.State:
    """The service once its process has said something of it: a server that has just come up takes a moment."""
    deadline = time.monotonic() + SPEAK_SECONDS
    while True:
        state = queries.service(name)
        assert state is not None
        if state.health is Health.OK or state.may_restart or time.monotonic() > deadline:
            return state
        time.sleep(0.2)


def _images(by: User) -> Step:
    if not settings.PODMAN:
        return Step("images", Result.OK, "The nodes of the clusters pull them; podman is not used.")
    wanted = (settings.AGENT_IMAGE, settings.SIDECAR_IMAGE)
    try:
        missing = backends.run(_missing(wanted))
    except BackendError as error:
        return Step("images", Result.FAILED, error.message, error.next_step)
    if missing:
        return Step(
            "images",
            Result.FAILED,
            f"Not in the local store: {', '.join(missing)}.",
            f"{SET_UP.capitalize()} builds them (some minutes).",
        )
    return Step("images", Result.OK, f"In the local store: {', '.join(wanted)}.")


async def _missing(wanted: tuple[str, ...]) -> list[str]:
    backend = backends.shared()
    return [name for name in wanted if await backend.image(name) is None]


def _staging(by: User) -> Step:
    try:
        version = staging.self_check()
    except staging.SelfCheckFailed as error:
        return Step("staging", Result.FAILED, str(error), "Mend what it says, then set up again.")
    return Step("staging", Result.OK, f"The staging forge serves its own repository ({version}).")


def _runs(by: User) -> Step:
    with transaction.atomic():
        ended = drain.end()
        if ended:
            audit.write(by, "installation.set_up")
    if ended:
        return Step("runs", Result.DONE, "New runs are taken again.")
    return Step("runs", Result.OK, "New runs are taken.")


#: In the order in which each needs those before it.
STEPS: tuple[Callable[[User], Step], ...] = (
    _migrations,
    _roles,
    _service("podman"),
    _images,
    _staging,
    _service("gateway"),
    _service("supervisor"),
    _runs,
)
