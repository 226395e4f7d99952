"""Have a pod go: its run is stopped when it is at work, and the supervisor removes what belongs to the attempt."""

from __future__ import annotations

from django.db import transaction

from devaipod_web.accounts.models import User
from devaipod_web.runs.errors import NotNow
from devaipod_web.runs.models import Run, RunPod
from devaipod_web.runs.services.stop import stop
from devaipod_web.runs.states import ENDED
from devaipod_web.runs.wake import wake


def destroy_pod(pod: RunPod, by: User | None) -> None:
    """Stop the pod's run when this is its present attempt, and let the pod go. Safe to repeat; the rows stay.

    What the agent has done so far is staged first. Returns at once: `removed_at` says when the backend has nothing of it any more.
    """
    with transaction.atomic():
        run = Run.objects.select_for_update().get(pk=pod.run_id)
        if pod.removed_at is not None or pod.attempt != run.attempts:
            return  # gone, or going because a later attempt took its place
        if run.state not in ENDED:
            stop(run, by, reason="Its pod was to go.")
        Run.objects.filter(pk=run.pk).update(keep_warm_until=None)
        wake(run.key)


def stop_pod(pod: RunPod, by: User | None, *, reason: str = "") -> None:
    """Stop the run whose present attempt this pod is. Raises NotNow when the pod or the run has ended."""
    with transaction.atomic():
        run = Run.objects.select_for_update().get(pk=pod.run_id)
        if pod.attempt != run.attempts:
            raise NotNow(f"The pod {pod.name} has ended: attempt {run.attempts} took its place.")
        stop(run, by, reason=reason)
