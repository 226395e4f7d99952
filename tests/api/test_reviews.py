"""Reviews over the API and the CLI, with real repositories behind them."""

from __future__ import annotations

import json

import pytest

from devaipod_web.accounts import tokens
from devaipod_web.reviews.services.refresh import refresh
from tests.api.conftest import problem
from tests.cli.conftest import devaipod
from tests.forges.world import World
from tests.live import serving

pytestmark = [pytest.mark.django_db(transaction=True)]


@pytest.fixture
def world(tmp_path, settings, project, run):
    settings.LOCAL_REPOSITORY_ROOTS = [str(tmp_path)]
    return World(tmp_path, project, run)


@pytest.fixture
def review(world):
    world.prepare()
    world.work({"a.py": "x = 1\n", "terminal.txt": "\x1b[2Jgone\n"})
    world.push()
    return refresh(world.run.key)


@pytest.fixture
def risky(world):
    world.prepare()
    world.work({".github/workflows/ci.yml": "on: push\n"})
    world.push()
    return refresh(world.run.key)


def test_a_review_is_found_by_its_key_and_its_runs(call, viewer, review):
    vera = call(viewer)
    assert vera.get(f"/reviews/{review.key}").json()["head"] == review.head
    assert vera.get(f"/reviews/{review.run.key}").json()["key"] == review.key
    rows = vera.get("/reviews?state=open&project=payments").json()["results"]
    assert [row["key"] for row in rows] == [review.key]
    assert vera.get("/reviews?state=rejected").json()["results"] == []
    problem(vera.get("/reviews?state=maybe"), 422, "invalid-request")


def test_the_diff_is_plain_text_as_git_takes_it(call, viewer, review):
    answer = call(viewer).get(f"/reviews/{review.key}/diff")
    assert answer.headers["Content-Type"].startswith("text/x-diff")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert b"+x = 1\n" in answer.content
    assert answer.headers["X-Devaipod-Head"] == review.head


def test_a_reviewer_promotes_what_was_seen_and_nobody_else_does(
    call, operator, reviewer, review, world
):
    path = f"/reviews/{review.key}/promote"
    problem(call(operator).post(path, {"head": review.head}), 403, "role-needed")
    bob = call(reviewer)
    problem(bob.post(path, {"head": "0" * 40}), 409, "moved-since-reviewed")
    assert world.promoted() == {}
    done = bob.post(path, {"head": review.head, "ticks": [r["id"] for r in review.risks]}).json()
    assert done["state"] == "done"
    assert list(world.promoted().values()) == [review.head]
    problem(bob.post(path, {"head": review.head}), 409, "already-decided")


def test_a_risk_without_its_tick_is_refused_and_named(call, reviewer, risky, world):
    bob = call(reviewer)
    answer = bob.post(f"/reviews/{risky.key}/promote", {"head": risky.head})
    assert "ci.yml" in problem(answer, 409, "ticks-missing")["detail"]
    assert world.promoted() == {}


def test_a_review_is_rejected_once(call, reviewer, review):
    bob = call(reviewer)
    assert bob.post(f"/reviews/{review.key}/reject", {"reason": "no"}).json()["state"] == "rejected"
    problem(bob.post(f"/reviews/{review.key}/reject"), 409, "already-decided")


@pytest.fixture
def bob(reviewer):
    import os

    _, text = tokens.create(reviewer, "tests")
    with serving() as url:
        env = {**os.environ, "DEVAIPOD_URL": url, "DEVAIPOD_TOKEN": text}
        yield lambda *words: devaipod(*words, env=env)


@pytest.mark.slow
def test_the_command_shows_a_diff_that_cannot_steer_the_terminal(bob, review):
    shown = bob("review", "show", review.key)
    assert "+x = 1" in shown.stdout
    assert "␛[2Jgone" in shown.stdout
    assert "\x1b" not in shown.stdout
    assert json.loads(bob("review", "list", "--json").stdout)[0]["key"] == review.key


@pytest.mark.slow
def test_the_command_promotes_only_the_commit_that_is_named(bob, review, world):
    assert bob("promote", review.key).returncode == 1
    assert "--head" in bob("promote", review.key, "--yes").stderr
    moved = bob("promote", review.key, "--yes", "--head", "0000000")
    assert "not at 0000000" in moved.stderr
    ticks = [word for risk in review.risks for word in ("--tick", risk["id"])]
    done = bob("promote", review.key, "--yes", "--head", review.head[:10], *ticks)
    assert done.returncode == 0, done.stderr
    assert list(world.promoted().values()) == [review.head]


@pytest.mark.slow
def test_the_command_names_each_risk_that_needs_a_tick(bob, risky, world):
    result = bob("promote", risky.key, "--yes", "--head", risky.head)
    assert result.returncode == 1
    for risk in risky.risks:
        if risk["tick"]:
            assert risk["id"] in result.stderr
    assert world.promoted() == {}
