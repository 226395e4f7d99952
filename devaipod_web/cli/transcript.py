"""A run's events as lines in the terminal. Everything in them came from an agent and is cleaned."""

from __future__ import annotations

import sys
from typing import Any

from devaipod_web.cli.output import clean, paint, say, state

MAX_TITLE = 160
_DONE = {"completed": ("✓", "green"), "failed": ("✗", "red")}


class Transcript:
    """Prints events as they come; pieces of one message go on the same line."""

    def __init__(self, *, thoughts: bool = False) -> None:
        self.state = ""
        self.requests: dict[str, dict[str, Any]] = {}
        self._thoughts = thoughts
        self._open = ""
        self._titles: dict[str, str] = {}
        self._told: set[tuple[str, str]] = set()

    def show(self, event: dict[str, Any]) -> None:
        """Print one event; kinds that mean nothing here print nothing."""
        kind, payload = str(event.get("kind")), event.get("payload") or {}
        if kind == "message" or (kind == "thought" and self._thoughts):
            self._piece(kind, payload)
            return
        method = getattr(self, "_on_" + kind.replace(".", "_"), None)
        if method is not None:
            self._close()
            method(payload)

    def end(self) -> None:
        """End an open line."""
        self._close()

    def _close(self) -> None:
        if self._open:
            say()
        self._open = ""

    def _piece(self, kind: str, payload: dict[str, Any]) -> None:
        ident = f"{kind}:{payload.get('message_id')}"
        if self._open and self._open != ident:
            self._close()
        text = clean(payload.get("text", ""), keep_newlines=True)
        sys.stdout.write(paint(text, "dim") if kind == "thought" else text)
        sys.stdout.flush()
        self._open = ident

    def _on_prompt(self, payload: dict[str, Any]) -> None:
        who = clean(payload.get("by") or "somebody")
        say(paint(f"» {who}: ", "bold") + clean(payload.get("text", ""), keep_newlines=True))

    def _on_input(self, payload: dict[str, Any]) -> None:
        self._on_prompt(payload)

    def _on_run_state(self, payload: dict[str, Any]) -> None:
        self.state = str(payload.get("to", ""))
        reason = clean(payload.get("reason", ""))
        say(state(self.state) + (f"  {reason}" if reason else ""))
        if payload.get("next_step"):
            say(f"  → {clean(payload['next_step'])}")

    def _on_run_step(self, payload: dict[str, Any]) -> None:
        seconds = payload.get("seconds")
        took = f" ({float(seconds):.1f} s)" if isinstance(seconds, int | float) else ""
        words = clean(payload.get("text") or payload.get("step", ""))
        say(paint(f"  · {words}{took}", "dim"))

    def _on_run_note(self, payload: dict[str, Any]) -> None:
        self._note(payload.get("level"), payload.get("text"), payload.get("next_step"))

    def _on_sidecar_note(self, payload: dict[str, Any]) -> None:
        self._note(payload.get("level"), payload.get("message"), "")

    def _on_model_refused(self, payload: dict[str, Any]) -> None:
        self._note("error", payload.get("message"), payload.get("next_step"))

    def _on_run_stuck(self, payload: dict[str, Any]) -> None:
        self._note("warning", f"No progress; it waits for {payload.get('waits_for')}.", "")

    def _on_pod_lost(self, payload: dict[str, Any]) -> None:
        self._note("warning", f"The pod was lost: {payload.get('reason')}", "")

    def _on_work_failed(self, payload: dict[str, Any]) -> None:
        self._note("error", payload.get("message"), "")

    def _note(self, level: object, text: object, next_step: object) -> None:
        mark, style = {"error": ("✗", "red"), "warning": ("▲", "yellow")}.get(
            str(level), ("i", "dim")
        )
        say(paint(f"{mark} {clean(text)}", style))
        if next_step:
            say(f"  → {clean(next_step)}")

    def _on_tool_call(self, payload: dict[str, Any]) -> None:
        ident = str(payload.get("tool_call_id"))
        title = clean(payload.get("title") or payload.get("kind") or "tool")[:MAX_TITLE]
        self._titles[ident] = title
        say(paint("▸ ", "cyan") + title)
        self._tool_end(ident, payload)

    def _on_tool_call_update(self, payload: dict[str, Any]) -> None:
        ident = str(payload.get("tool_call_id"))
        if payload.get("title"):
            self._titles[ident] = clean(payload["title"])[:MAX_TITLE]
        self._tool_end(ident, payload)

    def _tool_end(self, ident: str, payload: dict[str, Any]) -> None:
        status = str(payload.get("status") or "")
        if status not in _DONE or (ident, status) in self._told:
            return
        self._told.add((ident, status))
        mark, style = _DONE[status]
        say(f"  {paint(mark, style)} {self._titles.get(ident, 'tool')}")

    def _on_plan(self, payload: dict[str, Any]) -> None:
        marks = {"completed": "✓", "in_progress": "▸"}
        entries = payload.get("entries") or []
        words = [
            f"{marks.get(str(e.get('status')), '○')} {clean(e.get('content', ''))}"
            for e in entries[:20]
            if isinstance(e, dict)
        ]
        if words:
            say(paint("  plan: " + " · ".join(words), "dim"))

    def _on_permission_requested(self, payload: dict[str, Any]) -> None:
        call = payload.get("tool_call") or {}
        title = clean(call.get("title") if isinstance(call, dict) else "")[:MAX_TITLE]
        self.requests[str(payload.get("request_id"))] = payload
        say(paint(f"◆ The agent asks: {title or 'may it go on?'}", "yellow"))

    def _on_permission_answered(self, payload: dict[str, Any]) -> None:
        who = clean(payload.get("by") or "nobody")
        say(f"  {clean(payload.get('state', ''))} by {who}")

    def _on_review_opened(self, payload: dict[str, Any]) -> None:
        say(
            paint("✓ ", "green")
            + f"Review {clean(payload.get('review', ''))}: {payload.get('commits', 0)} commit(s), "
            f"{payload.get('files', 0)} file(s), +{payload.get('additions', 0)} −{payload.get('deletions', 0)}"
        )
