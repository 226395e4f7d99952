"""Pause a run that repeats itself: what its events say is held against what is remembered of it (`runs.repeats`)."""

from __future__ import annotations

from typing import Any

from django.conf import settings

from devaipod_web.runs import repeats
from devaipod_web.runs.models import Run, Turn
from devaipod_web.runs.repeats import Loop, Memory
from devaipod_web.runs.services.pause import pause
from devaipod_web.runs.states import Cause
from devaipod_web.runs.tools import call_line
from pods.causes import repeats_itself
from pods.command import COMMAND


class Detector:
    """Takes in one batch of a run's events, in the transaction that stores them. Use once."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.found: Loop | None = None
        self._memory: Memory | None = None
        # A command has no agent that could repeat itself.
        self._is_on = run.agent != COMMAND

    @property
    def memory(self) -> Memory:
        """What is remembered, read when it is first needed."""
        if self._memory is None:
            self._memory = Memory.of(self.run.repeats)
        return self._memory

    def call(self, payload: dict[str, Any]) -> None:
        """A tool call, or an update of one."""
        if self._is_on and settings.LOOP_CALLS and self.found is None:
            line = call_line(payload, str(payload.get("title") or ""))
            self.found = repeats.called(self.memory, payload, line=line, most=settings.LOOP_CALLS)

    def turn_began(self) -> None:
        """The agent has taken a prompt."""
        if self._is_on and settings.LOOP_CALLS:
            repeats.turn_began(self.memory)

    def turn_ended(self) -> None:
        """The agent has stopped by itself: what it repeated until then is over."""
        self.found = None

    def turn_staged(self, turn: Turn, head: str) -> None:
        """What a turn that ended well left is on the staging forge at the commit `head`."""
        if self._is_on and settings.LOOP_TURNS:
            found = repeats.turn_staged(
                self.memory, words=turn.prompt, head=head, most=settings.LOOP_TURNS
            )
            self.found = self.found or found

    def remembered(self) -> dict[str, Any]:
        """The fields of the run's row that have changed."""
        if self._memory is None or self._memory.as_json() == self.run.repeats:
            return {}
        return {"repeats": self._memory.as_json()}

    def act(self) -> bool:
        """Pause the run when a loop was found. False when there was none, or the run is not at work any more."""
        if self.found is None:
            return False
        what = repeats_itself(self.found.sentence)
        return pause(
            self.run, Cause.LOOP, reason=what.message, next_step=what.next_step, code=what.code
        )
