"""Reads along an answer: token counts, errors, and whether it came to its end. The bytes pass whether or not they are understood.

A stream has hundreds of pieces, and only one or two of them say what was used. So a piece is searched for a few marks (a search
of bytes runs at memory's speed), and only a line with a mark is parsed. A mark has the quotes of a JSON name around it, which
no string inside JSON can hold unescaped: what a model writes cannot look like one. A tool's arguments can where a form sends
them as objects, so a line is read at its top and the last usage block wins.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from devaipod_web.llm.usage import CHARACTERS_PER_TOKEN, Tokens, estimate

if TYPE_CHECKING:
    from devaipod_web.llm.forms.base import Form

#: One line of a stream may have this many bytes; a longer one passes but is not looked into.
MAX_LINE_BYTES = 8 * 1024 * 1024
#: So much of a stream is kept until its end, for an estimate where no counts came.
SAMPLE_BYTES = 64 * 1024
#: Names under which events carry what the model said.
WORDS = frozenset(
    {
        *("content", "text", "delta", "arguments", "partial_json", "thinking", "input", "args"),
        *("reasoning", "reasoning_content", "refusal", "summary", "code"),
    }
)


@dataclass(frozen=True)
class Marks:
    """What to look for in the lines of a form's stream."""

    #: The name of the usage block, with its quotes.
    usage: bytes
    #: The stream is complete when one of these was seen. One that begins with a line break stands at a line's beginning.
    end: tuple[bytes, ...]
    #: A line with one of these may be an error.
    error: tuple[bytes, ...]
    #: Any of these: this is a stream of the form.
    form: tuple[bytes, ...]


class AnswerReader:
    """Feed it the pieces of one answer, then call `end`; `tokens` counts only after that."""

    def __init__(self, form: Form, streamed: bool, *, counted: bool, size: int) -> None:
        self.tokens = Tokens(sent=estimate(size))
        self.streamed = streamed
        #: The answer came to its end.
        self.complete = False
        #: Anything of the right form was seen.
        self.recognised = False
        #: What the provider says went wrong, where it says so inside an answer.
        self.error = ""
        self._form = form
        self._marks = form.marks
        self._counted = counted
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self._first = b""
        self._last = b""
        self._too_long = False
        self._bytes = 0
        self._lines = 0
        self._sample: list[bytes] = []
        self._sample_bytes = 0

    def feed(self, piece: bytes) -> None:
        """Look at the next bytes of a stream."""
        cut = piece.rfind(b"\n") + 1
        if not cut:
            self._keep(piece)
            return
        lines = piece if cut == len(piece) else piece[:cut]
        if self._rest or self._too_long:
            lines = (
                lines[lines.find(b"\n") + 1 :] if self._too_long else b"".join(self._rest) + lines
            )
            self._rest.clear()
            self._rest_bytes = 0
            self._too_long = False
        if cut != len(piece):
            self._keep(piece[cut:])
        self._look(lines)

    def end(self) -> None:
        """The stream has ended; read what is left and settle the counts."""
        if self._rest:
            self._look(b"".join(self._rest))
            self._rest.clear()
        for line in (self._first, self._last) if self._first != self._last else (self._last,):
            value = _event(line)
            if value is not None:
                self._form.usage(value, self.tokens)
        self._first = self._last = b""
        if self.tokens.estimated:
            self.tokens.received = max(self.tokens.received, self._estimated())
        self.tokens.bounded()

    def whole(self, data: bytes) -> bool:
        """Read an answer in one piece. False when it is not of this form; `error` has the words where it is an error."""
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            return False
        if isinstance(value, list) and value and isinstance(value[-1], dict):
            value = value[-1]  # Gemini's stream as one array
        if not isinstance(value, dict):
            return False
        self.error = error_words(value)
        if self.error:
            return False
        self.recognised = self.complete = self._form.is_answer(value, counted=self._counted)
        if self.recognised and not self._counted:
            self._form.usage(value, self.tokens)
            if self.tokens.estimated:
                self.tokens.received = estimate(_words(value))
        self.tokens.bounded()
        return self.recognised

    def _keep(self, piece: bytes) -> None:
        if self._too_long or self._rest_bytes + len(piece) > MAX_LINE_BYTES:
            self._rest.clear()
            self._rest_bytes, self._too_long = 0, True
            return
        self._rest_bytes += len(piece)
        self._rest.append(piece)

    def _estimated(self) -> int:
        """Tokens of what was received, from the share that words have in the first bytes of the stream; at least one an event."""
        sample = b"".join(self._sample)
        words = sum(_words(_event(line) or {}) for line in sample.splitlines())
        share = words * self._bytes // max(len(sample), 1)
        return max(self._lines, -(-share // CHARACTERS_PER_TOKEN))

    def _look(self, lines: bytes) -> None:
        marks = self._marks
        self._bytes += len(lines)
        if self._sample_bytes < SAMPLE_BYTES:
            self._sample.append(lines)
            self._sample_bytes += len(lines)
        self._lines += lines.count(b"data:")
        if not self.recognised:
            self.recognised = any(mark in lines for mark in marks.form)
        at = lines.rfind(marks.usage)
        if at >= 0:
            if not self._first:
                first = lines.find(marks.usage)
                if _opens_object(lines, first + len(marks.usage)):
                    self._first = _line(lines, first)
            while at >= 0 and not _opens_object(lines, at + len(marks.usage)):
                at = lines.rfind(marks.usage, 0, at)
            if at >= 0:
                self._last = _line(lines, at)
        if not self.complete:
            self.complete = any(
                mark in lines or (mark[:1] == b"\n" and lines.startswith(mark[1:]))
                for mark in marks.end
            )
        for mark in marks.error:
            at = lines.find(mark)
            if at >= 0 and not self.error:
                self.error = error_words(_event(_line(lines, at)) or {})


def _opens_object(lines: bytes, at: int) -> bool:
    """Whether an object follows the name that ends at `at`; OpenAI says `"usage":null` in every event but one."""
    return lines[at : at + 8].lstrip(b" \t:").startswith(b"{")


def _line(lines: bytes, at: int) -> bytes:
    start = lines.rfind(b"\n", 0, at) + 1
    end = lines.find(b"\n", at)
    return lines[start:] if end < 0 else lines[start:end]


def _event(line: bytes) -> Mapping[str, Any] | None:
    """The object of a `data:` line, or of a line of a JSON array."""
    data = line.strip()
    if data.startswith(b"data:"):
        data = data[5:]
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _words(value: Any) -> int:
    """Characters of what the model said in an event or answer."""
    found, waiting = 0, [(value, False)]
    while waiting:
        each, said = waiting.pop()
        if isinstance(each, str):
            found += len(each) if said else 0
        elif isinstance(each, list):
            waiting += [(inner, said) for inner in each]
        elif isinstance(each, dict):
            waiting += [(inner, key in WORDS) for key, inner in each.items()]
    return found


def error_words(value: Mapping[str, Any]) -> str:
    """What an answer or event says went wrong, in any of the forms' ways; empty when it is no error."""
    response = value.get("response")
    if value.get("type") == "response.failed" and isinstance(response, dict):
        value = response
    error = value.get("error")
    if value.get("type") == "error" and not isinstance(error, dict):
        error = value
    if not isinstance(error, dict):
        return ""
    message = error.get("message") or error.get("code") or error.get("type") or "an error"
    return str(message)[:500]
