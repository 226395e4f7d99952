"""Say something more to a run's agent, whatever state the run is in."""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from devaipod_web.accounts.models import User
from devaipod_web.health import drain
from devaipod_web.runs import events, untrusted
from devaipod_web.runs.errors import BadRequest, Draining, NotNow
from devaipod_web.runs.models import CommandState, Run, RunCommand, RunPod, Turn
from devaipod_web.runs.services.commands import enqueue
from devaipod_web.runs.services.transition import transition
from devaipod_web.runs.states import ENDED, State
from pods.command import COMMAND
from pods.sidecar.protocol import CommandKind

MAX_PROMPT_CHARACTERS = 200_000
#: Turns that may wait at once; more says that something is wrong with the caller.
MAX_WAITING_TURNS = 20


def prompt(run: Run, by: User | None, text: str) -> Turn:
    """Add a turn. Serves any state: a run at work gets it after its present turn, one with a warm pod goes back to
    `running`, any other ended run goes back to `queued` for a new attempt.

    Raises BadRequest when the text is empty or too long, or too many prompts wait already; NotNow for a run that executes a
    command, and for a paused one, which whoever resumes it may give a prompt; Draining when the run would need a new pod while no
    new runs are taken.
    """
    text = untrusted.text(text, MAX_PROMPT_CHARACTERS + 1).strip()
    if not text:
        raise BadRequest("The prompt is empty.", next_step="Say what the agent should do.")
    if len(text) > MAX_PROMPT_CHARACTERS:
        raise BadRequest(f"The prompt is longer than {MAX_PROMPT_CHARACTERS:,} characters.")
    with transaction.atomic():
        run = Run.objects.select_for_update().get(pk=run.pk)
        if run.agent == COMMAND:
            raise NotNow(
                "This run executes a command, which takes no prompt.",
                next_step="Launch a new run; an interactive command takes input on its standard input.",
            )
        if run.state == State.PAUSED:
            raise NotNow(
                f"The run is paused and takes no prompt. {run.reason}",
                next_step="Resume it with these words instead (`devaipod resume RUN --text`, or on its page).",
            )
        waiting = RunCommand.objects.filter(
            run=run, kind=CommandKind.PROMPT, state__in=(CommandState.QUEUED, CommandState.SENT)
        ).count()
        if waiting >= MAX_WAITING_TURNS:
            raise BadRequest(
                f"{waiting} prompts wait for this run already.",
                next_step="Wait until the agent has taken one, or stop the run.",
            )
        turn = add_turn(run, by, text)
        if run.state in ENDED:
            _wake_up(run)
        elif run.state == State.WAITING and run.keep_warm_until is not None:
            # The last turn was cancelled: the run waited for just this.
            Run.objects.filter(pk=run.pk).update(keep_warm_until=None)
            transition(
                run.pk, State.RUNNING, reason="", expect=frozenset({State.WAITING}), waits_for=""
            )
    return turn


def _wake_up(run: Run) -> None:
    if warm_pod(run) is not None:
        transition(
            run.pk,
            State.RUNNING,
            reason="A follow-up prompt, to the pod that was kept warm.",
            ended_at=None,
            keep_warm_until=None,
            deadline_at=timezone.now() + timedelta(seconds=run.wall_seconds),
        )
        return
    if drain.since() is not None:
        raise Draining
    transition(
        run.pk,
        State.QUEUED,
        reason="A follow-up prompt; waits for a place.",
        deadline_at=None,
        lost_pods=0,
        stuck_since=None,
        waits_for="",
    )


def warm_pod(run: Run) -> RunPod | None:
    """The pod of an ended run that still takes a prompt, or None."""
    now = timezone.now()
    if run.state != State.SUCCEEDED or run.keep_warm_until is None or run.keep_warm_until <= now:
        return None
    pod = RunPod.objects.filter(run=run, ended_at=None).order_by("-attempt").first()
    if pod is None or pod.session_at is None or is_stopping(pod):
        return None
    return pod


def is_stopping(pod: RunPod) -> bool:
    """Whether this pod has been told to stop: it takes no further prompt."""
    return RunCommand.objects.filter(pod=pod, kind=CommandKind.STOP).exists()


def add_turn(run: Run, by: User | None, text: str) -> Turn:
    """Write the turn, its command and its event. Must run in a transaction that holds the run's row."""
    Run.objects.filter(pk=run.pk).update(last_turn=F("last_turn") + 1)
    number = Run.objects.values_list("last_turn", flat=True).get(pk=run.pk)
    turn = Turn.objects.create(run=run, number=number, prompt=text, by=by)
    events.record(
        run,
        events.Kind.PROMPT,
        {"turn": number, "text": text, "by": str(by) if by else ""},
    )
    enqueue(run.pk, CommandKind.PROMPT, {"turn": number, "text": text})
    return turn
