"""Take the installation out of work: no new runs, the present ones stopped with their work staged, no pod left. Safe to repeat.

The supervisor ends the pods, as it always does: it stages first. What is answered as `waiting` goes on; who asks again sees how far
it is. `setup` undoes it. Nothing is lost: runs, transcripts, reviews, staged work and volumes stay.
"""

from __future__ import annotations

import time

import structlog
from django.db import transaction
from django.utils import timezone

from devaipod_web import home
from devaipod_web.accounts.models import User
from devaipod_web.health import drain, queries
from devaipod_web.health.contract import Health
from devaipod_web.health.errors import WrongInstallation
from devaipod_web.health.verbs.steps import Result, Step
from devaipod_web.reviews import audit
from devaipod_web.runs import backends
from devaipod_web.runs.errors import RunError
from devaipod_web.runs.models import Run, RunPod
from devaipod_web.runs.services.stop import stop
from devaipod_web.runs.states import ENDED
from devaipod_web.runs.wake import wake
from devaipod_web.targets import queries as targets
from devaipod_web.targets.models import Target
from pods.errors import BackendError
from pods.spec import LABEL_INSTALLATION

log = structlog.get_logger("devaipod.health")

#: One answer waits so long for pods to go; a sidecar may take a minute to stage its work.
WAIT_SECONDS = 15.0
REASON = "The installation is taken out of work."


def teardown(by: User, *, confirm: str) -> list[Step]:
    """Every step with what became of it. Blocking, at most about WAIT_SECONDS and what podman takes.

    `confirm` is the installation's id. Raises WrongInstallation when it is another's.
    """
    if confirm != home.installation_id():
        raise WrongInstallation(
            "The id that confirms is not this installation's; nothing was done.",
            next_step="GET /api/devaipod/status names it as `installation`.",
        )
    return [_drain(by), _stop_runs(by), *_pods()]


def is_done(steps: list[Step]) -> bool:
    """Whether nothing is left to do."""
    return all(step.result in (Result.OK, Result.DONE) for step in steps)


def _drain(by: User) -> Step:
    with transaction.atomic():
        if not drain.begin(by):
            return Step("drain", Result.OK, "No new runs were taken already.")
        audit.write(by, "installation.torn_down")
    return Step("drain", Result.DONE, "No new runs are taken from here on.")


def _stop_runs(by: User) -> Step:
    stopped = 0
    for run in Run.objects.exclude(state__in=ENDED):
        try:
            stop(run, by, reason=REASON)
            stopped += 1
        except RunError:
            # It ended by itself in this moment.
            log.info("teardown.run_ended", run=run.key)
    # Pods that are kept warm for a follow-up have none to wait for.
    warm = Run.objects.filter(state__in=ENDED, keep_warm_until__gt=timezone.now())
    for run in warm:
        Run.objects.filter(pk=run.pk).update(keep_warm_until=timezone.now())
        wake(run.key)
    if not stopped:
        return Step("runs", Result.OK, "No run is at work.")
    return Step("runs", Result.DONE, f"{stopped} runs were stopped; what they did is staged.")


def _pods() -> list[Step]:
    deadline = time.monotonic() + WAIT_SECONDS
    while (left := _left()) and time.monotonic() < deadline:
        time.sleep(0.25)
    if left:
        state = queries.service("supervisor")
        assert state is not None
        if state.health is Health.DOWN:
            return [
                Step(
                    "pods",
                    Result.FAILED,
                    f"{len(left)} pods are left, and the supervisor, which ends them, is down: {state.says}",
                    "`devaipod restart supervisor`, then `devaipod teardown` again.",
                )
            ]
        return [
            Step(
                "pods",
                Result.WAITING,
                f"{len(left)} pods still stage their work and end: {', '.join(left[:5])}.",
            )
        ]
    try:
        strays = backends.run(_remove_strays(list(targets.targets())))
    except BackendError as error:
        return [Step("pods", Result.FAILED, error.message, error.next_step)]
    if strays:
        return [
            Step(
                "pods",
                Result.DONE,
                f"Pods that no run answered for were removed: {', '.join(strays)}.",
            )
        ]
    return [Step("pods", Result.OK, "No pod of this installation is left.")]


def _left() -> list[str]:
    return list(RunPod.objects.filter(removed_at=None).values_list("name", flat=True))


async def _remove_strays(rows: list[Target]) -> list[str]:
    labels, removed = {LABEL_INSTALLATION: home.installation_id()}, []
    for row in rows:
        backend = backends.of_target(row)
        for pod in await backend.pods(labels):
            await backend.destroy(pod.name)
            removed.append(pod.name)
    return removed
