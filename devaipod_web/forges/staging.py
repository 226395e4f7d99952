"""The embedded staging forge: a mirror a project, a repository a run.

    staging/<project key>/mirror.git            heads and tags of the upstream, never anything else
    staging/<project key>/runs/<run key>.git    what one run pushes to; reads the mirror's objects as its alternate

The mirror is never garbage-collected or repacked with pruning: runs borrow its objects. Projects share nothing. All functions
block (git, network, locks): call them in a thread, outside every transaction.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from devaipod_web import home
from devaipod_web.forges import guard
from devaipod_web.forges.errors import BranchMissing, Busy, ForgeError, GitFailed, TooLarge
from devaipod_web.forges.git import REMOTE_SECONDS, commit_at, git
from devaipod_web.projects.models import Project
from devaipod_web.runs.models import Run

#: Bytes of one pack that an upstream may send.
MAX_MIRROR_BYTES = 4 * 1024**3
#: Seconds that one waits for another who is fetching the same mirror.
LOCK_SECONDS = REMOTE_SECONDS
#: Seconds after which a half-written pack of a killed fetch is removed.
_LEFTOVER_SECONDS = 3600

_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_FILE_MODES = {"100644", "100755"}

#: Objects are checked on arrival. The three that old, honest repositories have are let pass, as the large forges do.
_FSCK = [
    ("transfer.fsckObjects", "true"),
    ("fetch.fsckObjects", "true"),
    ("fetch.fsck.zeroPaddedFilemode", "ignore"),
    ("fetch.fsck.badTimezone", "ignore"),
    ("fetch.fsck.missingSpaceBeforeDate", "ignore"),
]


def ensure_mirror(project: Project) -> None:
    """Make or refresh the mirror of a project's upstream: heads and tags, pruned, objects checked.

    Safe to repeat and to call at once from several places (they wait for each other). Raises `forges.errors`.
    """
    target = guard.open_repository(project.upstream_url)
    mirror = home.mirror_repository(project.key)
    mirror.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with locked(mirror.with_name("mirror.lock"), seconds=LOCK_SECONDS, what="the mirror"):
        _init(mirror)
        _remove_leftovers(mirror)
        git(
            [
                "fetch",
                "--quiet",
                "--prune",
                "--force",
                "--no-tags",
                "--no-write-fetch-head",
                "--no-auto-maintenance",
                "--no-recurse-submodules",
                "--end-of-options",
                target.url,
                "+refs/heads/*:refs/heads/*",
                "+refs/tags/*:refs/tags/*",
            ],
            repository=mirror,
            timeout=REMOTE_SECONDS,
            config=[*_FSCK, *target.git_config],
            env=target.git_env,
            file_bytes=MAX_MIRROR_BYTES,
            what=project.upstream_url,
        )


def resolve(project: Project, branch: str) -> str:
    """The commit of an upstream branch, from the mirror. Raises BranchMissing, naming branches that are there."""
    mirror = home.mirror_repository(project.key)
    commit = commit_at(mirror, f"refs/heads/{branch}") if valid_branch(branch) else None
    if commit is not None:
        return commit
    names = branches(project)
    if not names:
        raise BranchMissing(
            f"{project.upstream_url} has no branch at all: it is an empty repository.",
            next_step="Push a first commit to it.",
        )
    raise BranchMissing(
        f"{project.upstream_url} has no branch {branch!r}.",
        next_step=f"Set the project's branch to one that exists: {', '.join(names[:8])}.",
    )


def branches(project: Project) -> list[str]:
    """The names of the upstream's branches in the mirror, the latest first, at most 200."""
    listed = git(
        [
            "for-each-ref",
            "--sort=-committerdate",
            "--count=200",
            "--format=%(refname:lstrip=2)",
            "refs/heads/",
        ],
        repository=home.mirror_repository(project.key),
    )
    return listed.decode("utf-8", "replace").splitlines()


def ensure_run_repository(project: Project, run: Run) -> Path:
    """Make the repository that a run clones from and pushes to, with HEAD and the base branch at `run.base_commit`.

    Safe to repeat: what the run pushed stays. Raises BranchMissing when the base commit is not in the mirror.
    """
    repository = home.run_repository(project.key, run.key)
    mirror = home.mirror_repository(project.key)
    branch = project.upstream_branch
    if branch == "agent" or branch.startswith("agent/") or not valid_branch(branch):
        raise BranchMissing(
            f"A project's branch cannot be called {branch!r}: names below agent/ belong to runs.",
            next_step="Set another branch in the project's settings.",
        )
    repository.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with locked(repository.with_suffix(".lock"), seconds=60, what="the run's repository"):
        _init(repository)
        alternates = repository / "objects" / "info" / "alternates"
        # Relative, so that a moved DEVAIPOD_HOME still works.
        wanted = os.path.relpath(mirror / "objects", repository / "objects") + "\n"
        if not alternates.exists() or alternates.read_text() != wanted:
            draft = alternates.with_suffix(".new")
            draft.write_text(wanted)
            draft.replace(alternates)
        if not _COMMIT.fullmatch(run.base_commit) or not commit_at(repository, run.base_commit):
            raise BranchMissing(
                f"The run's base commit {run.base_commit[:12] or '(none)'} is not in the mirror.",
                next_step="Launch the run again: the upstream may have been replaced.",
            )
        git(
            ["update-ref", "--no-deref", f"refs/heads/{branch}", run.base_commit],
            repository=repository,
        )
        git(["symbolic-ref", "HEAD", f"refs/heads/{branch}"], repository=repository)
    return repository


def read_file(project: Project, commit: str, path: str, *, limit: int) -> bytes | None:
    """A plain file of the mirror at a commit, or None when it is not there (or is a link or a folder).

    Raises TooLarge above `limit` bytes.
    """
    mirror = home.mirror_repository(project.key)
    parts = path.split("/")
    if not _COMMIT.fullmatch(commit) or "\0" in path or {"", ".", ".."} & set(parts):
        return None
    listed = git(
        ["ls-tree", "-z", "-l", "--full-tree", commit, "--", path], repository=mirror
    ).decode("utf-8", "surrogateescape")
    for entry in listed.split("\0"):
        facts, _, name = entry.partition("\t")
        if name != path:
            continue
        mode, kind, blob, size = facts.split()
        if kind != "blob" or mode not in _FILE_MODES:
            return None
        if int(size) > limit:
            raise TooLarge(
                f"{path} has {size} bytes; at most {limit} are read.",
                next_step="Make the file smaller.",
            )
        return git(["cat-file", "blob", blob], repository=mirror, limit=limit)
    return None


def valid_branch(name: str) -> bool:
    """Whether git takes this as a branch's name (no dash first, no `..`, no control characters, no `@{`)."""
    if not name or name.startswith("-") or len(name.encode()) > 200 or name == "HEAD":
        return False
    try:
        git(["check-ref-format", f"refs/heads/{name}"], repository=None)
    except (ForgeError, ValueError):
        return False
    return True


@contextmanager
def locked(path: Path, *, seconds: float, what: str) -> Iterator[None]:
    """Hold an flock on `path` (it dies with the process); waits at most `seconds`, then raises Busy."""
    deadline = time.monotonic() + seconds
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if time.monotonic() >= deadline:
                raise Busy(
                    f"Another operation is using {what}.", next_step="Try again in a moment."
                )
            time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def _init(repository: Path) -> None:
    """Make a bare repository without hooks; one that is there is left as it is."""
    if (repository / "HEAD").exists() and (repository / "objects").is_dir():
        return
    try:
        git(
            [
                "init",
                "--quiet",
                "--bare",
                "--template=",
                "--initial-branch=main",
                "--end-of-options",
                str(repository),
            ],
            repository=None,
        )
    except GitFailed as error:
        raise GitFailed(
            f"The staging repository could not be made: {error.words}",
            next_step="Check the space and the owner of DEVAIPOD_HOME.",
        ) from error
    # Whoever runs git there by hand must not prune what runs borrow.
    for key, value in (
        ("gc.auto", "0"),
        ("gc.pruneExpire", "never"),
        ("core.hooksPath", os.devnull),
    ):
        git(["config", "--file", str(repository / "config"), key, value], repository=None)
    (repository / "objects" / "info").mkdir(exist_ok=True)


def _remove_leftovers(repository: Path) -> None:
    """Remove half-written packs and stale ref locks of a fetch that was killed. Must run under the lock."""
    for draft in (repository / "objects" / "pack").glob("tmp_*"):
        with suppress(OSError):
            draft.unlink()
    now = time.time()
    for lock in [*repository.glob("*.lock"), *repository.glob("refs/**/*.lock")]:
        with suppress(OSError):
            if now - lock.stat().st_mtime > _LEFTOVER_SECONDS:
                lock.unlink()
