"""What a sidecar's events mean for the rows that people see: run, pod, turns, commands, permission requests.

One method a kind, in `HANDLERS`. Called inside the transaction that stored the events, which holds the run's row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from django.conf import settings

from devaipod_web.llm import refusals
from devaipod_web.projects.models import PermissionPolicy
from devaipod_web.runs import events, untrusted
from devaipod_web.runs.events import NewEvent
from devaipod_web.runs.models import (
    CommandState,
    PermissionRequest,
    PermissionState,
    Run,
    RunCommand,
    RunEvent,
    RunPod,
    Turn,
)
from devaipod_web.runs.services.commands import OPEN
from devaipod_web.runs.services.detect import Detector
from devaipod_web.runs.services.notes import note
from devaipod_web.runs.services.pause import cancel
from devaipod_web.runs.services.permissions import go_on, pick, settle
from devaipod_web.runs.services.stop import end_with, withdraw_questions
from devaipod_web.runs.services.transition import transition
from devaipod_web.runs.states import ENDED, State
from devaipod_web.runs.tools import call_line
from devaipod_web.webhooks import outbox
from pods import causes
from pods.command import COMMAND
from pods.findings import Finding, finding
from pods.sidecar.protocol import CommandKind, EventKind

MAX_OPTIONS = 10
MAX_OPEN_REQUESTS = 50
#: Stop reasons of ACP that mean: the agent did what it could, and its work counts.
ENDED_WELL = frozenset({"end_turn"})
CANCELLED = "cancelled"
#: Of a command: its program has ended.
EXITED = "exited"
EXIT_CODES = range(256)
ENDED_AND_STAGED = "The agent ended its turn and its work is staged."
UNWELL = {
    "max_tokens": "The model's answer became longer than it may be.",
    "max_turn_requests": "The agent asked the model more often than one turn may.",
    "refusal": "The model refused to go on.",
}
#: How many of the last events are looked at for the beginning of the message that is being written.
LOOK_BACK = 60


class Projection:
    """Applies one batch of stored events. Use once."""

    def __init__(self, run: Run, pod: RunPod, now: datetime) -> None:
        self.run = run
        self.pod = pod
        self.now = now
        self.run_fields: dict[str, Any] = {}
        self.pod_fields: dict[str, Any] = {}
        self.message: str | None = None
        self.detector = Detector(run)

    def apply(self, batch: Sequence[NewEvent]) -> None:
        """Apply the events in order, then write what changed."""
        if self.run.stuck_since is not None:
            self.run_fields["stuck_since"] = None
            if self.run.state != State.WAITING:
                self.run_fields["waits_for"] = ""
        for event in batch:
            handler = HANDLERS.get(event.kind)
            if handler is not None:
                handler(self, event)
        if self.message is not None:
            self._last_message(self.message)
        self.run_fields.update(self.detector.remembered())
        if self.run_fields:
            Run.objects.filter(pk=self.run.pk).update(**self.run_fields)
        if self.pod_fields:
            RunPod.objects.filter(pk=self.pod.pk).update(**self.pod_fields)
        self.detector.act()

    # --- starting ---------------------------------------------------------------------------------------------

    def workspace_ready(self, event: NewEvent) -> None:
        """The clone is there (or the workspace of an earlier attempt): the agent may start."""
        self.pod_fields["workspace_ready_at"] = self.now

    def workspace_failed(self, event: NewEvent) -> None:
        """Nothing to work on."""
        self._fail(
            causes.clone_failed(
                _words(event, "message"), _words(event, "output", 400), _words(event, "next_step")
            )
        )

    def session_started(self, event: NewEvent) -> None:
        """The agent speaks ACP and has a session: the run is at work."""
        session = _words(event, "session_id", 300)
        self.pod_fields.update(session_at=self.now, session_id=session)
        self.run_fields["session_id"] = session
        transition(
            self.run.pk,
            State.RUNNING,
            reason="",
            expect=frozenset({State.STARTING}),
            waits_for="",
            step="",
            started_at=self.run.started_at or self.now,
        )
        if event.payload.get("context_lost") is True:
            note(
                self.run.pk,
                "warning",
                "The agent could not take up its earlier session: it starts with the workspace as it was left, "
                "and without its memory of what was said.",
            )

    def agent_refused(self, event: NewEvent) -> None:
        """The agent said no to being initialised, to a session, or to a prompt."""
        if self._is_paused():
            # To the prompt that the pause has ended; this agent takes no other one.
            self._close_turns(stop_reason=CANCELLED)
            self.run_fields["keep_warm_until"] = self.now
            return
        self._close_turns(stop_reason="refused")
        self._fail(
            causes.agent_refused(
                _words(event, "stage", 20), _words(event, "message"), self._model_error()
            )
        )

    # --- turns ------------------------------------------------------------------------------------------------

    def turn_started(self, event: NewEvent) -> None:
        """The agent has the prompt. One that was on its way when the run was paused is taken back: it counts as not begun."""
        number = untrusted.number(event.payload.get("turn"))
        self.detector.turn_began()
        if self._is_paused() and self.run.agent != COMMAND:
            cancel(self.pod)
            return
        Turn.objects.filter(run=self.run, number=number, ended_at=None).update(
            started_at=event.at, pod=self.pod
        )

    def turn_ended(self, event: NewEvent) -> None:
        """The agent has given the floor back. The work is staged next, and `work.staged` decides."""
        number = untrusted.number(event.payload.get("turn"))
        reason = _words(event, "stop_reason", 40) or "end_turn"
        self.detector.turn_ended()
        turns = Turn.objects.filter(run=self.run, number=number, ended_at=None)
        if self._is_paused():
            turns = turns.exclude(started_at=None)
        turns.update(ended_at=event.at, stop_reason=reason, pod=self.pod)
        if reason == EXITED:
            code = event.payload.get("exit_code")
            if isinstance(code, int) and not isinstance(code, bool) and code in EXIT_CODES:
                self.run_fields["exit_code"] = code
            return  # the supervisor decides, once the work is staged: it knows the command's last words
        withdraw_questions(self.run, now=self.now)
        go_on(self.run.pk)
        self._settle_turn()

    def work_staged(self, event: NewEvent) -> None:
        """What the turn left lies on the staging forge."""
        number = untrusted.number(event.payload.get("turn"))
        turns = Turn.objects.filter(run=self.run, staged_at=None)
        turns = turns.filter(number=number) if number else turns.exclude(ended_at=None)
        if self._is_paused():
            turns = turns.exclude(started_at=None)
        for turn in turns.filter(stop_reason__in=ENDED_WELL):
            self.detector.turn_staged(turn, _words(event, "head", 64))
        turns.update(staged_at=event.at)
        if self.detector.found is None:
            self._settle_turn()

    def work_failed(self, event: NewEvent) -> None:
        """The work could not be pushed; it stays in the workspace. A paused run's is staged when it goes on."""
        found = causes.work_not_staged(f"The work could not be staged: {_words(event, 'message')}")
        if self._is_paused():
            note(
                self.run.pk,
                "error",
                found.message,
                next_step="It is tried again at its resumption.",
            )
            return
        self._fail(found)

    def _settle_turn(self) -> None:
        """End or park the run when its last turn has ended, its work is staged, and no prompt waits."""
        last = Turn.objects.filter(run=self.run).order_by("-number").first()
        if last is None or last.ended_at is None or last.staged_at is None:
            return
        if RunCommand.objects.filter(
            run=self.run, kind=CommandKind.PROMPT, state__in=OPEN
        ).exists():
            return
        state = self._state()
        if state in ENDED or state == State.PAUSED or last.stop_reason == EXITED:
            return  # a paused run is judged by none of the ways in which an agent may take its cancel
        if last.stop_reason in ENDED_WELL:
            withdraw_questions(self.run, now=self.now)
            refused = self._model_error()
            transition(
                self.run.pk,
                State.SUCCEEDED,
                # An agent may end its turn in good order although its model refused to answer: that must not pass in silence.
                reason=refused.message if refused else ENDED_AND_STAGED,
                next_step=refused.next_step if refused else "",
                code=refused.code if refused else "",
                expect=frozenset({State.RUNNING, State.WAITING}),
                keep_warm_until=self.now + settings.KEEP_WARM,
                deadline_at=None,
            )
        elif last.stop_reason == CANCELLED:
            transition(
                self.run.pk,
                State.WAITING,
                reason="The turn was cancelled; its work is staged.",
                expect=frozenset({State.RUNNING}),
                waits_for="your next prompt: the turn was cancelled",
                keep_warm_until=self.now + settings.KEEP_WARM,
            )
        else:
            words = UNWELL.get(last.stop_reason, f"The agent ended its turn: {last.stop_reason}.")
            self._fail(finding("turn-cut-short", words))

    def _close_turns(self, *, stop_reason: str) -> None:
        Turn.objects.filter(run=self.run, pod=self.pod, ended_at=None).exclude(
            started_at=None
        ).update(ended_at=self.now, stop_reason=stop_reason)

    # --- what lists show --------------------------------------------------------------------------------------

    def message_piece(self, event: NewEvent) -> None:
        """Remember that the agent writes; the line is put together once a batch."""
        self.message = _words(event, "message_id", 200)

    def tool_call(self, event: NewEvent) -> None:
        """The last line of a run is what it does now."""
        title = _words(event, "title", 300)
        if title:
            self.message = None
            self.run_fields["last_line"] = title
        self.detector.call(event.payload)

    def _last_message(self, message_id: str) -> None:
        rows = RunEvent.objects.filter(
            run=self.run, kind=EventKind.MESSAGE, pod=self.pod, spilled=False
        ).order_by("-seq")[:LOOK_BACK]
        pieces: list[str] = []
        for row in rows:
            if row.payload.get("message_id", "") != message_id:
                break
            pieces.append(str(row.payload.get("text", "")))
        lines = [line.strip() for line in "".join(reversed(pieces)).splitlines()]
        line = next((line for line in reversed(lines) if line), "")
        if line:
            self.run_fields["last_line"] = line.lstrip("#*-> ")[:300]

    # --- permissions ------------------------------------------------------------------------------------------

    def permission_requested(self, event: NewEvent) -> None:
        """The agent asks. The project's policy answers at once, or the run waits for a person."""
        request_id = _words(event, "request_id", 60)
        if not request_id or self._too_many_questions():
            return
        call = event.payload.get("tool_call")
        call = call if isinstance(call, dict) else {}
        options = _options(event.payload.get("options"))
        request, is_new = PermissionRequest.objects.get_or_create(
            pod=self.pod,
            request_id=request_id,
            defaults={
                "run": self.run,
                "title": _one_line(call.get("title"), 500) or "Go on?",
                "tool_call": call if size_is_fine(call) else {"title": call.get("title")},
                "options": options,
                "asked_at": event.at,
                "expires_at": self.now + settings.PERMISSION_TIMEOUT,
            },
        )
        if not is_new:
            return
        if self._is_paused() and self.run.agent != COMMAND:
            settle(request, PermissionState.WITHDRAWN, option_id="")
            return
        allow = pick(options, "allow")
        if self.run.permission_policy == PermissionPolicy.ALLOW and allow:
            settle(request, PermissionState.ALLOWED, option_id=allow, by_policy=True)
            return
        waits = f"a permission: {call_line(call, request.title)}"[:300]
        moved = transition(
            self.run.pk,
            State.WAITING,
            reason="The agent asks for a permission.",
            expect=frozenset({State.RUNNING}),
            waits_for=waits,
        )
        if moved:
            self.run_fields.pop("waits_for", None)
        outbox.put_question(request)

    def _too_many_questions(self) -> bool:
        return (
            PermissionRequest.objects.filter(run=self.run, state=PermissionState.OPEN).count()
            >= MAX_OPEN_REQUESTS
        )

    def permission_resolved(self, event: NewEvent) -> None:
        """The sidecar closed a question: answered as we said, or taken back by the agent."""
        request_id = _words(event, "request_id", 60)
        request = PermissionRequest.objects.filter(pod=self.pod, request_id=request_id).first()
        if request is None or request.state != PermissionState.OPEN:
            return
        PermissionRequest.objects.filter(pk=request.pk, state=PermissionState.OPEN).update(
            state=PermissionState.WITHDRAWN, answered_at=self.now
        )
        events.record(
            self.run,
            events.Kind.PERMISSION_ANSWERED,
            {
                "request": request.key,
                "request_id": request_id,
                "state": PermissionState.WITHDRAWN,
                "option_id": "",
                "by": "",
            },
        )
        go_on(self.run.pk)

    # --- commands and notes -----------------------------------------------------------------------------------

    def command_applied(self, event: NewEvent) -> None:
        """The sidecar has done a command."""
        self._done(event, CommandState.APPLIED, "")

    def command_refused(self, event: NewEvent) -> None:
        """The sidecar could not do a command; a prompt that it refused has had its turn."""
        reason = _words(event, "reason", 500)
        command = self._done(event, CommandState.REFUSED, reason)
        if command is None or command.kind != CommandKind.PROMPT:
            return
        number = command.payload.get("turn")
        Turn.objects.filter(run=self.run, number=number, ended_at=None).update(
            ended_at=self.now, stop_reason="refused"
        )
        note(self.run.pk, "error", f"Prompt {number} was not taken: {reason}")

    def _done(self, event: NewEvent, state: CommandState, reason: str) -> RunCommand | None:
        key = _words(event, "command", 20)
        command = RunCommand.objects.filter(run=self.run, key=key, state__in=OPEN).first()
        if command is None or (command.pod_id is not None and command.pod_id != self.pod.pk):
            return None
        RunCommand.objects.filter(pk=command.pk).update(
            state=state, reason=reason, done_at=self.now
        )
        return command

    def sidecar_note(self, event: NewEvent) -> None:
        """Warnings and errors of the sidecar are notes of the run."""
        level = event.payload.get("level")
        words = _words(event, "message", 1000)
        if level in ("warning", "error") and words:
            note(self.run.pk, str(level), words)

    def dropped(self, event: NewEvent) -> None:
        """The sidecar left events out."""
        note(
            self.run.pk,
            "warning",
            f"Events were left out: {_words(event, 'reason') or 'the limit of this run is reached'}.",
        )

    def lifecycle(self, event: NewEvent) -> None:
        """A devcontainer lifecycle command that failed is worth a note."""
        code = untrusted.number(event.payload.get("exit_code"))
        if code:
            note(
                self.run.pk,
                "warning",
                f"The lifecycle command `{_words(event, 'command', 200)}` ended with exit code {code}.",
            )

    def agent_exited(self, event: NewEvent) -> None:
        """Note when; the supervisor asks the backend why, and decides."""
        steps = RunPod.objects.values_list("steps", flat=True).get(pk=self.pod.pk)
        self.pod_fields["steps"] = {**steps, "agent_exited": self.now.isoformat()}

    def _state(self) -> State:
        """Where the run is now: what came before in this batch may have moved it."""
        return State(Run.objects.values_list("state", flat=True).get(pk=self.run.pk))

    def _is_paused(self) -> bool:
        return self._state() is State.PAUSED

    def _fail(self, found: Finding) -> None:
        end_with(self.run, State.FAILED, found)

    def _model_error(self) -> Finding | None:
        return refusals.last_word(self.run.pk, since=self.pod.created_at)


def _words(event: NewEvent, key: str, limit: int = 500) -> str:
    return _one_line(event.payload.get(key), limit)


def _one_line(value: object, limit: int) -> str:
    return " ".join(untrusted.text(value, limit * 2).split())[:limit]


def _options(value: object) -> list[dict[str, str]]:
    if not isinstance(value, list):
        return []
    return [
        {
            "id": untrusted.text(option.get("id"), 120),
            "name": _one_line(option.get("name"), 120),
            "kind": untrusted.text(option.get("kind"), 40),
        }
        for option in value[:MAX_OPTIONS]
        if isinstance(option, dict) and untrusted.text(option.get("id"), 120)
    ]


def size_is_fine(value: Any) -> bool:
    """Whether a tool call is small enough to lie in its request's row; the event has it whole."""
    return len(str(value)) <= 64 * 1024


HANDLERS: dict[str, Callable[[Projection, NewEvent], None]] = {
    EventKind.WORKSPACE_READY: Projection.workspace_ready,
    EventKind.WORKSPACE_FAILED: Projection.workspace_failed,
    EventKind.SESSION_STARTED: Projection.session_started,
    EventKind.AGENT_REFUSED: Projection.agent_refused,
    EventKind.TURN_STARTED: Projection.turn_started,
    EventKind.TURN_ENDED: Projection.turn_ended,
    EventKind.WORK_STAGED: Projection.work_staged,
    EventKind.WORK_FAILED: Projection.work_failed,
    EventKind.MESSAGE: Projection.message_piece,
    EventKind.TOOL_CALL: Projection.tool_call,
    EventKind.TOOL_CALL_UPDATE: Projection.tool_call,
    EventKind.PERMISSION_REQUESTED: Projection.permission_requested,
    EventKind.PERMISSION_RESOLVED: Projection.permission_resolved,
    EventKind.COMMAND_APPLIED: Projection.command_applied,
    EventKind.COMMAND_REFUSED: Projection.command_refused,
    EventKind.SIDECAR_NOTE: Projection.sidecar_note,
    EventKind.DROPPED: Projection.dropped,
    EventKind.LIFECYCLE: Projection.lifecycle,
    EventKind.AGENT_EXITED: Projection.agent_exited,
}
