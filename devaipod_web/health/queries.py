"""The services as people see them, from the rows of all processes. The web process knows no more than these."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from django.utils import timezone

from devaipod_web.health.beat import STALE
from devaipod_web.health.contract import Health, Kind
from devaipod_web.health.models import ServiceBeat
from devaipod_web.health.registry import ALWAYS, PROCESSES

#: From the worst to the best.
ORDER = [Health.DOWN, Health.UNKNOWN, Health.DEGRADED, Health.OK]


@dataclass(frozen=True)
class State:
    """One service now. Times are aware, durations seconds."""

    name: str
    title: str
    kind: str
    health: Health
    says: str
    next_step: str = ""
    version: str = ""
    since: datetime | None = None
    lag_seconds: float | None = None
    last_beat: datetime | None = None
    last_error: str = ""
    last_error_at: datetime | None = None
    restart_does: str = ""
    no_restart: str = ""
    restarting: bool = False
    restarted_at: datetime | None = None
    restart_error: str = ""
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def may_restart(self) -> bool:
        """Whether there is a process that can restart it now."""
        return bool(self.restart_does)

    @property
    def restart_word(self) -> str:
        """What the button says: what has no process of its own is only asked again."""
        others = (Kind.PROVIDER, Kind.FORGE, Kind.TOOLS, Kind.CLUSTER)
        return "Check again" if self.kind in others else "Restart"


def services() -> list[State]:
    """Every service, in a fixed order: the control plane's own parts, then the rest by title."""
    now = timezone.now()
    rows: dict[str, list[ServiceBeat]] = {}
    for row in ServiceBeat.objects.order_by("at"):
        rows.setdefault(row.service, []).append(row)
    found = [_state(name, rows.get(name, []), now) for name in {**ALWAYS, **rows}]
    place = {name: number for number, name in enumerate(ALWAYS)}
    return sorted(found, key=lambda state: (place.get(state.name, len(place)), state.title))


def service(name: str) -> State | None:
    """One service, or None."""
    rows = list(ServiceBeat.objects.filter(service=name).order_by("at"))
    return _state(name, rows, timezone.now()) if rows or name in ALWAYS else None


def unwell() -> int:
    """How many services are down or degraded. One query: it is in every page's frame."""
    return sum(state.health in (Health.DOWN, Health.DEGRADED) for state in services())


def worst(states: list[State]) -> Health:
    """The health of the whole: that of the part that is worst off."""
    return min((state.health for state in states), key=ORDER.index, default=Health.UNKNOWN)


def lives(row: ServiceBeat, now: datetime) -> bool:
    """Whether the process that wrote a row still does."""
    return not row.ended and row.at > now - STALE


def _state(name: str, rows: list[ServiceBeat], now: datetime) -> State:
    living = [row for row in rows if lives(row, now)]
    if not living:
        return _silent(name, rows[-1] if rows else None)
    # Several processes of one kind are as well as the worst of them.
    row = min(living, key=lambda one: ORDER.index(Health(one.health)))
    restarting = any(one.restart_asked_at is not None for one in living)
    return State(
        name=name,
        title=row.title,
        kind=row.kind,
        health=Health(row.health),
        says=row.says,
        next_step=row.next_step,
        version=row.version,
        since=row.since,
        lag_seconds=row.lag_seconds,
        last_beat=row.last_beat,
        last_error=row.last_error,
        last_error_at=row.last_error_at,
        restart_does=row.restart_does,
        no_restart=row.no_restart,
        restarting=restarting,
        restarted_at=row.restarted_at,
        restart_error=row.restart_error,
        facts=dict(row.facts),
    )


def _silent(name: str, row: ServiceBeat | None) -> State:
    own = name in PROCESSES
    return State(
        name=name,
        title=row.title if row else ALWAYS[name],
        kind=row.kind if row else "",
        health=Health.DOWN if own else Health.UNKNOWN,
        says="No process serves it." if own else "The process that looks after it says nothing.",
        next_step=f"Start it: `devaipod serve`, or `devaipod serve {name}` where services run apart."
        if own
        else "Look at gateway and supervisor.",
        version=row.version if row else "",
        since=row.at if row else None,
        last_beat=row.last_beat if row else None,
        last_error=row.last_error if row else "",
        last_error_at=row.last_error_at if row else None,
        no_restart="It has no process that could restart it.",
    )
