"""What in a change can do harm beyond its own lines: found in every commit that would leave, not in the last state alone.

A *tick* is a risk that a person must confirm on its own before the change is promoted; a *mark* is only shown.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TypedDict

from devaipod_web.forges.git import DIFF_FLAGS, git
from devaipod_web.reviews.changes import (
    MAX_DIFF_BYTES,
    MODE_SUBMODULE,
    MODE_SYMLINK,
    Commit,
    Counted,
    Touched,
)

#: Files that run, or decide what runs, on the production forge or its build machines. Matched without case, as some
#: file systems do.
CI_FILES = (
    ".github/workflows/*",
    ".github/actions/*",
    ".github/dependabot.y*ml",
    ".gitlab-ci.y*ml",
    ".gitlab/ci/*",
    ".forgejo/*",
    ".gitea/*",
    ".circleci/*",
    ".woodpecker/*",
    ".woodpecker.y*ml",
    ".drone.y*ml",
    ".buildkite/*",
    ".travis.y*ml",
    ".ci/*",
    ".tekton/*",
    ".teamcity/*",
    "jenkinsfile*",
    "azure-pipelines*.y*ml",
    "bitbucket-pipelines.y*ml",
    "appveyor.y*ml",
    "cloudbuild.y*ml",
    ".pre-commit-config.y*ml",
    ".husky/*",
)
#: Files that decide who must approve, or how git itself treats the repository.
OWNER_FILES = ("codeowners", ".github/codeowners", "docs/codeowners", ".gitlab/codeowners")
GIT_FILES = (".gitattributes", ".gitmodules", ".lfsconfig", ".mailmap")
DEPENDENCY_FILES = (
    "pyproject.toml",
    "requirements*.txt",
    "setup.py",
    "setup.cfg",
    "pipfile*",
    "poetry.lock",
    "uv.lock",
    "package.json",
    "package-lock.json",
    "yarn.lock",
    "pnpm-lock.yaml",
    "go.mod",
    "go.sum",
    "cargo.toml",
    "cargo.lock",
    "gemfile*",
    "composer.json",
    "composer.lock",
    "pom.xml",
    "build.gradle*",
    "dockerfile*",
    "containerfile*",
)

#: Lines of one file above which it is named as very large.
LARGE_LINES = 2_000
#: Entries with one code above which they become one entry that names the first few.
MAX_PER_CODE = 12

#: Characters that change the order or hide: bidirectional controls, zero-width ones, tags (Trojan Source, CVE-2021-42574).
_HIDDEN = re.compile(
    "[\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\u00ad\U000e0000-\U000e007f]"
)
_CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]")


class Risk(TypedDict):
    """One finding as it is kept on the review. `id` is what a tick names; `tick` is False for a mark."""

    id: str
    code: str
    path: str
    text: str
    tick: bool


_TEXTS = {
    "ci": "Runs on build machines of the production forge",
    "owners": "Decides who must approve changes",
    "git": "Changes how git treats files",
    "submodule": "Points at another repository (submodule)",
    "symlink": "Is a symbolic link",
    "bidi": "Contains characters that hide text or change its order",
    "control": "Contains control characters",
    "name": "Has a name with hidden or control characters",
    "message": "A commit's message or author has hidden or control characters",
    "binary": "Is a binary file: its content cannot be read here",
    "large": "Is a very large change",
    "merge": "Is a merge commit: the diff shows the result, not each side",
    "executable": "Becomes executable",
    "dependency": "Changes what is installed",
}
_MARKS = {"dependency", "executable"}


def find(
    repository: Path,
    base: str,
    head: str,
    *,
    commits: Sequence[Commit],
    touched: Sequence[Touched],
    counted: Sequence[Counted],
) -> list[Risk]:
    """The risks of a change, those that need a tick first. Reads the diff of each commit once, for hidden characters."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for entry in touched:
        for code in _of_path(entry):
            found[code][shown_path(entry.path)] = None
    for count in counted:
        if count.additions is None:
            found["binary"][shown_path(count.path)] = None
        elif count.additions + (count.deletions or 0) > LARGE_LINES:
            found["large"][shown_path(count.path)] = None
    for commit in commits:
        texts = (commit.author, commit.email, commit.subject, commit.body)
        if any(_HIDDEN.search(text) or _CONTROL.search(text) for text in texts):
            found["message"][commit.sha[:12]] = None
        if len(commit.parents) > 1:
            found["merge"][commit.sha[:12]] = None
    scanned = _scan(repository, base, head)
    found["bidi"] = dict.fromkeys(sorted(scanned.hidden))
    found["control"] = dict.fromkeys(sorted(scanned.control))
    risks = [risk for code in _TEXTS for risk in _entries(code, list(found.get(code, ())))]
    return sorted(risks, key=lambda risk: not risk["tick"])


def _of_path(entry: Touched) -> Iterable[str]:
    """The codes of one changed path."""
    lower = entry.path.lower()
    name = PurePosixPath(lower).name
    if any(fnmatchcase(lower, pattern) for pattern in CI_FILES) or fnmatchcase(
        name, "jenkinsfile*"
    ):
        yield "ci"
    if lower in OWNER_FILES:
        yield "owners"
    if name in GIT_FILES:
        yield "git"
    if MODE_SUBMODULE in (entry.new_mode, entry.old_mode):
        yield "submodule"
    if entry.new_mode == MODE_SYMLINK:
        yield "symlink"
    if entry.new_mode == "100755" and entry.old_mode != "100755":
        yield "executable"
    if any(fnmatchcase(name, pattern) for pattern in DEPENDENCY_FILES):
        yield "dependency"
    if _HIDDEN.search(entry.path) or _CONTROL.search(entry.path) or "\n" in entry.path:
        yield "name"


def _entries(code: str, paths: list[str]) -> list[Risk]:
    """The findings of one code: one a path, or one for all when they are many (the id then covers all their names)."""
    if len(paths) <= MAX_PER_CODE:
        return [_risk(code, path, path, _TEXTS[code]) for path in paths]
    text = f"{_TEXTS[code]}: {len(paths)} of them, first {', '.join(paths[:3])}"
    return [_risk(code, "", "\0".join(paths), text[:400])]


def _risk(code: str, path: str, covers: str, text: str) -> Risk:
    name = hashlib.sha256(f"{code}\0{covers}".encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return Risk(id=name, code=code, path=path, text=text, tick=code not in _MARKS)


def shown_path(path: str) -> str:
    """A path as text that a database and a page can hold: bytes that are not UTF-8 and NULs become visible marks."""
    text = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return text.replace("\x00", "\\x00")[:400]


def _scan(repository: Path, base: str, head: str) -> _Scanner:
    """Read the diff once and return which text files gain hidden or control characters."""
    scanner = _Scanner()
    git(
        ["diff", "--unified=0", *DIFF_FLAGS, "--end-of-options", base, head],
        repository=repository,
        sink=scanner.feed,
        limit=MAX_DIFF_BYTES,
        timeout=120,
    )
    scanner.feed(b"\n")
    return scanner


class _Scanner:
    """Reads a diff as it streams and remembers the paths whose added lines have such characters."""

    #: Bytes that none of the searched characters can do without: controls, or those of a longer sequence.
    _MAYBE = re.compile(rb"[\x00-\x08\x0b\x0e-\x1f\x7f-\xff]")
    _LONGEST = 1024 * 1024

    def __init__(self) -> None:
        self.hidden: set[str] = set()
        self.control: set[str] = set()
        self._rest = b""
        self._path = ""
        self._in_hunk = False

    def feed(self, piece: bytes) -> None:
        """Take the next piece of the diff."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > self._LONGEST:
            # A very long line is searched in parts; what is kept back (its sign and the last bytes) joins them.
            lines.append(self._rest)
            self._rest = self._rest[:1] + self._rest[-4:]
        for line in lines:
            self._line(line)

    def _line(self, line: bytes) -> None:
        if line.startswith(b"diff --git "):
            self._in_hunk = False
        elif line.startswith(b"@@ "):
            self._in_hunk = True
        elif not self._in_hunk and line.startswith(b"+++ "):
            self._path = shown_path(unquote(line[4:]).removeprefix("b/"))
        elif self._in_hunk and line.startswith(b"+") and self._MAYBE.search(line):
            text = line[1:].removesuffix(b"\r").decode("utf-8", "replace")
            if _HIDDEN.search(text):
                self.hidden.add(self._path)
            if _CONTROL.search(text):
                self.control.add(self._path)


_ESCAPES = {
    "a": 7,
    "b": 8,
    "t": 9,
    "n": 10,
    "v": 11,
    "f": 12,
    "r": 13,
    '"': 34,
    "\\": 92,
}


def unquote(name: bytes) -> str:
    """A path as git writes it in a diff's header: C-quoted when it has unusual bytes, with a tab after it when it has blanks."""
    name = name.rstrip(b"\t\r")
    if not (name.startswith(b'"') and name.endswith(b'"') and len(name) >= 2):
        return name.decode("utf-8", "surrogateescape")
    text, out, index = name[1:-1].decode("latin-1"), bytearray(), 0
    while index < len(text):
        if text[index] != "\\":
            out += text[index].encode("latin-1")
            index += 1
        elif text[index + 1 : index + 4].isdigit():
            out.append(int(text[index + 1 : index + 4], 8) & 0xFF)
            index += 4
        else:
            out.append(_ESCAPES.get(text[index + 1 : index + 2], 63))
            index += 2
    return out.decode("utf-8", "surrogateescape")
