"""The workspace: cloned once, and what an agent left in it staged without running anything of it.

The workspace's own `.git` is hostile from the moment an agent has had it: a plain `add`, `commit` or `push` there ran its hooks,
fsmonitor and filters, staged files from outside through `core.worktree`, and was redirected by `pushInsteadOf`. So the
sidecar has a bare repository of its own, in a folder that only it mounts. It takes the agent's commits by a fetch whose
serving side runs with our configuration alone, snapshots uncommitted work with its own GIT_DIR and index, and pushes to an
explicit address.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from pods.sidecar.gitrun import GitFailed, git
from pods.sidecar.protocol import RunConfig

CLONE_SECONDS = 600
PUSH_SECONDS = 600
FETCH_SECONDS = 300
SNAPSHOT_SECONDS = 300
MAX_BRANCHES = 20
SNAPSHOT_MESSAGE = "Work not committed by the agent (snapshot)"
FILE_ONLY = {"protocol.file.allow": "always"}
HTTP_ONLY = {"protocol.http.allow": "always"}
OBJECT_NAME_LENGTHS = (40, 64)
GITLINK_MODE = b"160000 "


@dataclass(frozen=True)
class Staged:
    """What a harvest found and pushed. `notes` are words worth a warning."""

    head: str
    commits: int
    snapshot: bool
    pushed: bool
    notes: tuple[str, ...] = ()


class Workspace:
    """One run's workspace and the sidecar's own repository beside it."""

    def __init__(
        self,
        config: RunConfig,
        *,
        folder: Path,
        own: Path,
        remote: str,
        secrets: tuple[Path, ...] = (),
    ) -> None:
        self.config = config
        self.secrets = secrets
        self.folder = folder
        self.own = own
        self.remote = remote
        self.branch = f"refs/heads/{config['branch']}"

    async def clone(self, *, from_staged: bool = False) -> str:
        """Put the base commit onto the run's branch in the empty workspace and return the commit. Raises GitFailed.

        `from_staged`: what an earlier attempt staged instead, where it has staged anything.
        `git init` and a fetch rather than `git clone`: the folder is a mount point and may hold the remains of a clone that was
        killed, which go first.
        """
        config = self.config
        self._empty()
        at = self.folder
        branch = config["branch"]
        await git("init", "--quiet", f"--initial-branch={branch}", "--template=", ".", cwd=at)
        await git("remote", "add", "origin", self.remote, cwd=at)
        await git(
            "fetch",
            "--quiet",
            "--no-recurse-submodules",
            "--end-of-options",
            "origin",
            cwd=self.folder,
            config=HTTP_ONLY,
            seconds=CLONE_SECONDS,
        )
        base = config["base"]
        if from_staged:
            base = await self._staged() or base
        await git("reset", "--quiet", "--hard", base, cwd=self.folder, seconds=CLONE_SECONDS)
        for key, value in (
            ("user.name", config["author_name"]),
            ("user.email", config["author_email"]),
            ("push.default", "current"),
            ("push.autoSetupRemote", "true"),
            ("gc.auto", "0"),
        ):
            await git("config", key, value, cwd=at)
        return (await git("rev-parse", "HEAD", cwd=at)).decode().strip()

    async def _staged(self) -> str:
        """The commit of the run's branch at the staging forge; empty where nothing was staged."""
        branch = f"refs/remotes/origin/{self.config['branch']}"
        found = await git(
            "for-each-ref", "--format=%(objectname) %(refname)", branch, cwd=self.folder
        )
        rows = (line.partition(" ") for line in found.decode().splitlines())
        return next((commit for commit, _, name in rows if name == branch), "")

    def _empty(self) -> None:
        for path in self.folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    # --- staging --------------------------------------------------------------------------------------------

    async def stage(self) -> Staged:
        """Bring the agent's commits and what it has not committed to the staging forge. Raises GitFailed."""
        await self._prepare_own()
        notes: list[str] = []
        fetched = await self._fetch_commits(notes)
        head = await self._choose(fetched)
        snapshot = await self._snapshot(head, notes)
        tip = snapshot or head
        base = self.config["base"]
        commits = await self._count(f"{base}..{tip}")
        pushed = False
        if tip != base:
            pushed = await self._push(tip, self.branch)
            await self._push_others(fetched, tip)
        return Staged(
            head=tip, commits=commits, snapshot=bool(snapshot), pushed=pushed, notes=tuple(notes)
        )

    async def _prepare_own(self) -> None:
        """The bare repository with the base commit in it; made again when a crash left half of it."""
        if not (self.own / "ready").exists():
            shutil.rmtree(self.own, ignore_errors=True)
            self.own.mkdir(parents=True)
            await git("init", "--quiet", "--bare", "--template=", ".", cwd=self.own)
            await self._fetch_base()
            (self.own / "ready").touch()

    async def _fetch_base(self) -> None:
        await git(
            "fetch",
            "--quiet",
            "--no-tags",
            "--end-of-options",
            self.remote,
            "+refs/heads/*:refs/upstream/*",
            cwd=self.own,
            config=HTTP_ONLY,
            seconds=CLONE_SECONDS,
        )

    async def _fetch_commits(self, notes: list[str]) -> dict[str, str]:
        """Fetch the workspace's branches and HEAD into `refs/taken/*`; returns {name: commit}.

        `upload-pack` runs in the workspace's repository with our environment: no hook, no configured program. A
        `.git` that is a file, a link, or has alternates could lend objects of places that the workspace does not hold:
        such a repository is not read, and only the snapshot is taken.
        """
        if not self._repository_is_plain():
            notes.append(
                "The workspace's git repository was not read: its .git is no folder of its own, or borrows objects."
            )
            return {}
        gone = "".join(f"delete {name}\n" for name in await self._refs("refs/taken/"))
        await git("update-ref", "--stdin", cwd=self.own, data=gone.encode())
        try:
            await git(
                "fetch",
                "--quiet",
                "--no-tags",
                "--no-write-fetch-head",
                "--no-recurse-submodules",
                "--no-auto-maintenance",
                "--end-of-options",
                str(self.folder / ".git"),
                "+refs/heads/*:refs/taken/heads/*",
                "+HEAD:refs/taken/HEAD",
                cwd=self.own,
                config={**FILE_ONLY, "fetch.fsckObjects": "true"},
                seconds=FETCH_SECONDS,
            )
        except GitFailed:
            # A broken HEAD or an object that fsck refuses: take the run's own branch alone, if that can be had.
            with contextlib.suppress(GitFailed):
                await git(
                    "fetch",
                    "--quiet",
                    "--no-tags",
                    "--no-write-fetch-head",
                    "--end-of-options",
                    str(self.folder / ".git"),
                    f"+{self.branch}:refs/taken/heads/{self.config['branch']}",
                    cwd=self.own,
                    config={**FILE_ONLY, "fetch.fsckObjects": "true"},
                    seconds=FETCH_SECONDS,
                )
        found = await self._refs("refs/taken/")
        return {name.removeprefix("refs/taken/"): commit for name, commit in found.items()}

    def _repository_is_plain(self) -> bool:
        """Whether `.git` is a folder of the workspace itself with objects of its own."""
        at = self.folder / ".git"
        for path, kind in (
            (at, stat.S_ISDIR),
            (at / "objects", stat.S_ISDIR),
            (at / "refs", stat.S_ISDIR),
        ):
            try:
                if not kind(path.lstat().st_mode):
                    return False
            except OSError:
                return False
        borrowed = (
            "objects/info/alternates",
            "objects/info/http-alternates",
            "commondir",
            "gitdir",
        )
        if any(os.path.lexists(at / name) for name in borrowed):
            return False
        return not _has_links(at)

    async def _refs(self, prefix: str) -> dict[str, str]:
        """{name: commit} of our own repository."""
        out = await git("for-each-ref", "--format=%(objectname) %(refname)", prefix, cwd=self.own)
        rows = (line.split(" ", 1) for line in out.decode("utf-8", "replace").splitlines())
        return {row[1]: row[0] for row in rows}

    async def _choose(self, fetched: dict[str, str]) -> str:
        """The commit that the work stands on: HEAD, else the run's branch, when it comes from the base; else HEAD as it is."""
        base = self.config["base"]
        candidates = [fetched.get("HEAD", ""), fetched.get(f"heads/{self.config['branch']}", "")]
        present = [commit for commit in candidates if commit]
        for commit in present:
            if await self._descends(commit, base):
                return commit
        if present:
            return present[0]
        # Nothing could be read: what is staged already is what the files are compared with.
        there = await self._remote_head(self.branch)
        return there if there and await self._fetch_remote(there) else base

    async def _descends(self, commit: str, base: str) -> bool:
        try:
            await git("merge-base", "--is-ancestor", base, commit, cwd=self.own)
        except GitFailed:
            return False
        return True

    async def _snapshot(self, head: str, notes: list[str]) -> str:
        """Commit what lies in the workspace on top of `head` when it differs, and return the commit or an empty string.

        Plumbing alone: `git add` and `git status` run `git status` inside a tracked submodule, and with it whatever the
        submodule's configuration names.
        """
        tree = await self._tree(head, notes)
        if not tree:
            return ""
        there = await self._remote_head(self.branch)
        if there and await self._has(there):
            same = await git("rev-parse", f"{there}^{{tree}}", f"{there}^@", cwd=self.own)
            if same.decode().split() == [tree, head]:
                return there  # nothing has changed since the last snapshot
        who = {
            f"GIT_{role}_{part}": self.config[f"author_{part.lower()}"]  # type: ignore[literal-required]
            for role in ("AUTHOR", "COMMITTER")
            for part in ("NAME", "EMAIL")
        }
        commit = await git(
            "commit-tree", tree, "-p", head, "-m", SNAPSHOT_MESSAGE, cwd=self.own, env=who
        )
        return commit.decode().strip()

    async def _tree(self, head: str, notes: list[str]) -> str:
        """The tree of the workspace's files on top of `head`, or an empty string when that is `head`'s own."""
        index = self.own / "snapshot.index"
        _remove(self.own / "snapshot.index.lock")  # of a harvest that was killed
        env = {
            "GIT_DIR": str(self.own),
            # The mount point itself, never what a configuration says.
            "GIT_WORK_TREE": str(self.folder),
            "GIT_INDEX_FILE": str(index),
            "GIT_LITERAL_PATHSPECS": "1",
        }

        async def plumb(*words: str, data: bytes | None = None) -> bytes:
            return await git(
                *words, cwd=self.folder, env=env, config={"core.bare": "false"}, data=data,
                seconds=SNAPSHOT_SECONDS,
            )  # fmt: skip

        try:
            # What is unchanged since the last turn keeps its times in the index and is not hashed again.
            await plumb("read-tree", "-m", head)
        except GitFailed:
            _remove(index)
            await plumb("read-tree", head)
        with contextlib.suppress(GitFailed):  # it ends with 1 when something has changed
            await plumb("update-index", "-q", "--refresh")
        found = await plumb("ls-files", "-z", "-o", "-m", "-d", "--exclude-standard")
        staged = await plumb("ls-files", "-z", "-s")
        links = {
            entry.partition(b"\t")[2]
            for entry in staged.split(b"\0")
            if entry.startswith(GITLINK_MODE)
        }
        paths, nested = _plain(self.folder, set(found.split(b"\0")), links)
        if nested:
            names = ", ".join(os.fsdecode(name) for name in sorted(nested)[:5])
            notes.append(f"Repositories inside the workspace are not staged: {names}")
        if not paths:
            return ""
        listed = b"".join(path + b"\0" for path in sorted(paths))
        await plumb("update-index", "--add", "--remove", "-z", "--stdin", data=listed)
        tree = (await plumb("write-tree")).decode().strip()
        before = (await git("rev-parse", f"{head}^{{tree}}", cwd=self.own)).decode().strip()
        if tree == before:
            return ""
        await self._hold_back_tokens(tree, index)
        return tree

    async def _hold_back_tokens(self, tree: str, index: Path) -> None:
        """Nothing of ours may leave: a folder swapped for a link while git reads could show it our own mounts."""
        if not self.secrets:
            return
        words = [word for path in self.secrets for word in ("-f", str(path))]
        try:
            await git(
                "grep", "-q", "-a", "-F", "--no-textconv", *words, tree,
                cwd=self.own, seconds=SNAPSHOT_SECONDS,
            )  # fmt: skip
        except GitFailed as failed:
            if failed.code == 1:
                return
            raise
        _remove(index)
        raise GitFailed("snapshot", "a file of the workspace holds the run's token")

    async def _count(self, span: str) -> int:
        with contextlib.suppress(GitFailed, ValueError):
            return int(await git("rev-list", "--count", span, cwd=self.own))
        return 0

    async def _push(self, commit: str, ref: str) -> bool:
        """Push a commit to a ref; where an earlier head would be lost, keep it under a name of its own first."""
        there = await self._remote_head(ref)
        if there == commit:
            return True
        refspecs = [f"{commit}:{ref}"]
        if there and not await self._has_and_descends(commit, there):
            refspecs = [f"+{commit}:{ref}"]
            await self._keep(there, ref)
        await git(
            "push",
            "--quiet",
            "--no-verify",
            "--end-of-options",
            self.remote,
            *refspecs,
            cwd=self.own,
            config=HTTP_ONLY,
            seconds=PUSH_SECONDS,
        )
        return True

    async def _remote_head(self, ref: str) -> str:
        out = await git(
            "ls-remote", "--end-of-options", self.remote, ref, cwd=self.own, config=HTTP_ONLY
        )
        first = out.decode("utf-8", "replace").split(None, 1)
        return first[0] if first and len(first[0]) in OBJECT_NAME_LENGTHS else ""

    async def _has_and_descends(self, commit: str, there: str) -> bool:
        with contextlib.suppress(GitFailed):
            await git("cat-file", "-e", there, cwd=self.own)
            return await self._descends(commit, there)
        return False

    async def _has(self, commit: str) -> bool:
        with contextlib.suppress(GitFailed):
            await git("cat-file", "-e", f"{commit}^{{commit}}", cwd=self.own)
            return True
        return False

    async def _fetch_remote(self, commit: str) -> bool:
        """Whether a commit of the forge is here, fetched if it was not."""
        if not await self._has(commit):
            await self._fetch_base()
        return await self._has(commit)

    async def _keep(self, commit: str, ref: str) -> None:
        """Work on a branch is never lost: the head that is about to be replaced gets a name of its own."""
        await git(
            "fetch",
            "--quiet",
            "--no-tags",
            "--end-of-options",
            self.remote,
            f"+{ref}:refs/kept/{commit}",
            cwd=self.own,
            config=HTTP_ONLY,
            seconds=FETCH_SECONDS,
        )
        name = f"refs/heads/agent/{self.config['run']}/kept-{commit[:12]}"
        await git(
            "push",
            "--quiet",
            "--end-of-options",
            self.remote,
            f"+{commit}:{name}",
            cwd=self.own,
            config=HTTP_ONLY,
            seconds=PUSH_SECONDS,
        )

    async def _push_others(self, fetched: dict[str, str], tip: str) -> None:
        """Other branches of the agent's with commits of their own go beside the run's branch, at most MAX_BRANCHES."""
        others = {
            name.removeprefix("heads/"): commit
            for name, commit in fetched.items()
            if name.startswith("heads/") and name != f"heads/{self.config['branch']}"
        }
        pushed = 0
        for name, commit in sorted(others.items()):
            if pushed >= MAX_BRANCHES or await self._descends(tip, commit):
                continue
            with contextlib.suppress(GitFailed):
                await self._push(commit, f"refs/heads/agent/{self.config['run']}/branches/{name}")
                pushed += 1


def _has_links(folder: Path) -> bool:
    """Whether anything below `.git` that leads to objects or refs is a symbolic link."""
    for top in ("HEAD", "config", "packed-refs"):
        if (folder / top).is_symlink():
            return True
    for top in ("objects", "refs"):
        for parent, folders, files in os.walk(folder / top, followlinks=False):
            if any(Path(parent, name).is_symlink() for name in (*folders, *files)):
                return True
    return False


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _plain(folder: Path, found: set[bytes], links: set[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Paths of files and symbolic links, or of files that are gone, and paths of repositories inside; nothing else is staged.

    A repository inside would be a link to a commit that nobody else has, of no use to a reviewer, and a second hostile `.git`.
    """
    paths: list[bytes] = []
    nested: list[bytes] = []
    root = os.fsencode(folder)
    for path in found - links - {b""}:
        if path.endswith(b"/"):
            nested.append(path)
            continue
        try:
            mode = os.lstat(os.path.join(root, path)).st_mode  # noqa: PTH118 - names are bytes
        except OSError:
            paths.append(path)
            continue
        if stat.S_ISREG(mode) or stat.S_ISLNK(mode):
            paths.append(path)
    return paths, nested
