"""Let a run stand still in the middle of its work, and let it go on in the same session.

A paused run asks its model nothing: the gateway refuses it (`llm.snapshot`), whatever its agent makes of the cancel. What the turn
that the pause ended says afterwards moves the run no more (`services.projection` sees to that). Its pod is kept for
`PAUSED_KEEP_WARM` and then goes; workspace and session stay.

A run of the profile `command` has neither turn nor session: its program runs on, in its time, and only the model is closed to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from devaipod_web.accounts.models import User
from devaipod_web.budgets.models import Incident, IncidentState, Level
from devaipod_web.health import drain
from devaipod_web.runs import untrusted
from devaipod_web.runs.errors import BadRequest, Draining, NotNow
from devaipod_web.runs.models import CommandState, Run, RunCommand, RunPod, Turn
from devaipod_web.runs.services.commands import OPEN, enqueue
from devaipod_web.runs.services.prompt import MAX_PROMPT_CHARACTERS, add_turn, is_stopping
from devaipod_web.runs.services.stop import live_pod, withdraw_questions
from devaipod_web.runs.services.transition import transition
from devaipod_web.runs.states import ENDED, Cause, State
from pods.command import COMMAND
from pods.sidecar.protocol import CommandKind

PAUSABLE = frozenset({State.RUNNING, State.WAITING})
MAX_REASON_CHARACTERS = 500
#: What an agent is told that takes up its work where a pause ended it.
GO_ON = "Go on where you stopped."
RUNS_ON = "The command itself runs on; its requests to models are refused."


def pause_by_hand(run: Run, by: User | None, *, reason: str = "") -> None:
    """Pause a run since a person wants it. Raises NotNow when it is not at work."""
    words = f"Paused by {by}." if by else "Paused."
    if said := untrusted.text(reason, MAX_REASON_CHARACTERS).strip():
        words = f"{words} {said}"
    with transaction.atomic():
        run = Run.objects.select_for_update().get(pk=run.pk)
        if run.state == State.PAUSED:
            raise NotNow("The run is paused already.", next_step="Resume it, or stop it.")
        if run.state not in PAUSABLE:
            raise NotNow(
                f"Only a run at work can be paused; this one is {State(run.state).label.lower()}.",
                next_step="Prompt it to go on." if run.state in ENDED else "Stop it instead.",
            )
        pause(run, Cause.PERSON, reason=words, next_step="Resume it, and it goes on from here.")


def pause(run: Run, cause: Cause, *, reason: str, next_step: str, code: str = "") -> bool:
    """Pause a run at work: its questions are withdrawn, its turn is cancelled and staged, its wall time stands still.

    Must run in a transaction that holds the run's row. `code` is the finding whose sentences `reason` and `next_step` are. Returns
    False, and changes nothing, when the run is not at work: paused already, say.
    """
    now = timezone.now()
    if run.agent == COMMAND:
        reason, still = f"{reason} {RUNS_ON}", dict[str, Any]()
    else:
        still = {
            "wall_left": _wall_left(run, now),
            "deadline_at": None,
            "keep_warm_until": now + settings.PAUSED_KEEP_WARM,
        }
    moved = transition(
        run.pk,
        State.PAUSED,
        reason=reason,
        next_step=next_step,
        code=code,
        cause=cause,
        expect=PAUSABLE,
        waits_for="",
        stuck_since=None,
        **still,
    )
    if not moved or run.agent == COMMAND:
        return moved
    withdraw_questions(run, now=now)
    pod = live_pod(run.pk)
    if pod is not None and _begun(run).filter(ended_at=None).exists():
        cancel(pod)
    return True


def cancel(pod: RunPod) -> None:
    """Have the sidecar end the turn of a run that is paused."""
    enqueue(pod.run_id, CommandKind.CANCEL, {"by": ""}, pod=pod)


def resume(run: Run, by: User | None, *, text: str = "") -> None:
    """Let a paused run go on, with `text` as its next prompt or else the words that it should.

    Raises NotNow when it is not paused, or an open incident of a budget holds it; BadRequest when the text is too long or the run takes
    none; Draining when it would need a new pod while no new runs are taken.
    """
    text = untrusted.text(text, MAX_PROMPT_CHARACTERS + 1).strip()
    if len(text) > MAX_PROMPT_CHARACTERS:
        raise BadRequest(f"The prompt is longer than {MAX_PROMPT_CHARACTERS:,} characters.")
    with transaction.atomic():
        run = Run.objects.select_for_update().get(pk=run.pk)
        if run.state != State.PAUSED:
            raise NotNow(
                f"The run is not paused; it is {State(run.state).label.lower()}.",
                next_step="Prompt it to say something more.",
            )
        if text and run.agent == COMMAND:
            raise BadRequest("This run executes a command, which takes no prompt.")
        held = held_by(run)
        if held is not None:
            raise NotNow(
                f"The run cannot go on while incident {held.key} is open. {held.message}",
                next_step="A manager raises the budget or extends it once, and the run resumes by itself.",
            )
        if not _has_warm_pod(run) and drain.since() is not None:
            raise Draining
        _go_on(run, by, why=f"Resumed by {by}." if by else "Resumed.", text=text)


def resume_freed(run_ids: Iterable[int], by: User | None, *, why: str) -> None:
    """Let those of these runs go on that a budget paused and that no open incident holds any more.

    Must run in the transaction that closed incidents of theirs. `why` is the sentence that page and agent are told.
    """
    paused = Run.objects.filter(
        pk__in=set(run_ids), state=State.PAUSED, pause_cause=Cause.BUDGET
    ).order_by("pk")
    for run in paused.select_for_update():
        if held_by(run) is None:
            _go_on(run, by, why=why)


def held_by(run: Run) -> Incident | None:
    """The open incident of a budget in force that keeps the run from going on, or None."""
    lasting = Q(window__end=None) | Q(window__end__gt=timezone.now())
    return (
        Incident.objects.filter(lasting, run=run, level=Level.HARD, state=IncidentState.OPEN)
        .filter(budget__enabled=True, budget__removed_at=None)
        .order_by("opened_at")
        .first()
    )


def _go_on(run: Run, by: User | None, *, why: str, text: str = "") -> None:
    now = timezone.now()
    fields: dict[str, Any] = {"repeats": {}}
    if _has_warm_pod(run):
        if run.agent != COMMAND:
            left = run.wall_seconds if run.wall_left is None else run.wall_left
            fields.update(deadline_at=now + timedelta(seconds=left), wall_left=None)
        transition(run.pk, State.RUNNING, reason=why, **fields)
    else:
        fields.update(deadline_at=None, lost_pods=0, stuck_since=None, waits_for="")
        transition(run.pk, State.QUEUED, reason=f"{why} It waits for a place.", **fields)
    if run.agent != COMMAND:
        _prompt(run, by, why=why, text=text)


def _prompt(run: Run, by: User | None, *, why: str, text: str) -> None:
    """Say what is to be said next: the prompts that waited, told first to go on; after them `text`; without either that it should.

    A prompt that waited may be on its way to the sidecar, or have been taken and cancelled in the pause: all are sent anew.
    """
    waiting = Turn.objects.filter(run=run, started_at=None, ended_at=None).order_by("number")
    before = f"{why} {GO_ON}" if not text and _begun(run).exists() else ""
    for turn in waiting:
        RunCommand.objects.filter(
            run=run, kind=CommandKind.PROMPT, state__in=OPEN, payload__turn=turn.number
        ).update(
            state=CommandState.REFUSED,
            reason="sent again after the pause",
            done_at=timezone.now(),
        )
        words = f"{before}\n\nThen:\n\n{turn.prompt}" if before else turn.prompt
        enqueue(run.pk, CommandKind.PROMPT, {"turn": turn.number, "text": words})
        before = ""
    if text or before:
        add_turn(run, by, text or before)


def _begun(run: Run) -> QuerySet[Turn]:
    return Turn.objects.filter(run=run).exclude(started_at=None)


def _has_warm_pod(run: Run) -> bool:
    """Whether the paused run's pod still takes a prompt. A command's has no time of its own."""
    pod = live_pod(run.pk)
    if pod is None or pod.session_at is None or is_stopping(pod):
        return False
    until = run.keep_warm_until
    return run.agent == COMMAND or (until is not None and until > timezone.now())


def _wall_left(run: Run, now: datetime) -> int | None:
    if run.deadline_at is None:
        return None
    return max(int((run.deadline_at - now).total_seconds()), 0)
