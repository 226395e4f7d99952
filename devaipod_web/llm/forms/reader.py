"""Reads along an answer: token counts, errors, and whether it came to its end. The bytes pass whether or not they are understood.

A stream has hundreds of pieces, and only the first and the last ones say what was used, that it ended, or that it failed. So
those are kept and looked into when the stream has ended; the others are only counted. Even there just a line with a mark is
parsed. A mark has the quotes of a JSON name around it, which no string inside JSON can hold unescaped: what a model writes cannot
look like one. A tool's arguments can where a form sends them as objects, so a line is read at its top and the last block wins.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from devaipod_web.llm.usage import CHARACTERS_PER_TOKEN, Tokens, estimate

if TYPE_CHECKING:
    from devaipod_web.llm.forms.base import Form

#: One line of a stream may have this many bytes; a longer one passes but is not looked into.
MAX_LINE_BYTES = 8 * 1024 * 1024
#: So much of a stream's beginning is kept: for what is said there, and for an estimate where no counts come.
HEAD_BYTES = 16 * 1024
#: So many pieces of its end are kept: there stand the counts, the end and the errors. A piece may be a single line.
TAIL = 8
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
    """Feed it the pieces of one answer, then call `end`; everything else counts only after that."""

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
        self._ended = False
        #: What came of a line that has not ended yet.
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self._too_long = False
        self._bytes = 0
        self._head: list[bytes] = []
        self._head_bytes = 0
        self._tail: deque[bytes] = deque(maxlen=TAIL)

    def feed(self, piece: bytes) -> None:
        """Take the next bytes of a stream: whole lines are kept, a few from the beginning and a few from the end."""
        if self._rest or self._too_long or piece[-1:] != b"\n":
            piece = self._whole_lines(piece)
            if not piece:
                return
        self._bytes += len(piece)
        self._tail.append(piece)
        if self._head_bytes < HEAD_BYTES:
            self._head.append(piece)
            self._head_bytes += len(piece)

    def end(self) -> None:
        """The stream has ended; read what was kept. Safe to repeat."""
        if self._ended:
            return
        self._ended = True
        if self._rest:
            self._tail.append(b"".join(self._rest))
            self._head.append(self._tail[-1])
        marks, tail = self._marks, tuple(self._tail)
        self.recognised = any(mark in lines for lines in self._head for mark in marks.form)
        self.complete = any(_has(lines, mark) for lines in tail for mark in marks.end)
        self.error = next(filter(None, map(self._error, tail)), "")
        first, last = self._usage(self._head, last=False), self._usage(reversed(tail), last=True)
        for line in (first, last) if first != last else (last,):
            value = _event(line) if line else None
            if value is not None:
                self._form.usage(value, self.tokens)
        if self.tokens.estimated:
            self.tokens.received = max(self.tokens.received, self._estimated())
        self.tokens.bounded()
        self._head.clear()
        self._tail.clear()

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
        self._ended = True
        if self.recognised and not self._counted:
            self._form.usage(value, self.tokens)
            if self.tokens.estimated:
                self.tokens.received = estimate(_words(value))
        self.tokens.bounded()
        return self.recognised

    def _whole_lines(self, piece: bytes) -> bytes:
        """Up to the piece's last line break, after what was left of the pieces before; the rest is kept for the next one."""
        cut = piece.rfind(b"\n") + 1
        if not cut:
            self._keep(piece)
            return b""
        lines = piece[:cut]
        if self._too_long:
            lines = lines[lines.find(b"\n") + 1 :]
        elif self._rest:
            lines = b"".join(self._rest) + lines
        self._rest.clear()
        self._rest_bytes, self._too_long = 0, False
        if cut != len(piece):
            self._keep(piece[cut:])
        return lines

    def _keep(self, piece: bytes) -> None:
        if self._too_long or self._rest_bytes + len(piece) > MAX_LINE_BYTES:
            self._rest.clear()
            self._rest_bytes, self._too_long = 0, True
            return
        self._rest_bytes += len(piece)
        self._rest.append(piece)

    def _usage(self, pieces: Iterable[bytes], *, last: bool) -> bytes:
        """The first or last line with a usage block in the first of these pieces that has one; OpenAI says `"usage":null` else."""
        mark = self._marks.usage
        for lines in pieces:
            at = lines.rfind(mark) if last else lines.find(mark)
            while at >= 0:
                if _opens_object(lines, at + len(mark)):
                    return _line(lines, at)
                at = lines.rfind(mark, 0, at) if last else lines.find(mark, at + 1)
        return b""

    def _error(self, lines: bytes) -> str:
        for mark in self._marks.error:
            at = lines.find(mark)
            if at >= 0 and (found := error_words(_event(_line(lines, at)) or {})):
                return found
        return ""

    def _estimated(self) -> int:
        """Tokens of what was received, by the words in the first bytes of the stream; at least one an event."""
        head = b"".join(self._head)
        words = sum(_words(_event(line) or {}) for line in head.splitlines())
        parts = max(len(head), 1)
        events = head.count(b"data:") * self._bytes // parts
        return max(events, -(-words * self._bytes // parts // CHARACTERS_PER_TOKEN))


def _has(lines: bytes, mark: bytes) -> bool:
    return mark in lines or (mark[:1] == b"\n" and lines.startswith(mark[1:]))


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
