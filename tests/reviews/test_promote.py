from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from django.db import connection

from devaipod_web import home
from devaipod_web.forges.errors import AddressRefused, BranchMoved, ForgeError, PushRefused
from devaipod_web.forges.git import git
from devaipod_web.reviews import audit
from devaipod_web.reviews.errors import (
    AlreadyDecided,
    BadTarget,
    InProgress,
    MovedSinceReviewed,
    ReviewError,
    TicksMissing,
)
from devaipod_web.reviews.models import AuditEntry, Promotion, PromotionState, Review, ReviewState
from devaipod_web.reviews.services.promote import default_branch, promote
from devaipod_web.reviews.services.refresh import refresh
from devaipod_web.reviews.services.reject import reject
from devaipod_web.runs import events
from devaipod_web.runs.models import RunEvent
from tests.forges.world import sh


@pytest.fixture
def review(world) -> Review:
    world.prepare()
    world.work({"a.py": "x = 1\n"})
    world.push()
    return refresh(world.run.key)


def actions() -> list[str]:
    return list(AuditEntry.objects.order_by("id").values_list("action", flat=True))


def test_the_reviewed_commit_arrives_as_a_new_branch(world, review, reviewer):
    promotion = promote(review, reviewer, head=review.head, ticks=set())
    name = f"devaipod/{world.run.key}-retry-webhooks"
    assert world.promoted() == {name: review.head}
    assert (promotion.state, promotion.target_branch) == (PromotionState.DONE, name)
    review.refresh_from_db()
    assert (review.state, review.closed_by) == (ReviewState.PROMOTED, reviewer)
    event = RunEvent.objects.filter(kind=events.Kind.PROMOTED).get()
    assert event.payload == {
        "review": review.key,
        "branch": name,
        "head": review.head,
        "by": "Bob",
    }
    assert actions() == ["review.opened", "promotion.started", "promotion.done"]
    assert audit.verify().broken is None


def test_without_a_production_address_the_upstream_gets_the_branch(world, review, reviewer):
    world.project.production_url = ""
    world.project.save()
    promote(review, reviewer, head=review.head, ticks=set())
    assert default_branch(world.run) in sh(world.upstream, "branch", "--list", "devaipod/*")


def test_a_branch_that_moved_since_is_refused_with_a_sentence(world, review, reviewer):
    world.work({"a.py": "evil = 1\n"})
    world.push()
    with pytest.raises(MovedSinceReviewed, match="The branch has moved since you reviewed it"):
        promote(review, reviewer, head=review.head, ticks=set())
    refresh(world.run.key)
    with pytest.raises(MovedSinceReviewed, match="and you saw"):
        promote(review, reviewer, head=review.head, ticks=set())
    assert world.promoted() == {}
    assert actions()[-1] == "promotion.refused"


def test_a_head_that_nobody_saw_is_refused(world, review, reviewer):
    for head in ("", "HEAD", review.head[:12], "0" * 40, review.base):
        with pytest.raises(MovedSinceReviewed):
            promote(review, reviewer, head=head, ticks=set())
    assert world.promoted() == {}


def test_a_diff_that_is_not_the_reviewed_one_is_refused(world, review, reviewer):
    Review.objects.update(diff_digest="0" * 64)
    with pytest.raises(MovedSinceReviewed, match="not the one that was reviewed"):
        promote(review, reviewer, head=review.head, ticks=set())
    assert world.promoted() == {}


def test_each_risk_wants_its_own_tick(world, reviewer):
    world.prepare()
    world.work({".github/workflows/ci.yml": "on: push\n", "Jenkinsfile": "x\n"})
    world.push()
    review = refresh(world.run.key)
    ids = [risk["id"] for risk in review.risks]
    with pytest.raises(TicksMissing) as missing:
        promote(review, reviewer, head=review.head, ticks={ids[0], "other"})
    assert missing.value.missing == [ids[1]]
    assert "Jenkinsfile" in missing.value.message
    promote(review, reviewer, head=review.head, ticks=set(ids))
    assert AuditEntry.objects.get(action="promotion.started").detail["confirmed"] == [
        "ci .github/workflows/ci.yml",
        "ci Jenkinsfile",
    ]


BAD_NAMES = [
    "main",
    "devaipod/",
    "devaipod",
    "refs/heads/devaipod/x",
    "devaipod/../main",
    "devaipod/x y",
    "devaipod/x:main",
    "devaipod/x\nmain",
    "+devaipod/x",
    "-f",
    "devaipod/x~1",
    "devaipod/.lock",
    "devaipod/x.lock",
    "devaipod/@{1}",
    "devaipod/*",
    "devaipod//x",
    "devaipod/" + "x" * 300,
]


def test_names_that_are_no_branch_below_the_prefix_are_refused(world, review, reviewer):
    for name in BAD_NAMES:
        with pytest.raises(BadTarget):
            promote(review, reviewer, head=review.head, ticks=set(), branch=name)
    assert world.promoted() == {}


def test_a_person_may_choose_another_name_below_the_prefix(world, review, reviewer):
    promote(review, reviewer, head=review.head, ticks=set(), branch="devaipod/mine")
    assert world.promoted() == {"devaipod/mine": review.head}


def test_a_branch_that_is_there_at_another_commit_is_never_moved(world, review, reviewer):
    name = default_branch(world.run)
    # An ancestor of the reviewed commit: a plain push would fast-forward it.
    sh(world.author, "push", "-q", str(world.production), f"HEAD:refs/heads/{name}")
    before = world.promoted()
    with pytest.raises(BranchMoved, match="at another commit"):
        promote(review, reviewer, head=review.head, ticks=set())
    assert world.promoted() == before
    review.refresh_from_db()
    assert review.state == ReviewState.OPEN
    assert Promotion.objects.get().state == PromotionState.REFUSED
    assert actions()[-2:] == ["promotion.started", "promotion.refused"]


def test_a_branch_that_appears_at_the_last_moment_is_never_moved(
    world, review, reviewer, monkeypatch
):
    from devaipod_web.reviews.services import promote as module

    name = default_branch(world.run)
    sh(world.author, "push", "-q", str(world.production), f"HEAD:refs/heads/{name}")
    before = world.promoted()
    answers = iter([None])
    real = module._remote_ref
    monkeypatch.setattr(module, "_remote_ref", lambda *args: next(answers, real(*args)))
    with pytest.raises(ForgeError):
        promote(review, reviewer, head=review.head, ticks=set())
    assert world.promoted() == before


def test_what_production_refuses_is_told_in_its_words(world, review, reviewer):
    hook = world.production / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'Only on Mondays' >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(PushRefused, match="Only on Mondays"):
        promote(review, reviewer, head=review.head, ticks=set())
    promotion = Promotion.objects.get()
    assert promotion.state == PromotionState.REFUSED
    assert "Only on Mondays" in promotion.message


KILLED = """
import os, sys
import tests.settings as settings
settings.DATABASES["default"]["NAME"] = sys.argv[1]
settings.LOCAL_REPOSITORY_ROOTS = [sys.argv[2]]
import django
django.setup()
from devaipod_web.accounts.models import User
from devaipod_web.reviews.models import Review
from devaipod_web.reviews.services.promote import promote
review = Review.objects.get()
promote(review, User.objects.get(username="bob"), head=review.head, ticks=set())
"""


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("arrived", [False, True])
def test_a_promotion_that_is_killed_in_the_middle_is_settled_by_the_next(
    world, review, reviewer, manager, arrived
):
    # The hook, before or after the branch is made, holds the push until its process is killed.
    hook = world.production / "hooks" / ("post-receive" if arrived else "pre-receive")
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(
        f"#!/bin/sh\necho $$ > {world.folder}/pid\ntouch {world.folder}/reached\nexec sleep 600\n"
    )
    hook.chmod(0o755)
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, connection.settings_dict["NAME"], str(world.folder)],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONPATH": os.getcwd()},
        start_new_session=True,
    )
    while not (world.folder / "reached").exists():
        assert child.poll() is None
        time.sleep(0.05)
    with pytest.raises(InProgress, match="Bob is promoting"):
        promote(review, manager, head=review.head, ticks=set())
    child.kill()
    child.wait()
    hook.unlink()
    os.kill(int((world.folder / "pid").read_text()), signal.SIGKILL)
    promotion = promote(review, manager, head=review.head, ticks=set())
    assert promotion.state == PromotionState.DONE
    assert world.promoted() == {default_branch(world.run): review.head}
    review.refresh_from_db()
    assert review.state == ReviewState.PROMOTED
    if arrived:
        assert promotion.by == reviewer
    else:
        old = Promotion.objects.exclude(pk=promotion.pk).get()
        assert (old.state, old.by, promotion.by) == (PromotionState.REFUSED, reviewer, manager)
        assert "server ended" in old.message
    assert not Promotion.objects.filter(state=PromotionState.STARTED).exists()


def test_a_second_decision_is_told_who_was_first(world, review, reviewer, manager):
    promote(review, reviewer, head=review.head, ticks=set())
    with pytest.raises(AlreadyDecided, match="Bob has promoted"):
        promote(review, manager, head=review.head, ticks=set())
    with pytest.raises(AlreadyDecided, match="Bob has promoted"):
        reject(review, manager)


def test_a_rejected_review_is_not_promoted(world, review, reviewer, manager):
    reject(review, manager, reason="Wrong way")
    with pytest.raises(AlreadyDecided, match="Mona has rejected"):
        promote(review, reviewer, head=review.head, ticks=set())
    assert world.promoted() == {}
    assert AuditEntry.objects.get(action="review.rejected").detail["reason"] == "Wrong way"
    assert RunEvent.objects.filter(kind=events.Kind.REJECTED).count() == 1


def test_rejecting_what_one_did_not_see_is_refused(review, reviewer):
    with pytest.raises(MovedSinceReviewed):
        reject(review, reviewer, head="0" * 40)


def test_an_address_that_the_guard_refuses_is_never_pushed_to(world, review, reviewer):
    for address in ("ext::sh -c id", "https://127.0.0.1/a.git", str(home.home() / "x.git")):
        world.project.production_url = address
        world.project.save()
        with pytest.raises(AddressRefused):
            promote(review, reviewer, head=review.head, ticks=set())


def test_nothing_but_the_reviewed_commit_leaves(world, review, reviewer):
    repository = home.run_repository(world.project.key, world.run.key)
    git(["update-ref", "refs/heads/agent/other/work", review.head], repository=repository)
    git(["tag", "sneaky", review.head], repository=repository)
    hook = repository / "hooks" / "pre-push"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    promote(review, reviewer, head=review.head, ticks=set())
    refs = sh(world.production, "for-each-ref", "--format=%(refname)").split()
    assert refs == [f"refs/heads/{default_branch(world.run)}"]


@pytest.mark.django_db(transaction=True)
def test_of_two_reviewers_at_once_one_promotes_and_the_other_is_told(
    world, review, reviewer, manager
):
    # The hook holds the first push until the second person has tried.
    gate = world.folder / "gate"
    hook = world.production / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(
        f"#!/bin/sh\nfor i in $(seq 100); do test -e {gate} && exit 0; sleep 0.1; done\n"
    )
    hook.chmod(0o755)
    results: dict[str, object] = {}

    def go(name, person):
        try:
            results[name] = promote(review, person, head=review.head, ticks=set())
        except ReviewError as error:
            results[name] = error
        finally:
            connection.close()

    first = threading.Thread(target=go, args=("first", reviewer))
    first.start()
    while not Promotion.objects.filter(state=PromotionState.STARTED).exists():
        assert first.is_alive()
    go("second", manager)
    with pytest.raises(InProgress):
        reject(review, manager)
    gate.touch()
    first.join()
    assert isinstance(results["second"], InProgress)
    assert "Bob is promoting" in str(results["second"])
    assert isinstance(results["first"], Promotion)
    assert world.promoted() == {default_branch(world.run): review.head}


@pytest.mark.parametrize(
    ("title", "slug"),
    [
        ("Fix: Größe & ../../main", "-fix-groe-main"),
        ("日本語", ""),
        ("x" * 200, "-" + "x" * 40),
        (
            "Retry webhook deliveries with back-off and more",
            "-retry-webhook-deliveries-with-back-off",
        ),
        ("--force", "-force"),
    ],
)
def test_branch_names_from_titles_are_plain(run, title, slug):
    run.title = title
    assert default_branch(run) == f"devaipod/{run.key}{slug}"
