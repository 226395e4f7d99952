"""A change as a person reads it: files, hunks, lines with word-level marks, everything bounded and safe to show.

All text comes from an agent. Lines become HTML here, escaped, with every control, bidirectional and invisible character shown
as a mark that names it; nothing of it reaches a page in another way. Syntax is not coloured on purpose: a lexer made of regular
expressions can be held up for minutes by a line written for that, and nothing could interrupt it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from re import compile as regex

from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe
from unidiff.errors import UnidiffParseError
from unidiff.patch import Hunk as PatchHunk
from unidiff.patch import PatchedFile, PatchSet

from devaipod_web.forges.errors import TooLarge
from devaipod_web.forges.git import DIFF_FLAGS, git
from devaipod_web.reviews import changes
from devaipod_web.reviews.risks import shown_path

MAX_FILES = 300
MAX_LINES = 20_000
#: Lines of one file; the rest is said to be there.
MAX_FILE_LINES = 5_000
MAX_LINE_CHARACTERS = 1_000
#: Bytes of git's output for one call.
MAX_BYTES = 16 * 1024 * 1024
#: Lines around a change, and the most that a reader can ask for.
CONTEXT = 3
FULL_CONTEXT = 1_000_000

#: Word-level marks are for blocks and lines of a size at which they help and are quick.
_MARK_BLOCK = 24
_MARK_CHARACTERS = 300
_MARK_WORDS = 120
#: Comparisons of words for one file: the worst lines cost some 5 µs each, so at most about a second.
_MARK_WORK = 200_000
_ALIKE = 0.5

_WORDS = regex(r"\w+|\s+|[^\w\s]")
_SPECIAL = regex(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_STATUS = {"A": "added", "D": "deleted", "M": "changed", "T": "type changed"}
_MODES = {
    "120000": "symbolic link",
    "160000": "submodule",
    "100755": "executable file",
    "100644": "file",
}


@dataclass(frozen=True)
class FileEntry:
    """A changed file in the list. `name` is git's path (surrogates for odd bytes), `path` is what a page shows."""

    name: str
    path: str
    status: str
    additions: int | None
    deletions: int | None
    old_mode: str
    new_mode: str

    @property
    def binary(self) -> bool:
        """Whether git takes it for binary, so that it has no lines."""
        return self.additions is None

    @property
    def folder(self) -> str:
        """The part of the path before the last slash."""
        return self.path.rpartition("/")[0]

    @property
    def base(self) -> str:
        """The part of the path after the last slash."""
        return self.path.rpartition("/")[2]

    @property
    def path_html(self) -> SafeString:
        """The path, safe to show, with its special characters named."""
        return to_html(self.path)

    @property
    def base_html(self) -> SafeString:
        """The part after the last slash, safe to show."""
        return to_html(self.base)

    @property
    def kind(self) -> str:
        """What it is, when it is no plain file; the change of mode, when that changed."""
        old, new = _MODES.get(self.old_mode, ""), _MODES.get(self.new_mode, "")
        if old and new and old != new:
            return f"{old} → {new}"
        return (new or old) if (new or old) != "file" else ""


@dataclass(frozen=True)
class Line:
    """One line: `kind` is "add", "del", "same" or "note"; numbers count from 1; `html` is safe to show."""

    kind: str
    old: int | None
    new: int | None
    html: SafeString


@dataclass(frozen=True)
class Hunk:
    """Lines that stand together, with what git says of where they are and how many lines are left out before them."""

    section: str
    skipped: int
    lines: list[Line]


@dataclass(frozen=True)
class FileDiff:
    """A file with its hunks. `note` is a sentence when not everything, or nothing, of it is shown."""

    entry: FileEntry
    hunks: list[Hunk]
    note: str = ""


@dataclass(frozen=True)
class Diff:
    """Files of a change in order. `note` says what the bounds left out, empty when nothing."""

    files: list[FileDiff] = field(default_factory=list)
    note: str = ""


def listing(repository: Path, base: str, head: str) -> list[FileEntry]:
    """Every changed file with its counts, in git's order. One for each path: renames show as two."""
    counts = {entry.path: entry for entry in changes.counted(repository, base, head)}
    raw = git(
        ["diff", "--raw", "-z", "--no-abbrev", *DIFF_FLAGS, "--end-of-options", base, head],
        repository=repository,
        timeout=120,
    )
    entries = []
    tokens = iter(raw.split(b"\0"))
    for token in tokens:
        if not token.startswith(b":"):
            continue
        old_mode, new_mode, _, _, status = token[1:].decode("ascii", "replace").split(" ")
        name = next(tokens, b"").decode("utf-8", "surrogateescape")
        count = counts.get(name)
        entries.append(
            FileEntry(
                name=name,
                path=shown_path(name),
                status=_STATUS.get(status[:1], "changed"),
                additions=count.additions if count else 0,
                deletions=count.deletions if count else 0,
                old_mode=old_mode,
                new_mode=new_mode,
            )
        )
    return entries


def files(
    repository: Path,
    base: str,
    head: str,
    *,
    entries: Sequence[FileEntry] | None = None,
    context: int = CONTEXT,
) -> Diff:
    """The change as structured lines, within the bounds above.

    `entries` chooses files (from `listing`); `context` is the number of lines around each change. Raises `forges.errors`.
    """
    wanted = list(entries) if entries is not None else listing(repository, base, head)
    shown: list[FileEntry] = []
    left = lines = 0
    for entry in wanted:
        lines += min((entry.additions or 0) + (entry.deletions or 0), MAX_FILE_LINES)
        if len(shown) >= MAX_FILES or (lines > MAX_LINES and shown):
            left += 1
        else:
            shown.append(entry)
    note = f"{left} more files are not shown here: open them one by one." if left else ""
    patches = _patches(repository, base, head, shown, context)
    return Diff([_file(entry, patches.get(entry.name)) for entry in shown], note)


def _patches(
    repository: Path, base: str, head: str, entries: Sequence[FileEntry], context: int
) -> dict[str, PatchedFile | str]:
    """git's text of each file, parsed; a sentence for one that is too large or that cannot be read."""
    readable = [entry for entry in entries if not entry.binary]
    if not readable:
        return {}
    try:
        return _read(repository, base, head, readable, context)
    except TooLarge:
        pass
    found: dict[str, PatchedFile | str] = {}
    for entry in readable:
        try:
            found.update(_read(repository, base, head, [entry], context))
        except TooLarge:
            found[entry.name] = "This file's change is too large to be shown."
    return found


def _read(
    repository: Path, base: str, head: str, entries: Sequence[FileEntry], context: int
) -> dict[str, PatchedFile | str]:
    output = git(
        [
            "diff",
            f"--unified={max(0, min(context, FULL_CONTEXT))}",
            *DIFF_FLAGS,
            "--src-prefix=a/",
            "--dst-prefix=b/",
            "--end-of-options",
            base,
            head,
            "--",
            *(entry.name for entry in entries),
        ],
        repository=repository,
        limit=MAX_BYTES,
        timeout=120,
    )
    found: dict[str, PatchedFile | str] = {}
    # One file at a time, told apart by the order that git keeps: names in headers are quoted in ways of their own. A header
    # line can't be forged by content, whose lines all begin with a blank, a sign or a backslash.
    texts = output.decode("utf-8", "replace").split("\ndiff --git ")
    by_header = {_header(entry.name): entry.name for entry in entries}
    for text in texts:
        text = text.removeprefix("diff --git ")
        first = text.partition("\n")[0]
        name = by_header.get(first)
        if name is None:
            continue
        start = text.find("\n--- ")
        if start < 0:
            continue
        body = "--- a\n+++ b\n" + text[start + 1 :].split("\n", 2)[2]
        if not body.endswith("\n"):
            body += "\n"
        try:
            found[name] = PatchSet.from_string(body)[0]
        except (UnidiffParseError, IndexError):
            found[name] = "This file's change cannot be read as text."
    return found


def _header(name: str) -> str:
    """The first line of a file's patch after "diff --git ", as git writes it: both names, each C-quoted when it must be."""
    return f"{_quoted('a/' + name)} {_quoted('b/' + name)}"


_QUOTES = {7: "a", 8: "b", 9: "t", 10: "n", 11: "v", 12: "f", 13: "r", 34: '"', 92: "\\"}


def _quoted(name: str) -> str:
    """A name as git's core.quotePath=true writes it (quote.c)."""
    raw = name.encode("utf-8", "surrogateescape")
    if all(32 <= byte < 127 and byte not in (34, 92) for byte in raw):
        return name
    parts = [
        f"\\{_QUOTES[byte]}"
        if byte in _QUOTES
        else chr(byte)
        if 32 <= byte < 127
        else f"\\{byte:03o}"
        for byte in raw
    ]
    return '"' + "".join(parts) + '"'


def _file(entry: FileEntry, patch: PatchedFile | str | None) -> FileDiff:
    if entry.binary:
        return FileDiff(entry, [], "A binary file: its content is not shown.")
    if isinstance(patch, str):
        return FileDiff(entry, [], patch)
    if patch is None:
        kind = f" ({entry.kind})" if entry.kind else ""
        return FileDiff(entry, [], f"No line changes: an empty file, or its mode alone{kind}.")
    hunks, lines, end, note = [], 0, 1, ""
    marker = _Marker()
    for hunk in patch:
        room = MAX_FILE_LINES - lines
        if room <= 0:
            note = f"Only the first {MAX_FILE_LINES:,} lines of this file's change are shown."
            break
        shown = _lines(hunk, room, marker)
        if len(shown) < len(hunk):
            note = f"Only the first {MAX_FILE_LINES:,} lines of this file's change are shown."
        lines += len(shown)
        skipped = max(hunk.source_start - end, 0)
        end = hunk.source_start + hunk.source_length
        hunks.append(Hunk(hunk.section_header.strip()[:120], skipped, shown))
    return FileDiff(entry, hunks, note)


_KINDS = {"+": "add", "-": "del", " ": "same"}


def _lines(hunk: PatchHunk, room: int, marker: _Marker) -> list[Line]:
    """The lines of a hunk, at most `room`, with marks on the words that differ between a removed line and its successor."""
    found: list[Line] = []
    removed: list[tuple[int | None, str]] = []
    added: list[tuple[int | None, str]] = []

    def flush() -> None:
        marks_old, marks_new = marker.marks(
            [text for _, text in removed], [text for _, text in added]
        )
        found.extend(
            Line("del", number, None, to_html(text, marks))
            for (number, text), marks in zip(removed, marks_old, strict=True)
        )
        found.extend(
            Line("add", None, number, to_html(text, marks))
            for (number, text), marks in zip(added, marks_new, strict=True)
        )
        removed.clear()
        added.clear()

    for count, line in enumerate(hunk):
        if count >= room:
            break
        text = line.value.removesuffix("\n")
        kind = _KINDS.get(line.line_type)
        if kind == "del":
            if added:
                flush()
            removed.append((line.source_line_no, text))
        elif kind == "add":
            added.append((line.target_line_no, text))
        elif kind == "same":
            flush()
            found.append(Line("same", line.source_line_no, line.target_line_no, to_html(text)))
        else:
            flush()
            found.append(Line("note", None, None, to_html(text.lstrip("\\ ") or text)))
    flush()
    return found


Span = tuple[int, int]


class _Marker:
    """Marks words within a budget for a whole file: comparing lines made of the same words takes quadratic time and more."""

    def __init__(self) -> None:
        self._budget = _MARK_WORK

    def marks(
        self, removed: list[str], added: list[str]
    ) -> tuple[list[list[Span]], list[list[Span]]]:
        """For each removed and each added line of a block, the ranges that differ from the line it was paired with."""
        old: list[list[Span]] = [[] for _ in removed]
        new: list[list[Span]] = [[] for _ in added]
        if not removed or not added or len(removed) > _MARK_BLOCK or len(added) > _MARK_BLOCK:
            return old, new
        left = [_words(line) for line in removed]
        right = [_words(line) for line in added]
        alike = sorted(
            (
                (likeness, i, j)
                for i, before in enumerate(left)
                for j, after in enumerate(right)
                if (likeness := self._likeness(before, after)) > _ALIKE
            ),
            key=lambda entry: (-entry[0], entry[1], entry[2]),
        )
        pairs: list[tuple[int, int]] = []
        for _, i, j in alike:
            # The most alike first; a pair that would cross an earlier one, or use its line again, is none.
            if all((i < k and j < m) or (i > k and j > m) for k, m in pairs):
                pairs.append((i, j))
                old[i], new[j] = _differences(left[i], right[j])
        return old, new

    def _likeness(self, before: list[str], after: list[str]) -> float:
        """How much two lines have in common beside blanks, from 0 to 1; 0 once the budget is spent."""
        first = [word for word in before if not word.isspace()]
        second = [word for word in after if not word.isspace()]
        self._budget -= len(first) + len(second)
        if not first or not second or self._budget < 0:
            return 0
        matcher = SequenceMatcher(None, first, second, False)
        if matcher.quick_ratio() <= _ALIKE:
            return 0
        self._budget -= len(first) * len(second)
        return matcher.ratio() if self._budget >= 0 else 0


def _words(line: str) -> list[str]:
    """The words of a line, or none when it is too long to be worth it."""
    words = _WORDS.findall(line) if len(line) <= _MARK_CHARACTERS else []
    return words if len(words) <= _MARK_WORDS else []


def _differences(left: list[str], right: list[str]) -> tuple[list[Span], list[Span]]:
    old: list[Span] = []
    new: list[Span] = []
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, left, right, False).get_opcodes():
        if tag == "equal":
            continue
        for words, first, last, spans in ((left, i1, i2, old), (right, j1, j2, new)):
            begin = len("".join(words[:first]))
            end = begin + len("".join(words[first:last]))
            if end > begin:
                # Ranges with nothing but a blank between them read better as one.
                if spans and not "".join(words)[spans[-1][1] : begin].strip():
                    begin = spans.pop()[0]
                spans.append((begin, end))
    return old, new


def to_html(text: str, marks: Sequence[Span] = ()) -> SafeString:
    """Text of an agent as safe HTML: escaped, cut, special characters as named marks, `marks` inside <mark>."""
    more = len(text) - MAX_LINE_CHARACTERS
    parts = []
    position = 0
    for begin, end in marks:
        parts.append(_visible(text[position:begin]))
        parts.append(f"<mark>{_visible(text[begin:end])}</mark>")
        position = end
    parts.append(_visible(text[position : max(position, MAX_LINE_CHARACTERS)]))
    if more > 0:
        parts.append(f'<span class="diff-cut">… {more:,} more characters</span>')
    return mark_safe("".join(parts))  # noqa: S308 - each part is escaped above


def _visible(text: str) -> str:
    return "".join(_pieces(text))


def _pieces(text: str) -> Iterator[str]:
    position = 0
    for match in _SPECIAL.finditer(text):
        yield str(escape(text[position : match.start()]))
        yield _named(match[0])
        position = match.end()
    yield str(escape(text[position:]))


def _named(character: str) -> str:
    """A character that would not be seen, as a mark with its code point and name."""
    point = ord(character)
    name = unicodedata.name(character, "control character")
    if point < 0x20:
        sign = chr(0x2400 + point)
    elif point == 0x7F:
        sign = "\u2421"
    else:
        sign = f"U+{point:04X}"
    return f'<span class="diff-special" title="U+{point:04X} {escape(name.lower())}">{sign}</span>'
