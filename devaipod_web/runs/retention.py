"""What is kept of ended runs and for how long: container logs `KEEP_LOGS`, volumes `KEEP_VOLUMES`; the transcript stays.

`plan()` says what would go and touches nothing; `apply(plan)` removes exactly that, looking at each run once more. The supervisor
does both once a day; the API and `devaipod prune` call the same.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import structlog
from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from devaipod_web import db, home
from devaipod_web.runs import events
from devaipod_web.runs.models import Run, RunPod
from devaipod_web.runs.states import ENDED
from devaipod_web.runs.supervisor.pod_spec import volume_name
from devaipod_web.targets.models import Target
from pods.backend import ContainerBackend
from pods.errors import BackendError
from pods.spec import VolumeKind

BackendOf = Callable[[Target | None], ContainerBackend]

log = structlog.get_logger("devaipod.retention")

LOGS = "logs"
VOLUMES = "volumes"
#: Volumes that belong to a run rather than to one of its pods.
RUN_VOLUMES = (VolumeKind.WORKSPACE, VolumeKind.HOME, VolumeKind.STATE)


@dataclass(frozen=True)
class Item:
    """Something that is to go: `what` is `logs` or `volumes`, `names` the folders' or volumes' names, `bytes` 0 where unknown."""

    what: str
    run: str
    title: str
    ended_at: str
    names: tuple[str, ...]
    bytes: int

    def as_json(self) -> dict[str, object]:
        """For API and CLI."""
        return {**asdict(self), "names": list(self.names)}


def plan(now: datetime | None = None) -> list[Item]:
    """What retention would remove now, the oldest first. Reads only. Blocking."""
    moment = now or timezone.now()
    return [*_logs(moment), *_volumes(moment)]


def _ended(before: datetime) -> Q:
    # A run that is kept warm or winds down still has a pod: it is not touched.
    return Q(state__in=ENDED, ended_at__lt=before) & ~Q(
        pk__in=RunPod.objects.filter(removed_at=None).values("run_id")
    )


def _logs(now: datetime) -> list[Item]:
    items = []
    due = Run.objects.filter(_ended(now - settings.KEEP_LOGS), logs_pruned_at=None)
    for run in due.order_by("ended_at"):
        folder = home.run_logs_dir(run.key)
        if folder.is_dir():
            items.append(_item(LOGS, run, (str(folder),), size_of(folder)))
    return items


def _volumes(now: datetime) -> list[Item]:
    installation = home.installation_id()
    due = Run.objects.filter(
        _ended(now - settings.KEEP_VOLUMES), volumes_pruned_at=None, attempts__gt=0
    )
    return [
        _item(
            VOLUMES,
            run,
            tuple(volume_name(installation, run.key, kind) for kind in RUN_VOLUMES),
            0,
        )
        for run in due.order_by("ended_at")
    ]


def _item(what: str, run: Run, names: tuple[str, ...], size: int) -> Item:
    ended = run.ended_at.isoformat() if run.ended_at else ""
    return Item(what, run.key, run.title, ended, names, size)


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


async def apply(items: list[Item], backend_of: BackendOf) -> list[Item]:
    """Remove what was planned and return what went. A run that has gone on since is left alone. `backend_of` gives a target's backend.

    What a killed process left half removed is planned again the next time. A target that does not answer holds up no other; then
    raises BackendError at the end, and what is there is planned again.
    """
    done = []
    failed: BackendError | None = None
    for item in items:
        if not await db.write(_claim, item):
            continue
        if item.what == LOGS:
            await asyncio.to_thread(shutil.rmtree, home.run_logs_dir(item.run), ignore_errors=True)
        else:
            try:
                for target in await db.read(targets_of, item.run):
                    for name in item.names:
                        await backend_of(target).remove_volume(name)
            except BackendError as error:
                failed = failed or error
                await db.write(_unclaim, item)
                continue
        await db.write(_note, item)
        log.info("retention.removed", what=item.what, run=item.run, bytes=item.bytes)
        done.append(item)
    if failed is not None:
        raise failed
    return done


def _claim(item: Item) -> bool:
    """Mark the item as gone before it goes: a follow-up that comes meanwhile then starts with new volumes."""
    column = "logs_pruned_at" if item.what == LOGS else "volumes_pruned_at"
    now = timezone.now()
    keep = settings.KEEP_LOGS if item.what == LOGS else settings.KEEP_VOLUMES
    due = Run.objects.filter(_ended(now - keep), key=item.run, **{column: None})
    return bool(due.update(**{column: now}))


def _unclaim(item: Item) -> None:
    """The volumes are still there: they are planned again."""
    Run.objects.filter(key=item.run).update(volumes_pruned_at=None)


def _note(item: Item) -> None:
    run = Run.objects.get(key=item.run)
    text = (
        "The container logs were removed: they are kept for "
        f"{settings.KEEP_LOGS.days} days. The transcript stays."
        if item.what == LOGS
        else f"Workspace and home were removed: they are kept for {settings.KEEP_VOLUMES.days} days. "
        "What was staged stays; a further prompt starts from there."
    )
    last = run.last_event_at
    events.record(run, events.Kind.NOTE, {"level": "info", "text": text, "next_step": ""})
    # Being tidied away is no activity: lists that sort by it stay as they were.
    Run.objects.filter(pk=run.pk).update(last_event_at=last)


def targets_of(run_key: str) -> list[Target | None]:
    """The targets at which a run had pods; None for podman where it is older than targets. Blocking."""
    pods = RunPod.objects.filter(run__key=run_key).select_related("target")
    return list({pod.target_id: pod.target for pod in pods}.values()) or [None]


async def run_daily(backend_of: BackendOf) -> None:
    """The daily task: plan, then apply."""
    items = await asyncio.get_running_loop().run_in_executor(None, _plan_in_thread)
    if items:
        await apply(items, backend_of)


def _plan_in_thread() -> list[Item]:
    from django.db import connections

    try:
        return plan()
    finally:
        connections.close_all()
