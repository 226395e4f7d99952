"""A tool call as a reader sees it: what it was, what came of it. Pure; every field comes from a pod and is checked."""

from __future__ import annotations

import difflib
import json
from datetime import UTC, datetime
from typing import Any

from django.utils.safestring import SafeString

from devaipod_web.reviews.diff import to_html

#: Characters of a result that are shown; the API has it whole.
MAX_OUTPUT = 40_000
MAX_DIFF_LINES = 600
MAX_DIFF_CHARACTERS = 400_000
CONTEXT_LINES = 3

ICONS = {
    "read": "▤",
    "search": "⌕",
    "edit": "✎",
    "delete": "⌫",
    "move": "⇄",
    "execute": "❯",
    "think": "◌",
    "fetch": "↗",
    "switch_mode": "⇆",
}
ENDED = ("completed", "failed", "cancelled")
#: Input fields that say best what a call does, the best first.
TELLING = ("command", "filePath", "file_path", "path", "pattern", "query", "url", "description")
EXIT_KEYS = ("exit", "exit_code", "exitCode", "code")


class Tool:
    """A tool call, patched by its updates."""

    def __init__(self) -> None:
        self.id = ""
        self.title = ""
        self.kind = "other"
        self.status = "pending"
        self.input: Any = None
        self.output: Any = None
        self.content: list[Any] = []
        self.locations: list[Any] = []
        self.began: datetime | None = None
        self.ended: datetime | None = None
        self.truncated = False

    def update(self, fields: dict[str, Any], *, at: datetime) -> None:
        """Take over the fields that are there."""
        for name in ("title", "kind", "status"):
            value = fields.get(name)
            if isinstance(value, str) and value:
                setattr(self, name, value[:2000])
        given = fields.get("tool_call_id") or fields.get("toolCallId")
        self.id = given if isinstance(given, str) else self.id
        for name, theirs in (("input", "rawInput"), ("output", "rawOutput")):
            value = fields.get(name, fields.get(theirs))
            if value not in (None, {}, ""):
                setattr(self, name, value)
        for name in ("content", "locations"):
            value = fields.get(name)
            if isinstance(value, list) and value:
                setattr(self, name, value)
        self.truncated = self.truncated or fields.get("truncated") is True
        self.began = self.began or at
        if self.is_ended and self.ended is None:
            self.ended = at

    def fill_from(self, other: Tool) -> None:
        """Take over what this one does not know of itself."""
        for name in ("title", "input", "content", "locations"):
            if not getattr(self, name):
                setattr(self, name, getattr(other, name))
        if self.kind == "other":
            self.kind = other.kind

    @property
    def is_ended(self) -> bool:
        """Whether nothing more is to come."""
        return self.status in ENDED

    @property
    def icon(self) -> str:
        """A sign for its kind."""
        return ICONS.get(self.kind, "◇")

    @property
    def line(self) -> str:
        """What it does, in one line: the command or the path rather than the tool's name."""
        said = self._telling()
        title = " ".join(self.title.split())
        if self.kind == "execute" and said:
            return said
        if title in ("", "read", "write", "edit", "bash", "grep", "glob", "list", "apply_patch"):
            return said or title or self.kind
        return title[:300]

    def _telling(self) -> str:
        if isinstance(self.input, dict):
            for key in TELLING:
                value = self.input.get(key)
                if isinstance(value, str) and value.strip():
                    return " ".join(value.split())[:300]
        for place in self.locations:
            if isinstance(place, dict) and isinstance(place.get("path"), str):
                return str(place["path"])[:300]
        return ""

    @property
    def seconds(self) -> float | None:
        """How long it took, once it has ended."""
        if self.began is None or self.ended is None:
            return None
        return max((self.ended - self.began).total_seconds(), 0.0)

    @property
    def exit_code(self) -> int | None:
        """The exit status of a command, where the agent tells it."""
        if not isinstance(self.output, dict):
            return None
        inner = self.output.get("metadata")
        for holder in (self.output, inner if isinstance(inner, dict) else {}):
            for key in EXIT_KEYS:
                value = holder.get(key)
                if isinstance(value, int) and not isinstance(value, bool):
                    return value
        return None

    @property
    def input_text(self) -> str:
        """Its input, as JSON over several lines; empty when the line above says all of it."""
        if self.input is None:
            return ""
        if isinstance(self.input, str):
            return _cut(self.input)
        if self.diffs and isinstance(self.input, dict):
            return ""
        if isinstance(self.input, dict) and set(self.input) <= {"command", "description"}:
            command = self.input.get("command")
            return _cut(command) if isinstance(command, str) and "\n" in command else ""
        if isinstance(self.input, dict) and list(self.input.values()) == [self.line]:
            return ""
        return _cut(json.dumps(self.input, indent=2, ensure_ascii=False))

    @property
    def output_text(self) -> str:
        """What came of it, as text."""
        texts = [_content_text(entry) for entry in self.content]
        found = "\n".join(text for text in texts if text)
        if not found and self.output is not None:
            found = _output_text(self.output)
        return _cut(found.strip("\n"))

    @property
    def diffs(self) -> list[dict[str, Any]]:
        """The files that it changed, as lines."""
        found = []
        for entry in self.content[:50]:
            if isinstance(entry, dict) and entry.get("type") == "diff":
                old, new = entry.get("oldText"), entry.get("newText")
                found.append(
                    _diff(
                        str(entry.get("path", ""))[:500],
                        old if isinstance(old, str) else "",
                        new if isinstance(new, str) else "",
                    )
                )
        return found

    @property
    def summary(self) -> str:
        """What is said at the right of its line: how much came."""
        if not self.is_ended or self.diffs:
            return ""
        text = self.output_text
        if not text:
            return ""
        lines = text.count("\n") + 1
        return f"{lines} line{'' if lines == 1 else 's'}"


def call_line(call: Any, title: str = "") -> str:
    """What a tool call (ACP's fields or our own) does, in one line; `title` where nothing is known of it."""
    if not isinstance(call, dict) or not call:
        return title
    tool = Tool()
    tool.update(call, at=datetime.now(UTC))
    return tool.line


def _content_text(entry: Any) -> str:
    if not isinstance(entry, dict) or entry.get("type") == "diff":
        return ""
    if entry.get("type") == "terminal":
        return ""
    inner = entry.get("content")
    inner = inner if isinstance(inner, dict) else entry
    if isinstance(inner.get("text"), str):
        return str(inner["text"])
    address = inner.get("uri") or inner.get("mimeType")
    return f"[{str(inner.get('type', 'content'))[:40]}: {str(address)[:200]}]" if address else ""


def _output_text(output: Any) -> str:
    if isinstance(output, str):
        return output
    if isinstance(output, dict):
        for key in ("output", "stdout", "error", "text"):
            if isinstance(output.get(key), str) and output[key]:
                return str(output[key])
    return json.dumps(output, indent=2, ensure_ascii=False)


def _cut(text: str) -> str:
    if len(text) <= MAX_OUTPUT:
        return text
    return f"{text[:MAX_OUTPUT]}\n… {len(text) - MAX_OUTPUT:,} more characters"


def _diff(path: str, old: str, new: str) -> dict[str, Any]:
    """The lines of a change: (kind, safe HTML), at most `MAX_DIFF_LINES`."""
    if len(old) + len(new) > MAX_DIFF_CHARACTERS:
        note = f"{len(new):,} characters: too large to show here; the Changes tab has it."
        return {"path": path, "lines": [], "added": 0, "removed": 0, "note": note}
    lines: list[tuple[str, SafeString]] = []
    added = removed = 0
    rows = difflib.unified_diff(old.splitlines(), new.splitlines(), n=CONTEXT_LINES, lineterm="")
    for index, row in enumerate(rows):
        if index < 2:
            continue
        sign, text = row[:1], row[1:]
        kind = {"+": "add", "-": "del", "@": "gap"}.get(sign, "same")
        added, removed = added + (kind == "add"), removed + (kind == "del")
        if len(lines) < MAX_DIFF_LINES:
            lines.append((kind, to_html("⋮" if kind == "gap" else text)))
    if lines and lines[0][0] == "gap":
        lines = lines[1:]
    more = added + removed > MAX_DIFF_LINES
    note = "More lines are not shown here; the Changes tab has them." if more else ""
    return {"path": path, "lines": lines, "added": added, "removed": removed, "note": note}
