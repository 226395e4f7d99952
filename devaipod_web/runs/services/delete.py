"""Remove an ended run with everything of it. What it cost stays, and so does the audit log."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from django.db import transaction
from django.utils import timezone

from devaipod_web import home
from devaipod_web.accounts.models import User
from devaipod_web.accounts.permissions import Permission, may
from devaipod_web.llm import meter
from devaipod_web.reviews import audit
from devaipod_web.reviews.models import Promotion, PromotionState
from devaipod_web.runs import backends, retention
from devaipod_web.runs.errors import BackendSilent, NotNow, NotYours
from devaipod_web.runs.models import Run, RunEvent, RunPod
from devaipod_web.runs.states import ENDED, State
from devaipod_web.runs.supervisor.pod_spec import volume_name
from devaipod_web.runs.wake import wake
from devaipod_web.targets.models import Target
from pods.errors import BackendError

#: How long the supervisor is given to take down a pod that is kept warm.
POD_SECONDS = 25.0
LOOK_EVERY_SECONDS = 0.25
#: Events that one transaction removes: no other writer waits for longer than these take.
EVENTS_AT_ONCE = 5000


def delete(run: Run, by: User) -> None:
    """Remove an ended run: pod, volumes, logs, transcript, repository and review.

    In this order, so that what a killed server leaves is a run that can be deleted again:

    1. a pod that is kept warm is no longer kept, and the supervisor takes it down;
    2. volumes and logs go, marked as gone first (a prompt that comes now starts with new ones);
    3. the rows go in one transaction, unless the run has gone on meanwhile; its model calls stay, with project and owner;
    4. its files go.

    Blocking, some 25 seconds at most. Raises NotYours, NotNow and BackendSilent.
    """
    if run.owner_id != by.pk and not may(by, Permission.MANAGE):
        raise NotYours(
            f"The run is {run.owner}'s.", next_step="Ask them, or a manager, to delete it."
        )
    _must_have_ended(run)
    _end_warm_pod(run)
    _remove_volumes_and_logs(run)
    _remove_rows(run, by)
    _remove_files(run)


def _must_have_ended(run: Run) -> None:
    if run.state not in ENDED:
        raise NotNow(
            f"The run has not ended: it is {State(run.state).label}.", next_step="Stop it first."
        )
    if Promotion.objects.filter(review__run=run, state=PromotionState.STARTED).exists():
        raise NotNow("The run's review is being promoted.", next_step="Try again in a minute.")


def _end_warm_pod(run: Run) -> None:
    waits = RunPod.objects.filter(run=run, removed_at=None)
    if not waits.exists():
        return
    Run.objects.filter(pk=run.pk, state__in=ENDED).update(keep_warm_until=None)
    wake(run.key)
    deadline = time.monotonic() + POD_SECONDS
    while waits.exists():
        if time.monotonic() > deadline:
            raise NotNow(
                "The run's pod is still being taken down.", next_step="Try again in a minute."
            )
        time.sleep(LOOK_EVERY_SECONDS)


def _remove_volumes_and_logs(run: Run) -> None:
    now = timezone.now()
    still_ended = Run.objects.filter(pk=run.pk, state__in=ENDED)
    still_ended.filter(logs_pruned_at=None).update(logs_pruned_at=now)
    had_volumes = still_ended.filter(volumes_pruned_at=None, attempts__gt=0)
    if had_volumes.exists():
        try:
            backends.run(_remove_volumes(run.key, retention.targets_of(run.key)))
        except BackendError as error:
            raise BackendSilent(
                f"The run's volumes could not be removed: {error}",
                next_step="Run `devaipod doctor` on the host, then delete the run again.",
            ) from error
        had_volumes.update(volumes_pruned_at=now)
    _remove(home.run_logs_dir(run.key))


async def _remove_volumes(run_key: str, targets: list[Target | None]) -> None:
    installation = home.installation_id()
    for target in targets:
        for kind in retention.RUN_VOLUMES:
            name = volume_name(installation, run_key, kind)
            await backends.of_target(target).remove_volume(name)


def _remove_rows(run: Run, by: User) -> None:
    events = RunEvent.objects.filter(run=run, run__state__in=ENDED)
    while ids := list(events.values_list("pk", flat=True)[:EVENTS_AT_ONCE]):
        RunEvent.objects.filter(pk__in=ids).delete()
    with transaction.atomic():
        found = Run.objects.select_for_update().select_related("project").get(pk=run.pk)
        if found.state not in ENDED or found.pods.filter(removed_at=None).exists():
            raise NotNow(
                "The run has gone on meanwhile.", next_step="Stop it, then delete it again."
            )
        meter.keep_without_run(found)
        audit.write(
            by,
            "run.deleted",
            target=f"{found.title} ({found.key})",
            detail={
                "project": found.project.slug,
                "owner": found.owner.username,
                "state": found.state,
                "cost": str(found.cost),
                "head": found.head_commit,
            },
        )
        found.delete()
        wake(found.key)


def _remove_files(run: Run) -> None:
    _remove(home.event_payload(run.key, 0).parent)
    repository = home.run_repository(run.project.key, run.key)
    _remove(repository)
    repository.with_suffix(".lock").unlink(missing_ok=True)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
