"""A workspace whose git repository was written by an attacker: nothing of it runs, nothing from outside is staged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.e2e.installation import git
from tests.sidecar.rig import BRANCH, Rig

pytestmark = pytest.mark.slow


def plant(path: Path, trap: Path) -> Path:
    """A program that leaves a mark when it is run, and passes its input on as a filter would."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho ran {path.name} $* >> {trap}\ncat\n")
    path.chmod(0o755)
    return path


def configure(repository: Path, *pairs: tuple[str, str]) -> None:
    for key, value in pairs:
        git("config", "-f", str(repository / "config"), key, value, cwd=repository)


async def staged_with(rig: Rig, turn: int = 1) -> dict[str, object]:
    """Play a turn that does nothing by itself: what was planted is there when its end is staged."""
    return await rig.prompt("only words", turn=turn)


async def test_no_hook_filter_or_program_of_the_repository_runs(rig: Rig):
    await rig.start()
    trap = rig.folder / "trap"
    evil = plant(rig.folder / "workspace" / "evil", trap)
    dot_git = rig.workspace / ".git"
    hooks = ("pre-commit", "post-commit", "pre-push", "reference-transaction", "post-index-change")
    for hook in (*hooks, "post-checkout", "pre-auto-gc", "proc-receive", "upload-pack"):
        plant(dot_git / "hooks" / hook, trap)
    configure(
        dot_git,
        ("core.fsmonitor", str(evil)),
        ("core.sshCommand", str(evil)),
        ("core.alternateRefsCommand", str(evil)),
        ("core.pager", str(evil)),
        ("core.editor", str(evil)),
        ("filter.evil.clean", str(evil)),
        ("filter.evil.smudge", str(evil)),
        ("filter.evil.process", str(evil)),
        ("diff.external", str(evil)),
        ("diff.evil.textconv", str(evil)),
        ("merge.evil.driver", str(evil)),
        ("credential.helper", str(evil)),
        ("uploadpack.packObjectsHook", str(evil)),
        ("gpg.program", str(evil)),
        ("commit.gpgSign", "true"),
        ("remote.origin.uploadpack", str(evil)),
        ("remote.origin.receivepack", str(evil)),
    )
    (rig.workspace / ".gitattributes").write_text("* filter=evil diff=evil merge=evil\n")
    (rig.workspace / "new.txt").write_text("plain\n")
    staged = await staged_with(rig)
    assert staged["pushed"] is True
    assert rig.pushed("new.txt") == "plain"
    assert not trap.exists(), trap.read_text()


async def test_a_push_goes_where_the_run_says_and_not_where_the_repository_says(rig: Rig):
    await rig.start()
    elsewhere = rig.folder / "elsewhere.git"
    git("init", "-q", "--bare", str(elsewhere), cwd=rig.folder)
    configure(
        rig.workspace / ".git",
        (f"url.{elsewhere}.pushInsteadOf", "http://127.0.0.1"),
        (f"url.{elsewhere}.insteadOf", "http://127.0.0.1"),
        ("remote.origin.pushurl", str(elsewhere)),
        ("http.proxy", "http://127.0.0.1:1"),
    )
    (rig.workspace / "new.txt").write_text("plain\n")
    await staged_with(rig)
    assert rig.pushed("new.txt") == "plain"
    assert git("for-each-ref", cwd=elsewhere) == ""


async def test_files_from_outside_are_not_staged(rig: Rig):
    await rig.start()
    secret = rig.folder / "outside"
    secret.mkdir()
    (secret / "secret.txt").write_text("very secret\n")
    configure(rig.workspace / ".git", ("core.worktree", str(secret)))
    (rig.workspace / "link").symlink_to(secret)
    (rig.workspace / "file-link").symlink_to(secret / "secret.txt")
    (rig.workspace / "README.md").unlink()
    (rig.workspace / "README.md").symlink_to(secret / "secret.txt")
    os.mkfifo(rig.workspace / "pipe")
    await staged_with(rig)
    assert set(rig.pushed().splitlines()) == {"README.md", "greet.py", "link", "file-link"}
    modes = git("ls-tree", BRANCH, "link", "file-link", "README.md", cwd=rig.repository)
    assert {line.split()[0] for line in modes.splitlines()} == {"120000"}
    assert "very secret" not in git("log", "-p", "--all", cwd=rig.repository)


async def test_a_nested_repository_and_a_tracked_submodule_run_nothing(rig: Rig):
    await rig.start()
    trap = rig.folder / "trap"
    evil = plant(rig.folder / "evil", trap)
    for name in ("sub", "other"):
        nested = rig.workspace / name
        git("init", "-q", str(nested), cwd=rig.folder)
        (nested / "inside.txt").write_text("inside\n")
        git("add", "-A", cwd=nested)
        git("commit", "-qm", "Inside", cwd=nested)
        configure(
            nested / ".git", ("core.fsmonitor", str(evil)), ("core.hooksPath", str(rig.folder))
        )
        (nested / "inside.txt").write_text("changed\n")
    commit = git("rev-parse", "HEAD", cwd=rig.workspace / "sub")
    git("update-index", "--add", "--cacheinfo", f"160000,{commit},sub", cwd=rig.workspace)
    git("commit", "-qm", "Track a submodule", cwd=rig.workspace)
    (rig.workspace / "new.txt").write_text("plain\n")
    await staged_with(rig)
    assert not trap.exists(), trap.read_text()
    assert set(rig.pushed().splitlines()) == {"README.md", "greet.py", "new.txt", "sub"}
    assert any("other/" in note["message"] for note in rig.gateway.of("sidecar.note"))


async def test_a_promisor_is_not_asked_for_what_is_missing(rig: Rig):
    await rig.start()
    trap = rig.folder / "trap"
    evil = plant(rig.folder / "evil", trap)
    (rig.workspace / "big.txt").write_text("gone\n")
    git("add", "-A", cwd=rig.workspace)
    git("commit", "-qm", "Something", cwd=rig.workspace)
    blob = git("rev-parse", "HEAD:big.txt", cwd=rig.workspace)
    (rig.workspace / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    configure(
        rig.workspace / ".git",
        ("core.repositoryformatversion", "1"),
        ("extensions.partialClone", "origin"),
        ("remote.origin.promisor", "true"),
        ("remote.origin.uploadpack", str(evil)),
        ("remote.origin.url", f"ext::{evil}"),
    )
    staged = await staged_with(rig)
    assert not trap.exists(), trap.read_text()
    assert staged["snapshot"] is True
    assert rig.pushed("big.txt") == "gone"


@pytest.mark.parametrize("trick", ["file", "link", "alternates", "head", "objects", "gone"])
async def test_a_repository_that_leads_elsewhere_is_not_read_and_the_files_are_staged(
    rig: Rig, trick: str
):
    await rig.start()
    other = rig.folder / "other"
    git("init", "-q", str(other), cwd=rig.folder)
    (other / "secret.txt").write_text("very secret\n")
    git("add", "-A", cwd=other)
    git("commit", "-qm", "Secret", cwd=other)
    dot_git = rig.workspace / ".git"
    if trick == "alternates":
        (dot_git / "objects" / "info").mkdir(exist_ok=True)
        (dot_git / "objects" / "info" / "alternates").write_text(f"{other}/.git/objects\n")
        commit = git("rev-parse", "HEAD", cwd=other)
        (dot_git / "refs" / "heads" / "stolen").write_text(f"{commit}\n")
    elif trick == "head":
        (dot_git / "HEAD").unlink()
        (dot_git / "HEAD").symlink_to(other / ".git" / "refs" / "heads" / "main")
    elif trick == "objects":
        (dot_git / "objects").rename(rig.folder / "moved")
        (dot_git / "objects").symlink_to(other / ".git" / "objects")
    else:
        dot_git.rename(rig.folder / "moved")
        if trick == "file":
            dot_git.write_text(f"gitdir: {other}/.git\n")
        elif trick == "link":
            dot_git.symlink_to(other / ".git")
    (rig.workspace / "new.txt").write_text("plain\n")
    staged = await staged_with(rig)
    assert staged["pushed"] is True
    assert rig.pushed("new.txt") == "plain"
    assert "very secret" not in git("log", "-p", "--all", cwd=rig.repository)


async def test_the_runs_token_is_held_back(rig: Rig):
    await rig.start()
    (rig.workspace / "copied.txt").write_text("x control-token x\n")
    await rig.gateway.command("prompt", turn=1, text="only words")
    failed = await rig.gateway.wait("work.failed")
    assert "token" in failed["output"]
    assert git("for-each-ref", "refs/heads/agent", cwd=rig.repository) == ""


async def test_a_second_turn_without_a_change_does_not_move_the_branch(rig: Rig):
    await rig.start()
    (rig.workspace / "new.txt").write_text("plain\n")
    first = await staged_with(rig)
    second = await staged_with(rig, turn=2)
    assert second["head"] == first["head"]
    assert len(git("for-each-ref", "refs/heads/agent", cwd=rig.repository).splitlines()) == 1
