"""Targets as the supervisor, pages, API and command read them: the rooms, the queue, and where a run stands in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.db.models import Count, Q, QuerySet
from django.utils import timezone

from devaipod_web import home
from devaipod_web.health.models import Health
from devaipod_web.projects.models import Project, Workspace
from devaipod_web.runs.models import Run, RunPod
from devaipod_web.runs.states import ACTIVE, State
from devaipod_web.targets.choice import Asking, Place, Room, all_places
from devaipod_web.targets.models import PODMAN_NAME, GatewayMode, Target, TargetKind
from pods.kubernetes_relay_documents import relay_name
from pods.kubernetes_relay_documents import url as relay_url


def targets() -> QuerySet[Target]:
    """The targets that this installation has, the oldest first; without podman where the settings switch it off."""
    rows = Target.objects.order_by("pk")
    return rows if settings.PODMAN else rows.exclude(kind=TargetKind.PODMAN)


def find(name_or_key: str) -> Target | None:
    """The target of this name or key, or None."""
    return targets().filter(Q(name=name_or_key) | Q(key=name_or_key)).first()


def default(rows: Sequence[Target]) -> Target | None:
    """Where runs of a project go that names no target: podman, or where there is none the oldest target."""
    return next((row for row in rows if row.is_podman), rows[0] if rows else None)


def gateway_address(target: Target) -> str:
    """The gateway's base URL as the target's pods reach it; empty where they need none, or none is known."""
    if target.is_podman:
        return ""
    if target.gateway_mode == GatewayMode.RELAY:
        # A Service before the relay, where somebody made one; else the relay's own address.
        return target.gateway_address or relay_url(target.relay_address)
    return target.gateway_address or str(settings.GATEWAY_ADDRESS)


def gateway_map(target: Target) -> str:
    """What in the cluster holds that URL for pods that are there already; empty where it never changes."""
    is_relayed = not target.is_podman and target.gateway_mode == GatewayMode.RELAY
    return relay_name(home.installation_id()) if is_relayed else ""


@dataclass(frozen=True)
class Shown:
    """A target with its room, and how many projects name it."""

    target: Target
    room: Room
    projects: int


def shown() -> list[Shown]:
    """Every target as its page lists it."""
    found = rooms()
    named = [key for keys in Project.objects.values_list("targets", flat=True) for key in keys]
    return [Shown(row, found[row.pk], named.count(row.key)) for row in targets()]


# --- room ---------------------------------------------------------------------------------------------------------


def rooms(now: datetime | None = None, *, podman_places: int | None = None) -> dict[int, Room]:
    """How much each target takes, by its id. `podman_places` instead of the setting's."""
    moment = now or timezone.now()
    rows = list(targets())
    taken = _taken(rows)
    return {
        row.pk: Room(
            row.pk,
            row.name,
            taken=taken.get(row.pk, NONE).all,
            most=_most(row, podman_places),
            closed=why_closed(row, moment),
            starting=taken.get(row.pk, NONE).starting,
        )
        for row in rows
    }


def why_closed(row: Target, now: datetime) -> str:
    """Why a target takes no run now, as the rest of a sentence; empty when it does."""
    if not row.enabled:
        return "it is switched off"
    if row.health == Health.DOWN:
        return row.error or "it does not answer"
    if row.full_until is not None and row.full_until > now:
        return f"it had no room: {row.full_reason}"
    if not row.is_podman and row.gateway_mode == GatewayMode.DIRECT and not gateway_address(row):
        return "its pods have no address of the gateway"
    if not row.is_podman and row.gateway_mode == GatewayMode.RELAY and not row.relay_connected:
        return f"the forward to its relay is not open. {row.relay_says}".strip()
    return ""


def most_runs(row: Target) -> int | None:
    """How many runs a target takes at once; None without a bound."""
    return _most(row, None)


def most_at_once() -> int | None:
    """How many runs all targets together take at once; None when one has no bound."""
    bounds = [most_runs(row) for row in targets().filter(enabled=True)]
    known = [bound for bound in bounds if bound is not None]
    return sum(known) if len(known) == len(bounds) else None


def _most(row: Target, podman_places: int | None) -> int | None:
    bounds = [row.max_runs, row.capacity]
    if row.is_podman:
        bounds.append(settings.MAX_RUNS if podman_places is None else podman_places)
    return min((bound for bound in bounds if bound is not None), default=None)


@dataclass(frozen=True)
class _Taken:
    """Runs that hold a place at a target, and those of them that are not at work yet."""

    all: int = 0
    starting: int = 0


NONE = _Taken()


def _taken(rows: Sequence[Target]) -> dict[int, _Taken]:
    """Runs that hold a place, by target. One that was never given a target is podman's: it is older than targets."""
    going = RunPod.objects.filter(removed_at=None).values("run_id")
    holds = Q(state__in=ACTIVE - {State.PAUSED}) | Q(state=State.PAUSED, pk__in=going)
    starts = Q(state__in={State.PREPARING, State.STARTING})
    counted = (
        Run.objects.filter(holds)
        .order_by()
        .values("target")
        .annotate(n=Count("pk"), starting=Count("pk", filter=starts))
    )
    podman = next((row.pk for row in rows if row.is_podman), None)
    found: dict[int, _Taken] = {}
    for row in counted:
        target = podman if row["target"] is None else row["target"]
        if target is not None:
            before = found.get(target, NONE)
            found[target] = _Taken(before.all + row["n"], before.starting + row["starting"])
    return found


# --- the queue ----------------------------------------------------------------------------------------------------


def waiting() -> list[Asking]:
    """The queue: each run that waits, with the targets that it may go to. Two queries, whatever its length."""
    rows = list(targets())
    ids = {row.key: row.pk for row in rows}
    first = default(rows)
    found = (
        Run.objects.filter(state=State.QUEUED)
        .order_by("queued_at", "pk")
        .values_list(
            *("pk", "asked_target", "target", "attempts", "volumes_pruned_at"),
            *("project__targets", "project__workspace"),
        )
    )
    kinds = {row.pk: row.kind for row in rows}
    asking = []
    for pk, asked, target, attempts, pruned, named, workspace in found:
        keeps = target in kinds and attempts > 0 and pruned is None
        if keeps and (kinds[target] == TargetKind.PODMAN or workspace == Workspace.PVC):
            # Its workspace and its agent's home are there.
            order: tuple[int, ...] = (target,)
        elif asked in kinds:
            order = (asked,)
        else:
            order = tuple(ids[key] for key in named if key in ids)
            order = order or ((first.pk,) if first is not None else ())
        asking.append(Asking(pk, order))
    return asking


def queue_places(run: Run) -> list[Place]:
    """Where a run stands at each target that it may go to; empty when it does not wait."""
    return all_queue_places().get(run.pk, []) if run.state == State.QUEUED else []


def all_queue_places() -> dict[int, list[Place]]:
    """The same of every run that waits, by its id. Four queries, whatever the queue's length."""
    return all_places(waiting(), rooms())


def order_of(project: Project) -> list[Target]:
    """The targets of a project's runs, the first choice first."""
    rows = list(targets())
    by_key = {row.key: row for row in rows}
    named = [by_key[key] for key in project.targets if key in by_key]
    first = default(rows)
    return named or ([first] if first is not None else [])


def words(found: Sequence[Place], *, long: bool = False) -> str:
    """Places in the queue for a person: `place 2 in the queue`, or `place 2 at podman, place 1 at cluster-a`; empty without any.

    A target that takes none now says why; `long` says of the others how full they are.
    """
    if len(found) == 1 and found[0].room.name == PODMAN_NAME:
        place = found[0]
        return f"place {place.place} in the queue" + (
            _why(place.room) if _explains(place.room) else ""
        )
    return ", ".join(
        f"place {place.place} at {place.room.name}"
        + (_why(place.room) if long or _explains(place.room) else "")
        for place in found
    )


def _explains(room: Room) -> bool:
    """Whether a run waits there for something else than a place."""
    return bool(room.closed) or (room.has_room and not room.is_open)


def _why(room: Room) -> str:
    if room.closed:
        return f" ({room.closed.rstrip('.')})"
    if room.has_room and not room.is_open:
        return f" ({room.starting} runs are starting there: the next when one is at work)"
    return f" ({room.taken} of {room.most} taken)" if room.most is not None else ""
