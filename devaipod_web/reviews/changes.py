"""What lies between a base and a head, read with git: commits, paths, counts and the hash of the diff.

Everything is read from the run's repository, whose objects an agent made: names are bytes that may be anything, and every
list has a bound.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from devaipod_web.forges.errors import GitFailed
from devaipod_web.forges.git import DIFF_FLAGS, git
from devaipod_web.reviews.errors import NotReviewable

#: Commits of one review; more are no change that a person could read.
MAX_COMMITS = 500
#: Paths that the commits of one review may touch.
MAX_PATHS = 20_000
#: Bytes of the diff that are hashed; a larger one is refused.
MAX_DIFF_BYTES = 512 * 1024 * 1024
MODE_SYMLINK = "120000"
MODE_SUBMODULE = "160000"


@dataclass(frozen=True)
class Commit:
    """One commit that would leave. Texts are cut; `at` is the committer's time."""

    sha: str
    parents: tuple[str, ...]
    author: str
    email: str
    at: datetime
    subject: str
    body: str


@dataclass(frozen=True)
class Touched:
    """A path that a commit changes: its modes before and after ("000000" where it is not there) and the letter of git."""

    commit: str
    path: str
    old_mode: str
    new_mode: str
    status: str


@dataclass(frozen=True)
class Counted:
    """A path of the whole change with its added and removed lines; None for a binary file."""

    path: str
    additions: int | None
    deletions: int | None


def merge_base(repository: Path, base: str, head: str) -> str:
    """The one commit from which `head` left `base`'s history. Raises NotReviewable for none and for several."""
    try:
        found = (
            git(["merge-base", "--all", "--end-of-options", base, head], repository=repository)
            .decode()
            .split()
        )
    except GitFailed:
        found = []
    if not found:
        raise NotReviewable(
            "What the run pushed has no history in common with the commit that it started from.",
            next_step="Ask the agent to put its work on top of the base branch.",
        )
    if len(found) > 1:
        raise NotReviewable(
            f"What the run pushed has {len(found)} merge bases with its base, so it is not one change.",
            next_step="Ask the agent to put its work on top of the base branch, without merges.",
        )
    return found[0]


def digest(repository: Path, base: str, head: str) -> str:
    """SHA-256 (hexadecimal) of the full diff between two commits, binary files as their bytes."""
    hashed = hashlib.sha256()
    git(
        ["diff", "--text", *DIFF_FLAGS, "--end-of-options", base, head],
        repository=repository,
        sink=hashed.update,
        limit=MAX_DIFF_BYTES,
        timeout=120,
    )
    return hashed.hexdigest()


def commits(repository: Path, base: str, head: str) -> list[Commit]:
    """The commits that would leave, the oldest first. Raises NotReviewable above MAX_COMMITS."""
    listed = git(
        [
            "log",
            "-z",
            "--reverse",
            "--topo-order",
            "--no-show-signature",
            "--no-decorate",
            "--no-mailmap",
            f"--max-count={MAX_COMMITS + 1}",
            "--format=%H%x1f%P%x1f%an%x1f%ae%x1f%ct%x1f%B",
            "--end-of-options",
            f"{base}..{head}",
        ],
        repository=repository,
    )
    found = [_commit(entry) for entry in listed.split(b"\0") if entry]
    if len(found) > MAX_COMMITS:
        raise NotReviewable(
            f"The run pushed more than {MAX_COMMITS} commits.",
            next_step="Ask the agent to squash its work into fewer commits.",
        )
    return found


def _commit(entry: bytes) -> Commit:
    parts = entry.decode("utf-8", "replace").split("\x1f", 5)
    sha, parents, author, email, stamp, message = parts + [""] * (6 - len(parts))
    subject, _, body = message.strip().partition("\n")
    try:
        at = datetime.fromtimestamp(int(stamp), UTC)
    except (ValueError, OverflowError, OSError):
        at = datetime.fromtimestamp(0, UTC)
    return Commit(
        sha=sha,
        parents=tuple(parents.split()),
        author=author[:200],
        email=email[:200],
        at=at,
        subject=subject[:500],
        body=body.strip()[:10_000],
    )


def touched(repository: Path, shas: Iterable[str]) -> list[Touched]:
    """Every path that these commits change, against each of their parents. Raises NotReviewable above MAX_PATHS."""
    stdin = "".join(f"{sha}\n" for sha in shas).encode()
    if not stdin:
        return []
    output = git(
        [
            "diff-tree",
            "--stdin",
            "-r",
            "-m",
            "-z",
            "--raw",
            "--root",
            "--no-renames",
            "--no-abbrev",
            "--no-ext-diff",
        ],
        repository=repository,
        stdin=stdin,
        timeout=120,
    )
    found: list[Touched] = []
    commit = ""
    tokens = iter(output.split(b"\0"))
    for token in tokens:
        # With -m a merge's line is "<sha> (from <parent>)"; entries start with a colon, and a path never stands alone here.
        if not token.startswith(b":"):
            commit = token.decode("ascii", "replace").strip().split(" ")[0] or commit
            continue
        old_mode, new_mode, _, _, status = token[1:].decode("ascii", "replace").split(" ")
        path = next(tokens, b"").decode("utf-8", "surrogateescape")
        found.append(Touched(commit, path, old_mode, new_mode, status))
        if len(found) > MAX_PATHS:
            raise NotReviewable(
                f"The commits change more than {MAX_PATHS} paths.",
                next_step="Ask the agent for a smaller change; generated files rarely belong in one.",
            )
    return found


def counted(repository: Path, base: str, head: str) -> list[Counted]:
    """The paths of the whole change with their line counts."""
    output = git(
        ["diff", "--numstat", "-z", *DIFF_FLAGS, "--end-of-options", base, head],
        repository=repository,
        timeout=120,
    )
    found = []
    for entry in output.split(b"\0"):
        if not entry:
            continue
        added, removed, path = entry.split(b"\t", 2)
        found.append(
            Counted(
                path=path.decode("utf-8", "surrogateescape"),
                additions=None if added == b"-" else int(added),
                deletions=None if removed == b"-" else int(removed),
            )
        )
    return found
