from __future__ import annotations

import os
import time

import pytest

from devaipod_web.forges.errors import GitFailed, TimedOut, TooLarge
from devaipod_web.forges.git import commit_at, git
from tests.forges.world import sh, write


@pytest.fixture
def repository(tmp_path):
    sh(tmp_path, "init", "-q", "-b", "main", "r")
    folder = tmp_path / "r"
    write(folder, {"a": "a\n"})
    sh(folder, "add", "-A")
    sh(folder, "commit", "-qm", "one")
    return folder / ".git"


def test_nothing_of_the_servers_own_environment_reaches_git(repository, monkeypatch):
    monkeypatch.setenv("GIT_DIR", "/elsewhere")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", "'alias.show=!env'")
    env = git(["-c", "alias.e=!env", "e"], repository=repository).decode()
    assert "SSH_AUTH_SOCK" not in env
    assert "SECRET" not in env
    assert "HOME=/nonexistent" in env


def test_a_call_that_takes_too_long_is_ended_with_its_children(repository, tmp_path):
    mark = tmp_path / "pid"
    begun = time.monotonic()
    with pytest.raises(TimedOut):
        git(
            ["-c", f"alias.s=!sh -c 'echo $$ > {mark}; sleep 60'", "s"],
            repository=repository,
            timeout=1,
        )
    assert time.monotonic() - begun < 10
    pid = int(mark.read_text())
    for _ in range(50):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        with open(f"/proc/{pid}/stat") as stat:
            if ") Z " in stat.read():
                return
        time.sleep(0.1)
    raise AssertionError("the child of git is still there")


def test_output_above_the_limit_is_refused_and_not_kept(repository):
    with pytest.raises(TooLarge):
        git(["-c", "alias.y=!yes", "y"], repository=repository, limit=1_000_000)


def test_large_input_and_output_at_once_do_not_block(repository):
    sha = commit_at(repository, "refs/heads/main")
    out = git(
        ["cat-file", "--batch-check"], repository=repository, stdin=f"{sha}\n".encode() * 50_000
    )
    assert out.count(b"\n") == 50_000


def test_no_transport_is_open_unless_the_caller_names_it(repository, tmp_path):
    for address in (str(repository), "ext::sh -c id", "https://forge.example/a"):
        with pytest.raises(Exception, match="not allowed|transport"):
            git(["ls-remote", "--end-of-options", address], repository=None)


def test_hooks_and_replace_refs_of_a_repository_do_not_count(repository, tmp_path):
    mark = tmp_path / "ran"
    hook = repository / "hooks" / "reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {mark}\n")
    hook.chmod(0o755)
    head = commit_at(repository, "refs/heads/main")
    git(["update-ref", "refs/heads/other", head], repository=repository)
    assert not mark.exists()


def test_an_unknown_failure_carries_gits_words(repository):
    with pytest.raises(GitFailed) as failed:
        git(["cat-file", "blob", "0" * 40], repository=repository)
    assert failed.value.words


def test_a_commit_that_is_not_there_is_none(repository):
    assert commit_at(repository, "refs/heads/none") is None
    assert commit_at(repository, "--all") is None
