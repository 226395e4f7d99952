from __future__ import annotations

import pytest

from devaipod_web import home
from devaipod_web.forges.git import commit_at, git
from devaipod_web.reviews import audit
from devaipod_web.reviews.errors import NotReviewable
from devaipod_web.reviews.models import AuditEntry, Review, ReviewState
from devaipod_web.reviews.services.refresh import refresh
from devaipod_web.runs import events
from devaipod_web.runs.models import RunEvent
from tests.forges.world import sh


@pytest.fixture
def repository(world):
    return world.prepare()


def codes(review: Review, *, tick: bool = True) -> set[str]:
    return {f"{risk['code']} {risk['path']}" for risk in review.risks if risk["tick"] is tick}


def test_a_run_without_a_push_has_no_review(world, repository):
    assert refresh(world.run.key) is None
    world.push("origin/main")
    assert refresh(world.run.key) is None


def test_a_push_opens_a_review_with_base_head_and_counts(world, repository):
    world.work({"src/app.py": "print('one')\nprint('three')\n"})
    head = world.work({"notes.md": "a\nb\n"}, "Notes")
    world.push()
    review = refresh(world.run.key)
    assert review is not None
    assert (review.base, review.head) == (world.run.base_commit, head)
    assert (review.commits, review.files, review.additions, review.deletions) == (2, 2, 3, 1)
    assert (review.state, review.revision, review.risks) == (ReviewState.OPEN, 1, [])
    pin = f"refs/devaipod/reviews/{review.key}/{head}"
    assert commit_at(repository, pin) == head
    world.run.refresh_from_db()
    assert (world.run.head_commit, world.run.additions, world.run.changed_files) == (head, 3, 2)
    event = RunEvent.objects.get(run=world.run)
    assert event.kind == events.Kind.REVIEW
    assert event.payload["review"] == review.key
    assert event.payload["revision"] == 1
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.detail["head"]) == ("review.opened", head)


def test_refreshing_again_changes_nothing(world, repository):
    world.work({"a": "1\n"})
    world.push()
    first = refresh(world.run.key)
    again = refresh(world.run.key)
    assert first is not None
    assert again is not None
    assert (first.pk, first.revision) == (again.pk, again.revision)
    assert RunEvent.objects.filter(kind=events.Kind.REVIEW).count() == 1
    assert AuditEntry.objects.count() == 1


@pytest.mark.parametrize("state", [ReviewState.PROMOTED, ReviewState.REJECTED])
def test_a_push_opens_a_closed_review_again(world, repository, state):
    world.work({"a": "1\n"})
    world.push()
    refresh(world.run.key)
    Review.objects.update(state=state)
    assert refresh(world.run.key).state == state
    head = world.work({"a": "2\n"})
    world.push()
    review = refresh(world.run.key)
    assert (review.state, review.revision, review.head) == (ReviewState.OPEN, 2, head)
    assert review.closed_at is None


def test_the_hash_covers_what_attributes_would_hide(world, repository):
    world.work({".gitattributes": "* -diff\n*.py diff=evil\n", "a.py": "x = 1\n"})
    world.push()
    first = refresh(world.run.key).diff_digest
    world.work({"a.py": "x = 2\n"})
    sh(world.agent, "reset", "-q", "--soft", "HEAD~2")
    sh(world.agent, "commit", "-qm", "Again")
    world.push()
    assert refresh(world.run.key).diff_digest != first


def test_a_replace_ref_hides_nothing(world, repository):
    head = world.work({"evil.py": "import os\n"})
    world.push()
    git(["update-ref", f"refs/replace/{head}", world.run.base_commit], repository=repository)
    review = refresh(world.run.key)
    assert (review.head, review.files) == (head, 1)


def test_diff_programs_in_the_repository_are_not_run(world, repository, tmp_path):
    mark = tmp_path / "ran"
    for key in ("diff.evil.textconv", "diff.evil.command", "diff.external"):
        git(
            ["config", "--file", str(repository / "config"), key, f"touch {mark};true"],
            repository=None,
        )
    (repository / "info").mkdir(exist_ok=True)
    (repository / "info" / "attributes").write_text("* diff=evil\n")
    world.work({"a.py": "x\n"})
    world.push()
    assert refresh(world.run.key).additions == 1
    assert not mark.exists()


def test_two_merge_bases_are_refused(world, repository):
    base = world.run.base_commit
    tree = sh(world.agent, "rev-parse", f"{base}^{{tree}}")
    left = sh(world.agent, "commit-tree", tree, "-p", base, "-m", "left")
    right = sh(world.agent, "commit-tree", tree, "-p", base, "-m", "right")
    start = sh(world.agent, "commit-tree", tree, "-p", left, "-p", right, "-m", "start")
    head = sh(world.agent, "commit-tree", tree, "-p", right, "-p", left, "-m", "criss-cross")
    sh(world.agent, "push", "-q", "origin", f"{start}:refs/heads/agent/{world.run.key}/start")
    world.run.base_commit = start
    world.run.save()
    world.push(head)
    with pytest.raises(NotReviewable, match="2 merge bases"):
        refresh(world.run.key)
    assert not Review.objects.exists()


def test_an_unrelated_history_is_refused(world, repository):
    tree = sh(world.agent, "rev-parse", "HEAD^{tree}")
    world.push(sh(world.agent, "commit-tree", tree, "-m", "root"))
    with pytest.raises(NotReviewable, match="no history in common"):
        refresh(world.run.key)


CI_PATHS = [
    ".github/workflows/ci.yml",
    ".GitHub/Workflows/CI.yml",
    ".gitlab-ci.yml",
    ".forgejo/workflows/a.yaml",
    ".gitea/workflows/a.yaml",
    "Jenkinsfile",
    "sub/Jenkinsfile.release",
    ".circleci/config.yml",
    ".ci/run",
]


def test_files_that_run_on_build_machines_need_a_tick(world, repository):
    world.work(dict.fromkeys(CI_PATHS, "x\n"))
    world.push()
    assert codes(refresh(world.run.key)) == {f"ci {path}" for path in CI_PATHS}


def test_a_ci_file_that_a_later_commit_removes_again_is_still_named(world, repository):
    world.work({".github/workflows/steal.yml": "on: push\n", "a": "1\n"})
    sh(world.agent, "rm", "-rq", ".github")
    world.work({"a": "2\n"})
    world.push()
    assert codes(refresh(world.run.key)) == {"ci .github/workflows/steal.yml"}


def test_links_submodules_binaries_and_owners_need_a_tick(world, repository):
    world.agent.joinpath("link").symlink_to("/etc/passwd")
    sha = world.run.base_commit
    sh(world.agent, "update-index", "--add", "--cacheinfo", f"160000,{sha},vendored")
    sh(world.agent, "commit", "-qm", "submodule")
    (world.agent / "vendored").mkdir()
    world.work({"logo.png": b"\x89PNG\0\0", "CODEOWNERS": "* @me\n", "sub/.gitattributes": "*\n"})
    world.push()
    assert codes(refresh(world.run.key)) == {
        "symlink link",
        "submodule vendored",
        "binary logo.png",
        "owners CODEOWNERS",
        "git sub/.gitattributes",
    }


def test_hidden_and_control_characters_need_a_tick(world, repository):
    world.work(
        {
            "trojan.py": "if access != 'user\u202e \u2066// admin\u2069 \u2066':\n",
            "escape.sh": "echo \x1b[2J\n",
            "zero.py": "na\u200bme = 1\n",
            "fine.py": "name = 'Ørsted — ✓ 日本語'\n",
            "long.js": "x" * 3_000_000 + "\u202e" + "\n",
        }
    )
    world.push()
    assert codes(refresh(world.run.key)) == {
        "bidi trojan.py",
        "bidi zero.py",
        "bidi long.js",
        "control escape.sh",
    }


def test_hidden_characters_in_names_and_messages_need_a_tick(world, repository):
    head = world.work({"safe\u202egpj.exe": "x\n"}, "Fix \u202ethings")
    world.push()
    assert codes(refresh(world.run.key)) == {
        "name safe\u202egpj.exe",
        f"message {head[:12]}",
    }


def test_names_that_are_not_utf8_are_kept_as_text(world, repository):
    import os

    with open(os.fsencode(world.agent) + b"/caf\xe9", "wb") as out:
        out.write(b"\0")
    world.work({})
    world.push()
    assert codes(refresh(world.run.key)) == {"binary caf\\xe9"}


def test_dependencies_and_programs_are_marks_without_a_tick(world, repository):
    (world.agent / "run.sh").write_text("#!/bin/sh\n")
    (world.agent / "run.sh").chmod(0o755)
    world.work({"pyproject.toml": "[project]\n", "web/package.json": "{}\n"})
    world.push()
    review = refresh(world.run.key)
    assert codes(review) == set()
    assert codes(review, tick=False) == {
        "executable run.sh",
        "dependency pyproject.toml",
        "dependency web/package.json",
    }


def test_very_large_changes_and_merges_need_a_tick(world, repository):
    world.work({"generated.py": "x = 1\n" * 3000})
    tree = sh(world.agent, "rev-parse", "HEAD^{tree}")
    merge = sh(
        world.agent, "commit-tree", tree, "-p", "HEAD", "-p", world.run.base_commit, "-m", "Merge"
    )
    world.push(merge)
    assert codes(refresh(world.run.key)) == {"large generated.py", f"merge {merge[:12]}"}


def test_many_risks_of_one_kind_are_one_tick_that_covers_their_names(world, repository):
    world.work({f".github/workflows/{n}.yml": "x\n" for n in range(40)})
    world.push()
    (risk,) = refresh(world.run.key).risks
    assert "40 of them" in risk["text"]
    world.work({".github/workflows/41.yml": "x\n"})
    world.push()
    (other,) = refresh(world.run.key).risks
    assert other["id"] != risk["id"]


def test_the_audit_chain_holds_after_all_this(world, repository):
    world.work({"a": "1\n"})
    world.push()
    refresh(world.run.key)
    assert audit.verify().broken is None


def test_a_run_whose_repository_is_gone_has_no_review(world, repository):
    import shutil

    shutil.rmtree(home.run_repository(world.project.key, world.run.key))
    assert refresh(world.run.key) is None
