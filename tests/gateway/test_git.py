"""The real git client against the gateway over a real socket, with repositories as the staging forge makes them."""

from __future__ import annotations

import asyncio
import gzip
import os
import subprocess
from pathlib import Path

import pytest

from devaipod_web import db, home
from devaipod_web.forges import staging
from devaipod_web.reviews.models import Review
from devaipod_web.runs.models import Run
from tests.gateway.served import make_pod

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

CLEAN = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
}


def local(folder: Path, *words: str, data: bytes = b"") -> str:
    done = subprocess.run(
        ["git", *words], cwd=folder, env=CLEAN, input=data, capture_output=True, check=True
    )
    return done.stdout.decode().strip()


async def git(folder: Path, *words: str) -> tuple[int, str]:
    """Run the git client without blocking the loop that serves it; its exit code and what it said."""
    process = await asyncio.create_subprocess_exec(
        "git",
        *words,
        cwd=folder,
        env=CLEAN,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out.decode(errors="replace")


@pytest.fixture
def upstream(tmp_path):
    folder = tmp_path / "upstream"
    folder.mkdir()
    local(folder, "init", "-q", "-b", "main")
    (folder / "README.md").write_text("# Payments\n")
    local(folder, "add", "README.md")
    local(folder, "commit", "-q", "-m", "Begin")
    return folder


@pytest.fixture
def staged(run, upstream, settings):
    """The run with its own repository, made by the staging forge from the upstream."""
    settings.LOCAL_REPOSITORY_ROOTS = [str(upstream.parent)]
    return stage(run, upstream)


def stage(run: Run, upstream: Path) -> Run:
    project = run.project
    project.upstream_url = str(upstream)
    project.save(update_fields=["upstream_url"])
    staging.ensure_mirror(project)
    run.base_commit = staging.resolve(project, "main")
    run.branch = f"agent/{run.key}/work"
    run.save(update_fields=["base_commit", "branch"])
    staging.ensure_run_repository(project, run)
    return run


def auth(gateway, pod, *more):
    return ["-c", f"http.extraHeader=Authorization: Bearer {pod.data}", *more]


def remote(gateway):
    return f"{gateway.url}/git/repo.git"


async def clone(gateway, pod, folder):
    code, said = await git(folder, *auth(gateway, pod), "clone", "-q", remote(gateway), "workspace")
    assert code == 0, said
    return folder / "workspace"


def commit(workspace: Path, name: str = "notes.md", text: bytes = b"work\n") -> str:
    (workspace / name).write_bytes(text)
    local(workspace, "add", name)
    local(workspace, "commit", "-q", "-m", f"Add {name}")
    return local(workspace, "rev-parse", "HEAD")


async def push(gateway, pod, workspace, refspec):
    return await git(workspace, *auth(gateway, pod), "push", remote(gateway), refspec)


async def eventually(check):
    for _ in range(200):
        if await db.read(check):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it did not happen within ten seconds")


async def test_a_clone_is_the_base_and_a_push_opens_the_review(gateway, pod, staged, tmp_path):
    workspace = await clone(gateway, pod, tmp_path)
    assert (workspace / "README.md").read_text() == "# Payments\n"
    head = commit(workspace)
    code, said = await push(gateway, pod, workspace, f"HEAD:refs/heads/{staged.branch}")
    assert code == 0, said
    await eventually(Review.objects.filter(run=staged, head=head).exists)


async def test_a_push_to_any_other_ref_is_refused_by_git_itself(gateway, pod, staged, tmp_path):
    workspace = await clone(gateway, pod, tmp_path)
    commit(workspace)
    for ref in (
        "refs/heads/main",
        "refs/heads/agent/other/work",
        f"refs/heads/agent/{staged.key}",
        f"refs/heads/agent/{staged.key}x/work",
        "refs/tags/v1",
        "refs/replace/" + "a" * 40,
        "refs/devaipod/reviews/x",
    ):
        code, said = await push(gateway, pod, workspace, f"HEAD:{ref}")
        assert code != 0, ref
        assert (
            "deny updating a hidden ref" in said
            or "cannot lock ref" in said
            or "failed to update ref" in said
        ), said


async def test_a_branch_can_be_moved_but_not_removed(gateway, pod, staged, tmp_path):
    workspace = await clone(gateway, pod, tmp_path)
    commit(workspace)
    target = f"refs/heads/{staged.branch}"
    assert (await push(gateway, pod, workspace, f"HEAD:{target}"))[0] == 0
    code, said = await push(gateway, pod, workspace, f":{target}")
    assert code != 0
    assert "deletion prohibited" in said


@pytest.mark.parametrize("version", ["0", "1", "2"])
async def test_another_runs_commit_cannot_be_fetched(
    gateway, pod, staged, upstream, operator, tmp_path, version
):
    workspace = await clone(gateway, pod, tmp_path)
    secret = commit(workspace, "secret.md")
    assert (await push(gateway, pod, workspace, f"HEAD:refs/heads/{staged.branch}"))[0] == 0

    def other_run():
        other = Run.objects.create(
            project=staged.project, owner=operator, title="o", task="o", agent="x", wall_seconds=60
        )
        return make_pod(stage(other, upstream))

    other = await asyncio.to_thread(other_run)
    folder = tmp_path / "other"
    folder.mkdir()
    theirs = await clone(gateway, other, folder)
    protocol = ("-c", f"protocol.version={version}")
    code, said = await git(
        theirs, *auth(gateway, other), *protocol, "fetch", remote(gateway), secret
    )
    assert code != 0, said
    code, said = await git(
        theirs,
        *auth(gateway, other),
        *protocol,
        "fetch",
        remote(gateway),
        f"refs/heads/{staged.branch}:refs/heads/stolen",
    )
    assert code != 0, said
    code, listed = await git(theirs, *auth(gateway, other), *protocol, "ls-remote", remote(gateway))
    assert code == 0
    assert staged.key not in listed
    assert secret not in listed
    code, _ = await git(theirs, "cat-file", "-e", secret)
    assert code != 0


@pytest.mark.parametrize("version", ["0", "1", "2"])
async def test_all_three_protocol_versions_are_spoken(gateway, pod, staged, tmp_path, version):
    code, said = await git(
        tmp_path,
        *auth(gateway, pod, "-c", f"protocol.version={version}"),
        "ls-remote",
        remote(gateway),
    )
    assert code == 0, said
    assert "refs/heads/main" in said


async def test_the_dumb_protocol_is_not_served(gateway, pod, staged):
    for path in (
        "/git/repo.git/info/refs",
        "/git/repo.git/info/refs?service=git-upload-archive",
        "/git/repo.git/info/refs?service=git-upload-pack&x=1",
        "/git/repo.git/objects/info/packs",
        "/git/repo.git/HEAD",
    ):
        async with gateway.http.get(path, headers=pod.bearer) as answer:
            assert answer.status == 404, path


async def test_a_push_that_is_too_large_is_refused_with_a_sentence(
    gateway, pod, staged, tmp_path, settings
):
    settings.MAX_PUSH_BYTES = 1024 * 1024
    workspace = await clone(gateway, pod, tmp_path)
    commit(workspace, "large.bin", os.urandom(4 * 1024 * 1024))
    code, said = await push(gateway, pod, workspace, f"HEAD:refs/heads/{staged.branch}")
    assert code != 0
    assert "pack exceeds maximum allowed size" in said


async def test_a_push_of_several_megabytes_passes_in_pieces(gateway, pod, staged, tmp_path):
    """Above http.postBuffer (1 MB) git sends the pack in chunks, without a Content-Length."""
    workspace = await clone(gateway, pod, tmp_path)
    head = commit(workspace, "large.bin", os.urandom(6 * 1024 * 1024))
    code, said = await push(gateway, pod, workspace, f"HEAD:refs/heads/{staged.branch}")
    assert code == 0, said
    folder = tmp_path / "again"
    folder.mkdir()
    again = await clone(gateway, pod, folder)
    local(again, "cat-file", "-e", f"origin/{staged.branch}")
    assert local(again, "rev-parse", f"origin/{staged.branch}") == head


async def test_a_tree_that_would_write_into_git_itself_is_refused(gateway, pod, staged, tmp_path):
    workspace = await clone(gateway, pod, tmp_path)
    blob = local(workspace, "hash-object", "-w", "--stdin", data=b"[core]\nfsmonitor=evil\n")
    inner = bytes.fromhex(blob)
    tree = local(
        workspace,
        "hash-object",
        "-t",
        "tree",
        "-w",
        "--stdin",
        "--literally",
        data=b"100644 .git\0" + inner,
    )
    head = local(workspace, "commit-tree", tree, "-m", "Evil", "-p", "HEAD")
    code, said = await push(gateway, pod, workspace, f"{head}:refs/heads/{staged.branch}")
    assert code != 0
    assert "hasDotgit" in said


async def test_a_hook_in_the_runs_repository_is_not_run(gateway, pod, staged, tmp_path):
    repository = home.run_repository(staged.project.key, staged.key)
    hook = repository / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    workspace = await clone(gateway, pod, tmp_path)
    commit(workspace)
    code, said = await push(gateway, pod, workspace, f"HEAD:refs/heads/{staged.branch}")
    assert code == 0, said
    assert not (tmp_path / "ran").exists()


async def test_a_compressed_request_is_understood(gateway, pod, staged):
    """git compresses the requests of large fetches."""
    lines = b"0014command=ls-refs\n" + b"0000"
    headers = {
        **pod.bearer,
        "Content-Type": "application/x-git-upload-pack-request",
        "Content-Encoding": "gzip",
        "Git-Protocol": "version=2",
    }
    async with gateway.http.post(
        "/git/repo.git/git-upload-pack", data=gzip.compress(lines), headers=headers
    ) as answer:
        assert answer.status == 200
        assert b"refs/heads/main" in await answer.read()


async def test_what_is_no_git_request_is_refused_before_git_runs(gateway, pod, staged):
    async with gateway.http.post(
        "/git/repo.git/git-receive-pack", data=b"0000", headers=pod.bearer
    ) as answer:
        assert answer.status == 415


async def test_a_client_that_hangs_up_leaves_no_git_behind(gateway, pod, staged):
    reader, writer = await asyncio.open_unix_connection(str(gateway.path))
    writer.write(
        b"POST /git/repo.git/git-receive-pack HTTP/1.1\r\nHost: gateway\r\n"
        b"Content-Type: application/x-git-receive-pack-request\r\nTransfer-Encoding: chunked\r\n"
        b"Authorization: Bearer " + pod.data.encode() + b"\r\n\r\n4\r\n0085\r\n"
    )
    await writer.drain()
    mark = f"PATH_INFO=/{staged.key}.git/git-receive-pack".encode()

    def at_work() -> int:
        found = 0
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                found += mark in path.read_bytes()
            except OSError:
                continue
        return found

    await eventually(lambda: at_work() > 0)
    writer.close()
    await eventually(lambda: at_work() == 0)


async def test_a_run_without_a_repository_gets_a_clear_answer(gateway, pod):
    async with gateway.http.get(
        "/git/repo.git/info/refs?service=git-upload-pack", headers=pod.bearer
    ) as answer:
        assert answer.status == 404
        assert "not there" in (await answer.json())["error"]["message"]
