"""The clusters among the targets: how the supervisor last found each, as lines beside the control plane's own parts.

The supervisor asks them on its own beat (`runs.supervisor.sites`) and writes their rows; what is asked here is the row. podman has a
line of its own, since its service is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from devaipod_web import db
from devaipod_web.health.contract import Health, Kind, Named, Report, Service
from devaipod_web.parts import Part
from devaipod_web.targets import look, queries
from devaipod_web.targets.choice import Room
from devaipod_web.targets.models import Target, TargetKind
from devaipod_web.targets.services import note_found

EVERY_SECONDS = 3.0
POLICIES = {True: "enforced", False: "not enforced", None: "not known"}


class Cluster:
    """One target of the kind kubernetes."""

    kind = Kind.CLUSTER
    every = EVERY_SECONDS
    restart_does = "It is another party's: it is asked again now."
    no_restart = ""

    def __init__(self, row: Target) -> None:
        self.name = f"target-{row.key}"
        self.title = f"Cluster {row.name}"
        self._pk = row.pk

    async def check(self) -> Report:
        """What the supervisor last found there."""
        found = await db.read(_row, self._pk)
        if found is None:
            return Report(Health.UNKNOWN, "It was removed.")
        row, room = found
        facts = {
            "runs": f"{room.taken} of {room.most}" if room.most is not None else str(room.taken),
            "network policies": POLICIES[row.policies_enforced],
        }
        if not row.enabled:
            return Report(Health.OK, "It is switched off: it takes no new runs.", facts=facts)
        if row.health == Health.UNKNOWN:
            return Report(Health.UNKNOWN, "It has not been looked at yet.", facts=facts)
        if row.health == Health.DOWN:
            return Report(Health.DOWN, f"{row.error}", next_step=row.next_step, facts=facts)
        says, step, health = _judged(row, room.closed)
        return Report(health, says, next_step=step, version=row.version, facts=facts)

    async def restart(self) -> None:
        """Ask it now."""
        row = await db.read(Target.objects.get, pk=self._pk)
        found = await look.here(row)
        await db.write(note_found, self._pk, found)


def _judged(row: Target, closed: str) -> tuple[str, str, Health]:
    if row.policies_enforced is False:
        return (
            "It answers, and its network plugin does not enforce network policies: pods there reach what its network reaches.",
            "Use a plugin that enforces NetworkPolicy (Calico, Cilium), then test the target.",
            Health.DEGRADED,
        )
    if row.error:
        return f"It answers. {row.error}", row.next_step, Health.DEGRADED
    if closed:
        return (
            f"It answers, and takes no run now: {closed}.".replace("..", "."),
            "",
            Health.DEGRADED,
        )
    return "It answers.", "", Health.OK


def _row(pk: int) -> tuple[Target, Room] | None:
    row = queries.targets().filter(pk=pk).first()
    return (row, queries.rooms()[pk]) if row is not None else None


def each(parts: Mapping[str, Part]) -> Named:
    """Every cluster, which the supervisor's process speaks to."""
    known: dict[tuple[int, str], Service] = {}

    async def named() -> Sequence[Service]:
        rows = await db.read(lambda: list(queries.targets().filter(kind=TargetKind.KUBERNETES)))
        found = {(row.pk, row.name): row for row in rows}
        for gone in set(known) - set(found):
            del known[gone]
        for key, row in found.items():
            known.setdefault(key, Cluster(row))
        return list(known.values())

    return named
