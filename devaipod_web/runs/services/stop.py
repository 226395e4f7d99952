"""End a run, or the turn that it is in."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction
from django.utils import timezone

from devaipod_web.accounts.models import User
from devaipod_web.runs import events
from devaipod_web.runs.errors import NotNow
from devaipod_web.runs.models import (
    CommandState,
    PermissionRequest,
    PermissionState,
    Run,
    RunCommand,
    RunPod,
    Turn,
)
from devaipod_web.runs.services.commands import enqueue
from devaipod_web.runs.services.prompt import is_stopping
from devaipod_web.runs.services.transition import transition
from devaipod_web.runs.states import ENDED, State
from pods.findings import Finding
from pods.sidecar.protocol import CommandKind


def stop(run: Run, by: User | None, *, reason: str = "") -> None:
    """Stop a run: it is `stopped` at once; its pod stages the work that is there and then goes.

    Prompts that wait are withdrawn, except a first task that no agent has seen (a later prompt brings it along). Raises
    NotNow when the run has ended already.
    """
    words = f"Stopped by {by}." if by else "Stopped."
    if reason:
        words = f"{words} {reason.strip()[:500]}"
    with transaction.atomic():
        run = Run.objects.select_for_update().get(pk=run.pk)
        if run.state in ENDED:
            raise NotNow(
                f"The run has ended already: it {State(run.state).label}."
                if run.state in (State.SUCCEEDED, State.FAILED)
                else f"The run has ended already: {State(run.state).label}."
            )
        end(run, State.STOPPED, reason=words)
        _withdraw_prompts(run, words)


def end_with(run: Run, to: State, found: Finding) -> bool:
    """End a run with a finding: `reason` and `next_step` are its sentences. As `end`."""
    return end(run, to, reason=found.message, next_step=found.next_step, code=found.code)


def end(run: Run, to: State, *, reason: str, next_step: str = "", code: str = "") -> bool:
    """Move a run to an ended state, take back open questions, and ask its pod to stage and stop.

    Must run in a transaction that holds the run's row. Returns False when the run had ended already.
    """
    if not transition(
        run.pk,
        to,
        reason=reason,
        next_step=next_step,
        code=code,
        expect=frozenset(State) - ENDED,
    ):
        return False
    withdraw_questions(run)
    pod = live_pod(run.pk)
    if pod is not None:
        ask_to_stop(pod, reason)
    return True


def ask_to_stop(pod: RunPod, reason: str) -> None:
    """Queue the STOP command of a pod, once."""
    if not is_stopping(pod):
        enqueue(pod.run_id, CommandKind.STOP, {"reason": reason[:500]}, pod=pod)


def live_pod(run_id: int) -> RunPod | None:
    """The run's pod whose tokens are alive, or None."""
    return RunPod.objects.filter(run_id=run_id, ended_at=None).order_by("-attempt").first()


def withdraw_questions(run: Run, *, now: datetime | None = None) -> None:
    """Close the run's open permission requests as withdrawn: whoever asked is gone."""
    moment = now or timezone.now()
    for request in PermissionRequest.objects.filter(run=run, state=PermissionState.OPEN):
        closed = PermissionRequest.objects.filter(pk=request.pk, state=PermissionState.OPEN).update(
            state=PermissionState.WITHDRAWN, answered_at=moment
        )
        if closed:
            events.record(
                run,
                events.Kind.PERMISSION_ANSWERED,
                {
                    "request": request.key,
                    "request_id": request.request_id,
                    "state": PermissionState.WITHDRAWN,
                    "option_id": "",
                    "by": "",
                },
            )


def _withdraw_prompts(run: Run, words: str) -> None:
    now = timezone.now()
    waiting = RunCommand.objects.filter(run=run, kind=CommandKind.PROMPT, state=CommandState.QUEUED)
    for command in waiting:
        number = command.payload.get("turn")
        if number == 1:
            continue
        command.state, command.reason, command.done_at = CommandState.REFUSED, words[:500], now
        command.save(update_fields=["state", "reason", "done_at"])
        Turn.objects.filter(run=run, number=number).update(ended_at=now, stop_reason="withdrawn")


def cancel_turn(run: Run, by: User | None) -> None:
    """End the present turn; the run stays and waits for the next prompt. Raises NotNow when no turn is at work."""
    with transaction.atomic():
        run = Run.objects.select_for_update().get(pk=run.pk)
        pod = live_pod(run.pk)
        at_work = Turn.objects.filter(run=run, ended_at=None).exclude(started_at=None).exists()
        if run.state not in (State.RUNNING, State.WAITING) or pod is None or not at_work:
            raise NotNow(
                "No turn is at work in this run.", next_step="Stop the run to end it altogether."
            )
        withdraw_questions(run)
        enqueue(run.pk, CommandKind.CANCEL, {"by": str(by) if by else ""}, pod=pod)
