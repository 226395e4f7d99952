"""From a run's events to what a reader sees: a pure fold, without a database and without HTML.

An *item* is one thing in the transcript (a message, a tool call, a question). Most events make one or change one: pieces of a
message grow it, a tool call's updates patch it. An item keeps its `id` whatever window of events it was folded from, so a
page, the stream after it and older parts fetched later fit together without a gap or a double.

Everything in an event of a pod is untrusted: types are checked here, lengths bounded, and the templates escape.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from devaipod_web.runs.events import Kind
from devaipod_web.runs.models import RunEvent
from devaipod_web.runs.starting import new_start
from devaipod_web.runs.states import ENDED, State
from devaipod_web.runs.tools import Tool
from pods.sidecar.protocol import EventKind

#: Characters of one message that are kept; the API has it whole.
MAX_TEXT = 200_000
#: Kinds that pieces hang on to: a window of events never begins with one.
CONTINUES = frozenset(
    {
        EventKind.MESSAGE,
        EventKind.THOUGHT,
        EventKind.USER_MESSAGE,
        EventKind.TOOL_CALL_UPDATE,
        EventKind.PERMISSION_RESOLVED,
        EventKind.TURN_STARTED,
        EventKind.TURN_ENDED,
        Kind.STEP,
        Kind.PERMISSION_ANSWERED,
    }
)
#: Kinds that change rows and the page's aside, and say nothing in the transcript.
SILENT = frozenset(
    {
        EventKind.WORKSPACE_READY,
        EventKind.AGENT_INITIALIZED,
        EventKind.USAGE,
        EventKind.MODE,
        EventKind.COMMANDS,
        EventKind.COMMAND_APPLIED,
        EventKind.DROPPED,
    }
)


@dataclass(eq=False)
class Item:
    """One thing in the transcript. `seq` is its first event's, `touched` its last's. `name` is also its template's."""

    id: str
    name: str
    seq: int
    at: datetime
    touched: int
    data: dict[str, Any] = field(default_factory=dict)
    html: str = ""
    html_of: tuple[Any, ...] = ()


class Transcript:
    """Items folded from a run's events, in their order."""

    def __init__(self, agent: str = "") -> None:
        self.agent = agent
        self.items: OrderedDict[str, Item] = OrderedDict()
        self.last_seq = 0
        self.plan: list[dict[str, str]] = []
        self.context: dict[str, Any] = {}
        self._open_text: tuple[str, Any, str] | None = None
        self._open_item: Item | None = None
        self._tools: dict[str, Item] = {}
        self._questions: dict[tuple[int | None, str], Item] = {}
        self._prompts: dict[int, Item] = {}
        self._turn_began: dict[int, datetime] = {}
        self._starting: Item | None = None

    def feed(self, events: Iterable[RunEvent], *, known_only: bool = False) -> list[Item]:
        """Fold events in; returns the items that they made or changed, in the order of first touch.

        With `known_only` just the items that are there already are patched (what happened to older items later on).
        """
        changed: dict[str, Item] = {}
        for event in events:
            if not known_only:
                self.last_seq = max(self.last_seq, event.seq)
            payload = event.payload if isinstance(event.payload, dict) else {}
            before = None if known_only else self._open_item
            item = self._one(event, payload, known_only)
            if item is not None:
                item.touched = max(item.touched, event.seq)
                changed[item.id] = item
            if before is not None and before is not self._open_item:
                before.data["live"] = False
                changed.setdefault(before.id, before)
        return list(changed.values())

    def after(self, seq: int) -> list[Item]:
        """The items that were made or changed after `seq`."""
        return [item for item in self.items.values() if item.touched > seq]

    def forget(self, keep: int) -> None:
        """Let go of all but the last `keep` items, so that a long run's follower stays small."""
        while len(self.items) > keep:
            self.items.popitem(last=False)

    # --- one event --------------------------------------------------------------------------------------------

    def _one(self, event: RunEvent, payload: dict[str, Any], known_only: bool) -> Item | None:
        patch = _PATCHES.get(event.kind)
        if patch is not None:
            return patch(self, event, payload, known_only)
        if known_only:
            return None
        if event.kind in (EventKind.MESSAGE, EventKind.THOUGHT, EventKind.USER_MESSAGE):
            return self._text(event, payload)
        self._close_text(event)
        if event.kind in SILENT:
            if event.kind == EventKind.USAGE:
                self.context = {k: payload.get(k) for k in ("used", "size")}
            return None
        make = _MAKES.get(event.kind)
        if make is not None:
            return make(self, event, payload)
        return self._add(event, "raw", {"kind": event.kind, "payload": payload})

    def _add(self, event: RunEvent, name: str, data: dict[str, Any], *, name_id: str = "") -> Item:
        item = Item(name_id or f"e{event.seq}", name, event.seq, event.at, event.seq, data)
        self.items[item.id] = item
        return item

    def _close_text(self, event: RunEvent) -> None:
        self._open_text = self._open_item = None

    def _text(self, event: RunEvent, payload: dict[str, Any]) -> Item:
        """A piece of a message, of a thought, or of the person's words as the agent repeats them."""
        mark = (event.kind, event.pod_id, words(payload, "message_id"))
        piece = words(payload, "text", MAX_TEXT)
        item = self._open_item
        if item is not None and self._open_text == mark:
            if len(item.data["text"]) < MAX_TEXT:
                item.data["text"] += piece
            return item
        name = "thought" if event.kind == EventKind.THOUGHT else "message"
        who = "person" if event.kind == EventKind.USER_MESSAGE else "agent"
        item = self._add(event, name, {"text": piece, "who": who, "live": True})
        self._open_text, self._open_item = mark, item
        return item

    # --- tool calls -------------------------------------------------------------------------------------------

    def _tool(
        self, event: RunEvent, payload: dict[str, Any], known_only: bool = False
    ) -> Item | None:
        """A tool call or its update. One that began before this window is shown from what its update says."""
        known_as = tool_id(event.pod_id, words(payload, "tool_call_id"))
        item = self._tools.get(known_as)
        if item is None:
            if known_only:
                return None
            self._close_text(event)
            item = self._add(event, "tool", {"tool": Tool()}, name_id=known_as)
            self._tools[known_as] = item
        item.data["tool"].update(payload, at=event.at)
        return item

    # --- questions --------------------------------------------------------------------------------------------

    def _ask(self, event: RunEvent, payload: dict[str, Any]) -> Item:
        request_id = words(payload, "request_id", 60)
        call = payload.get("tool_call")
        tool = Tool()
        tool.update(call if isinstance(call, dict) else {}, at=event.at)
        known = self._tools.get(tool_id(event.pod_id, tool.id))
        if known is not None:
            tool.fill_from(known.data["tool"])
        item = self._add(
            event,
            "permission",
            {
                "tool": tool,
                "request_id": request_id,
                "pod": event.pod_id,
                "state": "open",
                "by": "",
                "option": "",
            },
        )
        self._questions[(event.pod_id, request_id)] = item
        return item

    def _answered(
        self, event: RunEvent, payload: dict[str, Any], known_only: bool = False
    ) -> Item | None:
        request_id = words(payload, "request_id", 60)
        item = next(
            (
                found
                for (pod, known), found in reversed(self._questions.items())
                if known == request_id and event.pod_id in (None, pod)
            ),
            None,
        )
        if item is None:
            return None
        if event.kind == EventKind.PERMISSION_RESOLVED:
            if item.data["state"] != "open":
                return None
            outcome = words(payload, "outcome")
            item.data["state"] = "withdrawn" if outcome == "cancelled" else "answered"
            return item
        item.data.update(
            state=words(payload, "state", 20), by=words(payload, "by"), answered_at=event.at
        )
        return item

    # --- turns and states -------------------------------------------------------------------------------------

    def _prompt(self, event: RunEvent, payload: dict[str, Any]) -> Item:
        number = count(payload, "turn")
        data = {
            "text": words(payload, "text", MAX_TEXT),
            "by": words(payload, "by"),
            "turn": number,
            "pending": True,
        }
        item = self._add(event, "prompt", data)
        self._prompts[number] = item
        return item

    def _input(self, event: RunEvent, payload: dict[str, Any]) -> Item:
        data = {"text": words(payload, "text", MAX_TEXT), "by": words(payload, "by")}
        return self._add(event, "prompt", {**data, "turn": 0, "pending": False})

    def _turn_started(
        self, event: RunEvent, payload: dict[str, Any], known_only: bool = False
    ) -> Item | None:
        number = count(payload, "turn")
        self._turn_began[number] = event.at
        if not known_only:
            self._close_text(event)
        return self._taken(number)

    def _taken(self, number: int) -> Item | None:
        item = self._prompts.get(number)
        if item is None or not item.data["pending"]:
            return None
        item.data["pending"] = False
        return item

    def _turn_ended(self, event: RunEvent, payload: dict[str, Any]) -> Item:
        number = count(payload, "turn")
        self._taken(number)
        seconds = payload.get("seconds")
        if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
            began = self._turn_began.get(number)
            seconds = (event.at - began).total_seconds() if began else None
        reason = words(payload, "stop_reason", 60) or "end_turn"
        code = payload.get("exit_code")
        return self._add(
            event,
            "turn",
            {
                "turn": number,
                "stop_reason": reason,
                "seconds": seconds,
                "exit_code": code if type(code) is int else None,
            },
        )

    def _state(self, event: RunEvent, payload: dict[str, Any]) -> Item | None:
        was, to = words(payload, "from", 20), words(payload, "to", 20)
        if to == State.QUEUED:
            self._starting = self._add(event, "starting", new_start(event.at))
            return self._starting
        item = self._starting
        if to == State.PAUSED or (was == State.PAUSED and to == State.RUNNING):
            return self._moved(event, payload, to)
        if item is not None and was == State.QUEUED and to == State.PREPARING:
            waited = (event.at - item.at).total_seconds()
            item.data["steps"]["queued"] = {"seconds": max(waited, 0.0), "text": ""}
            item.data["state"] = to
            return item
        if to == State.PREPARING:
            # A pod was lost: the same steps again, for a new attempt.
            self._starting = self._add(event, "starting", new_start(event.at))
            self._starting.data["steps"]["queued"] = {"seconds": 0.0, "text": ""}
            self._starting.data["state"] = to
            return self._starting
        if to in ENDED:
            if item is not None and item.data["state"] != "done":
                item.data["state"] = "ended"
                item.touched = event.seq
            return self._moved(event, payload, to)
        if item is not None and to == State.RUNNING and item.data["state"] != "done":
            item.data["state"] = "done"
            return item
        if item is not None and item.data["state"] not in ("done", "ended"):
            item.data["state"] = to
            return item
        return None

    def _moved(self, event: RunEvent, payload: dict[str, Any], to: str) -> Item:
        """A row of its own for a move that people should see."""
        return self._add(
            event,
            "state",
            {
                "state": to,
                "reason": words(payload, "reason", 1000),
                "next_step": words(payload, "next_step", 500),
            },
        )

    def _step(
        self, event: RunEvent, payload: dict[str, Any], known_only: bool = False
    ) -> Item | None:
        item = self._starting
        if item is None:
            if known_only:
                return None
            item = self._starting = self._add(event, "starting", new_start(event.at))
        name = words(payload, "step", 40)
        seconds = payload.get("seconds")
        is_done = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        item.data["steps"][name] = {
            "seconds": seconds if is_done else None,
            "text": words(payload, "text", 500),
        }
        return item

    # --- the rest ---------------------------------------------------------------------------------------------

    def _note(self, event: RunEvent, payload: dict[str, Any]) -> Item | None:
        """Notes, and everything that went wrong: what happened and the next step."""
        level, text = NOTES[event.kind]
        level = words(payload, "level", 10) or level
        if event.kind == EventKind.SIDECAR_NOTE and level != "info":
            return None  # it comes again as a note of the run
        said = next(
            (
                words(payload, key, 2000)
                for key in ("text", "message", "reason", "line")
                if payload.get(key)
            ),
            "",
        )
        if event.kind == Kind.STUCK:
            said = words(payload, "waits_for", 500)
        if event.kind == EventKind.AGENT_OVERSIZE:
            said = f"{count(payload, 'bytes'):,} bytes"
        return self._add(
            event,
            "note",
            {
                "level": level if level in ("info", "warning", "error") else "info",
                "what": text,
                "text": said,
                "next_step": words(payload, "next_step", 500),
                "output": words(payload, "output", 20_000) or words(payload, "head", 2000),
            },
        )

    def _session(self, event: RunEvent, payload: dict[str, Any]) -> Item | None:
        how = words(payload, "how", 20)
        if how not in ("resumed", "loaded"):
            return None
        text = "The agent took up its earlier session."
        return self._add(
            event,
            "note",
            {"level": "info", "what": text, "text": "", "next_step": "", "output": ""},
        )

    def _staged(self, event: RunEvent, payload: dict[str, Any]) -> Item | None:
        commits = count(payload, "commits")
        if not commits:
            return None
        return self._add(
            event,
            "staged",
            {
                "head": words(payload, "head", 64),
                "commits": commits,
                "snapshot": payload.get("snapshot") is True,
            },
        )

    def _lifecycle(self, event: RunEvent, payload: dict[str, Any]) -> Item:
        tool = Tool()
        code = payload.get("exit_code")
        tool.update(
            {
                "title": words(payload, "command", 2000),
                "kind": "execute",
                "status": "failed" if code else "completed",
                "output": {"output": words(payload, "output", 100_000), "exit": code},
            },
            at=event.at,
        )
        return self._add(event, "tool", {"tool": tool})

    def _plan(self, event: RunEvent, payload: dict[str, Any]) -> Item | None:
        self.plan = plan_entries(payload)
        return None

    def _review(self, event: RunEvent, payload: dict[str, Any]) -> Item:
        known = ("review", "head", "commits", "files", "additions", "deletions", "revision", "branch", "by")  # fmt: skip
        data = {key: payload.get(key) for key in known}
        return self._add(event, "review", {**data, "what": event.kind.partition(".")[2]})


def plan_entries(payload: dict[str, Any]) -> list[dict[str, str]]:
    """The entries of a plan event, at most a hundred."""
    entries = payload.get("entries")
    return [
        {
            "content": words(entry, "content", 500),
            "status": words(entry, "status", 20) or "pending",
        }
        for entry in (entries if isinstance(entries, list) else [])[:100]
        if isinstance(entry, dict)
    ]


def tool_id(pod_id: int | None, tool_call_id: str) -> str:
    """The item's id of a tool call: the agent's own id, made fit for a page and apart for each attempt."""
    digest = hashlib.sha256(f"{pod_id}/{tool_call_id}".encode("utf-8", "replace")).hexdigest()
    return f"t{digest[:16]}"


def words(payload: dict[str, Any], key: str, limit: int = 300) -> str:
    """A text of a payload, cut at `limit` characters; anything else is empty."""
    value = payload.get(key)
    return value[:limit] if isinstance(value, str) else ""


def count(payload: dict[str, Any], key: str) -> int:
    """A whole number of a payload, not below zero; anything else is 0."""
    value = payload.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


#: Kinds shown as notes → level and what happened.
NOTES: dict[str, tuple[str, str]] = {
    Kind.NOTE: ("info", ""),
    Kind.STUCK: ("warning", "No progress for a while. It waits for:"),
    Kind.POD_LOST: ("warning", "The pod was lost."),
    Kind.MODEL_REFUSED: ("error", "A request to the model was refused."),
    EventKind.SIDECAR_NOTE: ("info", ""),
    EventKind.WORKSPACE_FAILED: ("error", "The workspace could not be made."),
    EventKind.WORK_FAILED: ("error", "The work could not be staged."),
    EventKind.AGENT_REFUSED: ("error", "The agent refused."),
    EventKind.AGENT_JUNK: ("warning", "The agent wrote a line that is not its protocol:"),
    EventKind.AGENT_OVERSIZE: ("warning", "The agent sent a frame that is too large."),
    EventKind.AGENT_EXITED: ("info", "The agent's program ended."),
    EventKind.COMMAND_REFUSED: ("warning", "The agent could not do what was asked:"),
}

#: Kinds that may patch an older item (taken with `known_only` as well).
_PATCHES: dict[str, Callable[[Transcript, RunEvent, dict[str, Any], bool], Item | None]] = {
    EventKind.TOOL_CALL: Transcript._tool,
    EventKind.TOOL_CALL_UPDATE: Transcript._tool,
    EventKind.PERMISSION_RESOLVED: Transcript._answered,
    Kind.PERMISSION_ANSWERED: Transcript._answered,
    EventKind.TURN_STARTED: Transcript._turn_started,
    Kind.STEP: Transcript._step,
}
_MAKES: dict[str, Callable[[Transcript, RunEvent, dict[str, Any]], Item | None]] = {
    EventKind.PERMISSION_REQUESTED: Transcript._ask,
    EventKind.TURN_ENDED: Transcript._turn_ended,
    EventKind.SESSION_STARTED: Transcript._session,
    EventKind.WORK_STAGED: Transcript._staged,
    EventKind.LIFECYCLE: Transcript._lifecycle,
    EventKind.PLAN: Transcript._plan,
    Kind.PROMPT: Transcript._prompt,
    Kind.INPUT: Transcript._input,
    Kind.STATE: Transcript._state,
    Kind.REVIEW: Transcript._review,
    Kind.PROMOTED: Transcript._review,
    Kind.REJECTED: Transcript._review,
    **dict.fromkeys(NOTES, Transcript._note),
}
