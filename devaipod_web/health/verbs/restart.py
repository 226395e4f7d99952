"""Restart a service: the process that looks after it does it, whichever that is."""

from __future__ import annotations

import time
from datetime import datetime

from django.db import transaction
from django.utils import timezone

from devaipod_web.accounts.models import User
from devaipod_web.health import queries
from devaipod_web.health.beat import STALE, WOKEN
from devaipod_web.health.errors import NoRestart, NoSuchService, NotRestarted
from devaipod_web.health.models import ServiceBeat
from devaipod_web.reviews import audit
from devaipod_web.runs.wake import wake

#: A caller waits so long for the answer; the restart itself goes on.
WAIT_SECONDS = 40.0
LOOK_SECONDS = 0.1


def restart(name: str, by: User) -> queries.State:
    """Ask the process that looks after a service to restart it, wait until it has, and return the service as it is then.

    Blocking. Raises NoSuchService, NoRestart, and NotRestarted when it went wrong.
    """
    asked_at = ask(name, by)
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        rows = ServiceBeat.objects.filter(service=name, restarted_at__gte=asked_at)
        found = rows.filter(restart_asked_at=None).first()
        if found is not None:
            if found.restart_error:
                raise NotRestarted(
                    f"{found.title} was not restarted: {found.restart_error}",
                    next_step=found.next_step or "Look at the server's log: `devaipod logs`.",
                )
            state = queries.service(name)
            assert state is not None
            return state
        time.sleep(LOOK_SECONDS)
    raise NotRestarted(
        f"{name} has not been restarted within {WAIT_SECONDS:.0f} seconds; its process goes on trying.",
        next_step="Look again: `devaipod services`.",
    )


def ask(name: str, by: User) -> datetime:
    """Leave the wish for whoever looks after the service; returns when it was left. Raises NoSuchService, NoRestart."""
    state = queries.service(name)
    if state is None:
        raise NoSuchService(
            f"There is no service {name[:60]!r}.", next_step="`devaipod services` lists them."
        )
    if not state.may_restart:
        raise NoRestart(f"{state.title} can't be restarted from here.", next_step=state.no_restart)
    now = timezone.now()
    with transaction.atomic():
        ServiceBeat.objects.filter(service=name, ended=False, at__gt=now - STALE).update(
            restart_asked_at=now
        )
        audit.write(by, "service.restarted", target=state.title, target_url="/services/")
        wake(WOKEN)
    return now
