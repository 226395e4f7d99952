"""What a run's sidecar is to do: queued, sent, then applied or refused, in order, once by key."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import transaction
from django.db.models import F, Q

from devaipod_web.runs.models import CommandState, Run, RunCommand, RunPod
from devaipod_web.runs.states import ENDED, State
from devaipod_web.runs.wake import wake
from pods.command import COMMAND
from pods.sidecar.protocol import CommandKind

OPEN = (CommandState.QUEUED, CommandState.SENT)


def enqueue(
    run_id: int, kind: CommandKind, payload: dict[str, Any], *, pod: RunPod | None = None
) -> RunCommand:
    """Append a command to the run's queue and wake the gateway. `pod` None means: whichever attempt serves the run next."""
    with transaction.atomic():
        Run.objects.filter(pk=run_id).update(last_command=F("last_command") + 1)
        key, number = Run.objects.values_list("key", "last_command").get(pk=run_id)
        command = RunCommand.objects.create(
            run_id=run_id, pod=pod, number=number, kind=kind, payload=payload
        )
        wake(key)
    return command


def pending(pod: RunPod) -> list[RunCommand]:
    """What this pod's sidecar has still to do, by number.

    A pod that was told to stop, or whose run has ended or is paused, gets only what is addressed to it: a prompt that came since
    belongs to the next attempt, or waits until the run is resumed.
    """
    found = RunCommand.objects.filter(run_id=pod.run_id, state__in=OPEN)
    if not found.exists():
        return []  # as nearly always: every connected sidecar asks on a beat
    own = Q(pod=pod)
    told_to_stop = RunCommand.objects.filter(pod=pod, kind=CommandKind.STOP).exists()
    state, agent = Run.objects.values_list("state", "agent").get(pk=pod.run_id)
    stands_still = state in ENDED or (state == State.PAUSED and agent != COMMAND)
    if not told_to_stop and not stands_still:
        own |= Q(pod=None)
    return list(found.filter(own).order_by("number"))


def mark_sent(ids: Iterable[int], pod: RunPod) -> None:
    """Note that these commands went out to `pod`; those already done stay done."""
    RunCommand.objects.filter(
        pk__in=list(ids), run_id=pod.run_id, state=CommandState.QUEUED
    ).update(state=CommandState.SENT)
