"""The end of a pod: ask its sidecar to stage and stop, keep what tells why it ended, then remove it.

A pod ends when its run has ended or is paused and it is not kept warm, or when a later attempt took its place. Every call looks anew, so
that it may be repeated after a crash.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

from devaipod_web import db
from devaipod_web.gateway import sockets
from devaipod_web.runs.models import RunPod
from devaipod_web.runs.states import ENDED, State
from devaipod_web.runs.supervisor import diagnose, records
from devaipod_web.runs.supervisor.records import View
from devaipod_web.runs.supervisor.start import remove_tokens
from devaipod_web.runs.supervisor.work import blocking
from pods.backend import ContainerBackend
from pods.spec import AGENT, SIDECAR, Phase, PodState

#: How long a sidecar has to cancel the turn and stage the work once it is told to stop.
STAGE_GRACE = timedelta(seconds=60)
#: How long it has to exit after it said that it is done.
EXIT_GRACE = timedelta(seconds=15)
STOP_GRACE_SECONDS = 5.0


def should_end(view: View, pod: RunPod) -> bool:
    """Whether this pod's time is over."""
    run = view.run
    if pod.ended_at is not None or pod.attempt != run.attempts:
        return True
    if run.state == State.QUEUED:
        return True
    if run.state == State.PAUSED:
        # A command's pod has no such time: its program runs on.
        return run.keep_warm_until is not None and run.keep_warm_until <= view.now
    if run.state not in ENDED:
        return False
    return not is_warm(view)


def is_warm(view: View) -> bool:
    """Whether the ended run's pod is still kept for a follow-up."""
    run = view.run
    until = run.keep_warm_until
    return run.state == State.SUCCEEDED and until is not None and until > view.now


async def end_pod(
    view: View,
    pod: RunPod,
    *,
    backend: ContainerBackend,
    finish_logs: Callable[[PodState], Awaitable[None]],
) -> bool:
    """Bring the pod one step nearer to its end. True when it is gone, False when the sidecar is still given time."""
    state = await backend.pod(pod.name)
    if state is not None and pod.ended_at is None and _may_still_stage(pod, state):
        await db.write(records.ask_to_stop, pod.pk, _why(view))
        if _has_time(view, state):
            return False
    if state is not None:
        if state.running:
            await backend.stop(pod.name, grace_seconds=STOP_GRACE_SECONDS)
            state = await backend.pod(pod.name) or state
        await finish_logs(state)
        await db.write(records.keep_diagnostics, pod.pk, await diagnose.keep(backend, pod, state))
    await db.write(records.pod_ended, pod.pk)
    await backend.destroy(pod.name)
    await blocking(sockets.unlink_pod, pod.key)
    await blocking(remove_tokens, pod.name)
    await db.write(records.pod_removed, pod.pk)
    return True


def _why(view: View) -> str:
    return "the run is paused" if view.run.state == State.PAUSED else "the run has ended"


def _may_still_stage(pod: RunPod, state: PodState) -> bool:
    sidecar = state.containers.get(SIDECAR)
    return (
        pod.workspace_ready_at is not None
        and sidecar is not None
        and sidecar.phase is Phase.RUNNING
    )


def _has_time(view: View, state: PodState) -> bool:
    if view.stop_asked_at is None:
        return True
    asked = view.now - view.stop_asked_at
    if view.stop_applied:
        return asked < STAGE_GRACE + EXIT_GRACE
    return asked < STAGE_GRACE


__all__ = ["AGENT", "end_pod", "is_warm", "should_end"]
