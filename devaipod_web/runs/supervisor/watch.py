"""A run at work: what the supervisor does when something is not as it should be.

`decide` is a pure function of the run, its pod as the backend shows it, and the time; the driver carries out what it says.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from django.conf import settings

from devaipod_web.runs.models import Run, RunCommand, RunEvent, RunPod, Turn
from devaipod_web.runs.services.commands import OPEN
from devaipod_web.runs.states import State
from pods.causes import ENTRY_CODES
from pods.command import COMMAND
from pods.sidecar.protocol import CommandKind, EventKind
from pods.spec import AGENT, SIDECAR, Phase, PodState

#: After a turn has ended its work is to be staged within this time.
STAGE_TIME = timedelta(seconds=300)
#: An agent that exits may have ended its turn a moment before: the sidecar's word is awaited for this long.
EXIT_NEWS = timedelta(seconds=8)
#: A run with nothing left to do and its work not staged (its sidecar was lost just then) is staged after this time.
IDLE_TIME = timedelta(seconds=20)


class What(StrEnum):
    """What is to be done about a run at work."""

    NOTHING = "nothing"
    TIME_OUT = "time_out"
    END_CANCELLED = "end_cancelled"
    LOST = "lost"
    AGENT_ENDED = "agent_ended"
    COMMAND_ENDED = "command_ended"
    STAGE = "stage"
    NOT_STAGED = "not_staged"
    STUCK = "stuck"


@dataclass(frozen=True)
class Facts:
    """What `decide` looks at. `turn` is the last one; `prompts_wait` whether a prompt is not taken yet."""

    state: State
    now: datetime
    deadline_at: datetime | None
    keep_warm_until: datetime | None
    last_event_at: datetime | None
    is_stuck: bool
    session_at: datetime | None
    stop_asked: bool
    turn_started: bool
    turn_ended_at: datetime | None
    turn_staged: bool
    prompts_wait: bool
    is_command: bool = False


def facts_of(run: Run, pod: RunPod, now: datetime) -> Facts:
    """Read the facts of a run from the database. Blocking."""
    turn = Turn.objects.filter(run=run).exclude(stop_reason="withdrawn").order_by("-number").first()
    prompts = RunCommand.objects.filter(run=run, kind=CommandKind.PROMPT, state__in=OPEN)
    return Facts(
        state=State(run.state),
        now=now,
        deadline_at=run.deadline_at,
        keep_warm_until=run.keep_warm_until,
        last_event_at=run.last_event_at,
        is_stuck=run.stuck_since is not None,
        session_at=pod.session_at,
        stop_asked=RunCommand.objects.filter(pod=pod, kind=CommandKind.STOP).exists(),
        turn_started=turn is not None and turn.started_at is not None,
        turn_ended_at=turn.ended_at if turn else None,
        turn_staged=turn is not None and turn.staged_at is not None,
        prompts_wait=prompts.exists(),
        is_command=run.agent == COMMAND,
    )


def decide(facts: Facts, pod: PodState | None) -> What:
    """What is to be done. `pod` is None when the backend has no such pod (confirmed, not merely unseen)."""
    if facts.is_command and facts.turn_ended_at is not None and facts.turn_staged:
        # All is said and done: what became of the pod since does not change how it ended.
        return What.COMMAND_ENDED
    if facts.deadline_at is not None and facts.deadline_at <= facts.now:
        return What.TIME_OUT
    if pod is None or _phase(pod, SIDECAR) is not Phase.RUNNING:
        if facts.stop_asked and facts.turn_ended_at and not facts.turn_staged:
            return What.NOT_STAGED
        if facts.state is State.WAITING and facts.keep_warm_until is not None:
            # The agent did not obey its cancel: the sidecar staged the work and ended the attempt.
            return What.END_CANCELLED
        return What.LOST
    if _phase(pod, AGENT) is Phase.EXITED:
        return _after_exit(facts, pod)
    if facts.state is State.WAITING:
        warm = facts.keep_warm_until
        return What.END_CANCELLED if warm is not None and warm <= facts.now else What.NOTHING
    if facts.state is not State.RUNNING:
        return What.NOTHING
    if facts.turn_ended_at is not None and not facts.prompts_wait and not facts.turn_staged:
        return _unstaged(facts)
    # A command says nothing while it runs: what it writes is its log.
    return What.NOTHING if facts.is_command else _silence(facts)


def _silence(facts: Facts) -> What:
    """Whether there have been no news for so long that somebody should be told."""
    if facts.is_stuck or facts.last_event_at is None:
        return What.NOTHING
    return What.STUCK if facts.now - facts.last_event_at >= settings.STUCK_AFTER else What.NOTHING


def _phase(pod: PodState, container: str) -> Phase:
    state = pod.containers.get(container)
    return state.phase if state else Phase.UNKNOWN


def _after_exit(facts: Facts, pod: PodState) -> What:
    finished = pod.containers[AGENT].finished_at or facts.now
    if facts.now - finished < EXIT_NEWS and facts.turn_started:
        # `turn.ended`, `work.staged` or `agent.refused` may be on their way and say it better.
        return What.NOTHING
    if facts.turn_ended_at is not None and not facts.turn_staged and not facts.prompts_wait:
        return _unstaged(facts)
    if facts.is_command and facts.turn_started and _phase(pod, SIDECAR) is Phase.RUNNING:
        # Its sidecar knows how it ended, and says so as soon as it reaches the gateway, after however long an absence of ours.
        return _silence(facts)
    return What.AGENT_ENDED


def _unstaged(facts: Facts) -> What:
    """A turn has ended and its work is not staged yet."""
    assert facts.turn_ended_at is not None
    since = max(facts.turn_ended_at, facts.session_at or facts.turn_ended_at)
    if facts.now - since >= STAGE_TIME:
        return What.NOT_STAGED
    ended_before_session = facts.session_at is not None and facts.session_at > facts.turn_ended_at
    if ended_before_session and facts.now - since >= IDLE_TIME and not facts.stop_asked:
        return What.STAGE
    return What.NOTHING


def what_it_waits_for(run: Run, pod: RunPod, *, connected: bool | None) -> str:
    """What a run without news waits for, in words. `connected` is None when this process can't tell. Blocking."""
    if connected is False:
        return "the sidecar's connection to the gateway"
    for row in RunEvent.objects.filter(run=run, pod=pod).order_by("-seq")[:40]:
        match row.kind:
            case EventKind.TOOL_CALL | EventKind.TOOL_CALL_UPDATE:
                if row.payload.get("status") in ("completed", "failed"):
                    return "the model's answer"
                return f"the tool {_title(run, row)}"[:300]
            case EventKind.TURN_STARTED if run.agent == COMMAND:
                return "the sidecar, which says how the command ended"
            case EventKind.MESSAGE | EventKind.THOUGHT | EventKind.TURN_STARTED | EventKind.PLAN:
                return "the model's answer"
            case EventKind.TURN_ENDED:
                return "the sidecar, which stages the work"
            case EventKind.SESSION_STARTED:
                return "the agent, which has not taken the prompt"
    return "the agent"


def _title(run: Run, row: RunEvent) -> str:
    title = str(row.payload.get("title") or "")
    call = str(row.payload.get("tool_call_id") or "")
    if not title and call:
        first = RunEvent.objects.filter(
            run=run, kind=EventKind.TOOL_CALL, payload__tool_call_id=call
        ).first()
        title = str(first.payload.get("title") or "") if first else ""
    return f"“{' '.join(title.split())[:200]}”" if title else "that it called"


# --- a pod's containers -------------------------------------------------------------------------------------------


def runs(state: PodState, container: str) -> bool:
    """Whether a container runs."""
    return _phase(state, container) is Phase.RUNNING


def exited(state: PodState, container: str) -> bool:
    """Whether a container has ended."""
    return _phase(state, container) is Phase.EXITED


def begins(state: PodState, *, on_cluster: bool) -> bool:
    """Whether a pod that was just made is as it should be: its sidecar runs, or on a cluster is yet to run (after the clone)."""
    found = state.containers.get(SIDECAR)
    if found is None:
        return on_cluster and not state.containers
    return found.phase is Phase.RUNNING or (on_cluster and found.phase is not Phase.EXITED)


def news_may_come(state: PodState, now: datetime) -> bool:
    """Whether an agent that has just ended may still be spoken for by its sidecar."""
    agent = state.containers[AGENT]
    if agent.exit_code in ENTRY_CODES or agent.finished_at is None:
        return False
    return now - agent.finished_at < EXIT_NEWS
