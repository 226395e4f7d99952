from __future__ import annotations

import shutil
import threading

import pytest

from devaipod_web import home
from devaipod_web.forges import staging
from devaipod_web.forges.errors import (
    AddressRefused,
    BranchMissing,
    Busy,
    ForgeError,
    RepositoryMissing,
    TooLarge,
    UpstreamUnreachable,
)
from devaipod_web.forges.git import commit_at, git
from tests.forges.world import sh


def test_a_run_gets_a_repository_that_can_be_cloned_at_the_base(world):
    repository = world.prepare()
    assert sh(world.agent, "rev-parse", "HEAD") == world.run.base_commit
    assert sh(world.agent, "rev-parse", "--abbrev-ref", "HEAD") == "main"
    assert (world.agent / "README.md").read_text() == "hello\n"
    assert not list((repository / "objects").glob("??/*")), "objects are borrowed, not copied"


def test_making_it_again_keeps_what_the_run_pushed(world):
    repository = world.prepare()
    world.work({"new": "x\n"})
    head = world.push()
    assert staging.ensure_run_repository(world.project, world.run) == repository
    assert commit_at(repository, f"refs/heads/{world.run.branch}") == head


def test_the_repository_still_works_after_the_installation_was_moved(world, tmp_path):
    world.prepare()
    moved = tmp_path / "moved"
    shutil.copytree(home.staging_dir(world.project.key), moved)
    shutil.rmtree(home.staging_dir(world.project.key))
    assert commit_at(moved / "runs" / f"{world.run.key}.git", "HEAD") == world.run.base_commit


def test_the_mirror_follows_the_upstream_and_keeps_what_runs_borrow(world):
    world.prepare()
    old = world.run.base_commit
    sh(world.author, "commit", "-q", "--amend", "-m", "Rewritten")
    new = sh(world.author, "rev-parse", "HEAD")
    sh(world.author, "push", "-qf", str(world.upstream), "HEAD:refs/heads/main")
    staging.ensure_mirror(world.project)
    assert staging.resolve(world.project, "main") == new
    git(["gc", "--quiet"], repository=home.mirror_repository(world.project.key))
    assert staging.read_file(world.project, old, "README.md", limit=100) == b"hello\n"


def test_only_heads_and_tags_are_mirrored(world):
    sh(world.author, "tag", "v1")
    head = sh(world.author, "rev-parse", "HEAD")
    other = world.publish({"other": "x\n"})
    sh(world.author, "push", "-q", str(world.upstream), "v1", f"{head}:refs/pull/1/head")
    sh(world.author, "push", "-q", str(world.upstream), f"{other}:refs/replace/{head}")
    staging.ensure_mirror(world.project)
    refs = git(["for-each-ref", "--format=%(refname)"], repository=mirror(world)).decode().split()
    assert refs == ["refs/heads/main", "refs/tags/v1"]


def test_a_branch_that_went_away_upstream_goes_away_here(world):
    world.publish({"x": "1\n"}, branch="gone")
    staging.ensure_mirror(world.project)
    assert "gone" in staging.branches(world.project)
    sh(world.upstream, "update-ref", "-d", "refs/heads/gone")
    staging.ensure_mirror(world.project)
    assert staging.branches(world.project) == ["main"]


def test_several_at_once_wait_for_each_other(world):
    errors: list[BaseException] = []

    def fetch() -> None:
        try:
            staging.ensure_mirror(world.project)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_who_waits_too_long_is_told(tmp_path):
    with (
        staging.locked(tmp_path / "l", seconds=0, what="it"),
        pytest.raises(Busy),
        staging.locked(tmp_path / "l", seconds=0.1, what="it"),
    ):
        pass


def test_a_missing_branch_is_named_with_those_that_are_there(world):
    staging.ensure_mirror(world.project)
    with pytest.raises(BranchMissing) as missing:
        staging.resolve(world.project, "develop")
    assert "develop" in missing.value.message
    assert "main" in missing.value.next_step


@pytest.mark.parametrize("name", ["--all", "a..b", "main^{tree}", "x\ny", "refs\x00", "", "a@{1}"])
def test_a_branch_name_that_is_none_finds_nothing(world, name):
    staging.ensure_mirror(world.project)
    with pytest.raises(BranchMissing):
        staging.resolve(world.project, name)


def test_an_empty_upstream_says_so(world):
    world.project.upstream_url = str(world.production)
    staging.ensure_mirror(world.project)
    with pytest.raises(BranchMissing, match="empty repository"):
        staging.resolve(world.project, "main")


def test_an_upstream_that_is_not_there_says_so(world):
    world.project.upstream_url = str(world.folder / "nothing.git")
    with pytest.raises(RepositoryMissing) as missing:
        staging.ensure_mirror(world.project)
    assert "nothing.git" in missing.value.message


def test_an_upstream_that_nobody_answers_at_says_so(world, settings):
    settings.ALLOWED_PRIVATE_NETWORKS = ["127.0.0.0/8"]
    world.project.upstream_url = "https://127.0.0.1:9/a.git"
    with pytest.raises(UpstreamUnreachable):
        staging.ensure_mirror(world.project)


@pytest.mark.parametrize("address", ["ext::sh -c id", "/etc", "https://127.0.0.1/a.git"])
def test_an_address_that_the_guard_refuses_is_never_fetched(world, address):
    world.project.upstream_url = address
    with pytest.raises(AddressRefused):
        staging.ensure_mirror(world.project)
    assert not mirror(world).exists()


def test_a_malicious_tree_is_refused_by_the_check(world):
    blob = sh(world.author, "hash-object", "-w", "--stdin", stdin=b"[core]\n")
    tree = sh(
        world.author,
        "mktree",
        "--missing",
        stdin=f"100644 blob {blob}\t.git\n".encode(),
    )
    commit = sh(world.author, "commit-tree", tree, "-m", "evil")
    sh(world.author, "push", "-q", str(world.upstream), f"{commit}:refs/heads/evil")
    with pytest.raises(ForgeError, match=r"check refuses"):
        staging.ensure_mirror(world.project)


def test_an_upstream_above_the_limit_is_refused(world, monkeypatch):
    import secrets

    monkeypatch.setattr(staging, "MAX_MIRROR_BYTES", 100_000)
    world.publish({"big": secrets.token_hex(400_000)})
    with pytest.raises(TooLarge):
        staging.ensure_mirror(world.project)
    monkeypatch.setattr(staging, "MAX_MIRROR_BYTES", 10_000_000)
    staging.ensure_mirror(world.project)
    assert not list((mirror(world) / "objects" / "pack").glob("tmp_*"))


def test_a_file_is_read_at_the_commit_and_nothing_but_plain_files(world):
    world.author.joinpath("link").symlink_to("/etc/passwd")
    commit = world.publish({".devcontainer/devcontainer.json": "{}"})
    staging.ensure_mirror(world.project)

    def read(path: str, limit: int = 100) -> bytes | None:
        return staging.read_file(world.project, commit, path, limit=limit)

    assert read(".devcontainer/devcontainer.json") == b"{}"
    assert read("link") is None
    assert read(".devcontainer") is None
    assert read("*") is None
    assert read("../README.md") is None
    assert read("--all") is None
    with pytest.raises(TooLarge):
        read(".devcontainer/devcontainer.json", limit=1)


def test_a_base_branch_below_agent_is_refused(world):
    world.prepare()
    world.project.upstream_branch = "agent/x"
    with pytest.raises(BranchMissing, match="belong to runs"):
        staging.ensure_run_repository(world.project, world.run)


def mirror(world):
    return home.mirror_repository(world.project.key)
