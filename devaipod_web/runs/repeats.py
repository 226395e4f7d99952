"""Loop detection: whether an agent does the same again and again. Pure; what is remembered is small, plain JSON, and goes with the run.

Two things are looked for:

- **calls**: the same tool calls with the same input and the same result, one of them or a cycle of up to MAX_CYCLE, so often in a row
  within a turn (`settings.LOOP_CALLS` times; a cycle half as often). A result that differs in one character (a time, a counter) is
  another one, so watching something that moves, and tests that are run again after an edit, are no loop;
- **turns**: so many turns in a row (`settings.LOOP_TURNS`) that left the staged work as it was, each asked for by the same words, figures
  aside: a program that says "continue" for ever.

What comes from the agent is kept as a hash, and of the last few calls a shortened line for people.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_CYCLE = 4
#: A cycle must come round so often at the least, however few calls are allowed.
LEAST_ROUNDS = 3
#: Calls whose result is awaited; agents run a few at once.
MAX_OPEN = 16
#: Characters of a call that a sentence quotes.
LINE_CHARACTERS = 100
NAME_CHARACTERS = 40
ENDED = frozenset({"completed", "failed"})
_FIGURES = re.compile(r"\d+")


@dataclass
class Memory:
    """What is remembered of a run. `run` has, for each length of a cycle, how many calls in a row equal the one so many before."""

    #: Hash of a call's id → [name, line, hash of its input].
    open: dict[str, list[str]] = field(default_factory=dict)
    #: The last MAX_CYCLE calls: [hash, name, line].
    last: list[list[str]] = field(default_factory=list)
    run: list[int] = field(default_factory=lambda: [0] * MAX_CYCLE)
    turns: int = 0
    head: str = ""
    words: str = ""

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Memory:
        """What `as_json` wrote; whatever is missing is new."""
        memory = cls()
        for name in vars(memory):
            if isinstance(kept.get(name), type(getattr(memory, name))):
                setattr(memory, name, copy.deepcopy(kept[name]))
        if len(memory.run) != MAX_CYCLE:
            memory.run = [0] * MAX_CYCLE
        return memory

    def as_json(self) -> dict[str, Any]:
        """For the run's row."""
        return dict(vars(self))


@dataclass(frozen=True)
class Loop:
    """What repeats: calls as (tool, line), how often they were made in a row; or, without calls, so many turns."""

    calls: tuple[tuple[str, str], ...]
    times: int

    @property
    def sentence(self) -> str:
        """What repeats, for people. Its quotations come from the agent."""
        if not self.calls:
            return (
                f"The agent goes round in a loop: {self.times} turns in a row were asked for with the same words "
                "and changed nothing."
            )
        shown = ", ".join(f"{name} “{line}”" if line else name for name, line in self.calls)
        if len(self.calls) == 1:
            return f"The agent goes round in a loop: {self.times} times in a row the same call gave the same result: {shown}"
        return (
            f"The agent goes round in a loop: {self.times} times in a row the same {len(self.calls)} calls gave the same "
            f"results: {shown}"
        )


def called(memory: Memory, call: Mapping[str, Any], *, line: str, most: int) -> Loop | None:
    """Take in what a tool call, or an update of one, says; returns the loop that it completes, or None.

    `call` are the fields of `EventKind.TOOL_CALL`, `line` is what it does in one line. `most` is how often the same call may be made; 0:
    nothing is looked for.
    """
    identity = _hash(call.get("tool_call_id"))
    began = memory.open.pop(identity, None) or ["", "", ""]
    name, said, given = began
    name = name or _shortened(call.get("title") or call.get("kind"), NAME_CHARACTERS)
    if call.get("input"):
        given = _hash(call["input"])
    if call.get("input") or not said:
        said = _shortened(line, LINE_CHARACTERS)
    if call.get("status") not in ENDED:
        memory.open[identity] = [name, said, given]
        while len(memory.open) > MAX_OPEN:
            del memory.open[next(iter(memory.open))]
        return None
    result = call.get("content") or call.get("output")
    if not given and not result:
        return None  # nothing by which one could be told from another
    mark = _hash([name, given, call.get("status"), result])
    return _counted(memory, [mark, name, "" if said == name else said], most)


def _counted(memory: Memory, now: list[str], most: int) -> Loop | None:
    for back in range(1, MAX_CYCLE + 1):
        same = len(memory.last) >= back and memory.last[-back][0] == now[0]
        memory.run[back - 1] = memory.run[back - 1] + 1 if same else 0
    memory.last = [*memory.last, now][-MAX_CYCLE:]
    if most <= 0:
        return None
    for length in range(1, MAX_CYCLE + 1):
        rounds = max(most, 2) if length == 1 else max(-(-most // 2), LEAST_ROUNDS)
        if memory.run[length - 1] >= length * (rounds - 1):
            calls = tuple((name, line) for _, name, line in memory.last[-length:])
            return Loop(calls, rounds)
    return None


def turn_began(memory: Memory) -> None:
    """A new turn: what was called in the last one is over."""
    memory.open, memory.last, memory.run = {}, [], [0] * MAX_CYCLE


def turn_staged(memory: Memory, *, words: str, head: str, most: int) -> Loop | None:
    """A turn that was asked for with `words` left `head` on the staging forge; returns the loop that it completes, or None."""
    mark = _hash(_FIGURES.sub("#", " ".join(words.lower().split())))
    same = bool(head) and (mark, head) == (memory.words, memory.head)
    memory.turns = memory.turns + 1 if same else 1
    memory.words, memory.head = mark, head
    return Loop((), memory.turns) if most > 0 and memory.turns >= max(most, 2) else None


def _hash(value: object) -> str:
    if not isinstance(value, str):
        value = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(value.encode("utf-8", "replace")).hexdigest()[:16]


def _shortened(value: object, most: int) -> str:
    words = " ".join(value.split()) if isinstance(value, str) else ""
    return words if len(words) <= most else words[: most - 1] + "…"
