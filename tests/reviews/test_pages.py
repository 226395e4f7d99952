from __future__ import annotations

import csv
import io

import pytest
from django.urls import reverse

from devaipod_web.reviews import audit
from devaipod_web.reviews.models import AuditEntry, Review, ReviewState
from devaipod_web.reviews.services.promote import default_branch
from devaipod_web.reviews.services.refresh import refresh
from tests.conftest import PASSWORD


@pytest.fixture
def change(world) -> Review:
    world.prepare()
    world.work({"src/app.py": "print('one')\nprint('<b>&\u202e')\n", "Jenkinsfile": "x\n"})
    world.work({"notes.md": "# Notes\n"}, "Add <i>notes</i>")
    world.push()
    return refresh(world.run.key)


@pytest.fixture
def page(client):
    """Read a page as somebody: the text of an answer that was fine."""

    def read(person, name, *args, query="", status=200):
        client.login(username=person.get_username(), password=PASSWORD)
        answer = client.get(reverse(name, args=args) + query)
        assert answer.status_code == status
        return answer.content.decode()

    return read


def post(client, person, name, *args, **data):
    client.login(username=person.get_username(), password=PASSWORD)
    return client.post(reverse(name, args=args), data, follow=True)


def test_the_list_shows_what_waits(page, viewer, change):
    text = page(viewer, "reviews")
    assert "Retry webhooks" in text
    assert "waiting for review" in text
    assert change.head[:7] in text


def test_an_empty_list_says_what_will_be_here(page, viewer):
    assert "No reviews yet" in page(viewer, "reviews")


def test_filters_are_in_the_address(page, viewer, change):
    assert "Retry webhooks" not in page(viewer, "reviews", query="?state=promoted")
    assert "Retry webhooks" in page(viewer, "reviews", query="?state=all&project=payments&q=retry")
    assert "No review matches" in page(viewer, "reviews", query="?q=nothing")
    assert "Retry webhooks" in page(viewer, "reviews", query="?page=99")
    assert "Retry webhooks" in page(viewer, "reviews_live")


def test_the_list_takes_the_same_number_of_queries_however_long(
    client, viewer, change, world, operator, django_assert_max_num_queries
):
    from devaipod_web.runs.models import Run

    for number in range(5):
        run = Run.objects.create(
            project=world.project, owner=operator, title=f"r{number}", agent="x", wall_seconds=1
        )
        Review.objects.create(
            run=run,
            base="0" * 40,
            head="1" * 40,
            diff_digest="2" * 64,
            updated_at=change.updated_at,
        )
    client.login(username=viewer.get_username(), password=PASSWORD)
    with django_assert_max_num_queries(15):
        client.get(reverse("reviews"))


def test_a_review_opens_its_first_file_and_any_other(page, viewer, change):
    first = page(viewer, "review", change.key)
    assert "Lines of Jenkinsfile" in first
    second = page(viewer, "review", change.key, query="?file=src/app.py")
    assert "Lines of src/app.py" in second
    assert "&lt;b&gt;&amp;" in second
    assert "U+202E" in second
    assert "\u202e" not in second
    assert "hidden text" in second


def test_a_review_is_found_by_its_runs_key_too(page, viewer, change):
    assert "Lines of Jenkinsfile" in page(viewer, "review", change.run.key)
    page(viewer, "review", "nothing", status=404)


def test_a_file_that_is_not_in_the_change_is_said(page, viewer, change):
    text = page(viewer, "review", change.key, query="?file=%3Cscript%3E")
    assert "has no file" in text
    assert "<script>alert" not in text
    assert "<bdi><script>" not in text


def test_commits_that_would_leave_are_listed(page, viewer, change):
    text = page(viewer, "review_commits", change.key)
    assert "Add &lt;i&gt;notes&lt;/i&gt;" in text
    assert change.head[:12] in text


def test_the_patch_is_what_git_applies(client, viewer, change):
    client.login(username=viewer.get_username(), password=PASSWORD)
    answer = client.get(reverse("review_patch", args=[change.key]))
    assert answer.headers["Content-Disposition"].endswith('.patch"')
    assert b"+++ b/Jenkinsfile" in answer.content


def test_a_repository_that_is_gone_is_said_and_the_rest_stays(page, viewer, change, world):
    import shutil

    from devaipod_web import home

    shutil.rmtree(home.staging_dir(world.project.key))
    assert "Retry webhooks" in page(viewer, "review", change.key)
    assert "Retry webhooks" in page(viewer, "review_commits", change.key)


def test_only_those_who_may_decide_are_offered_to(page, viewer, reviewer, change):
    assert reverse("review_promote", args=[change.key]) not in page(viewer, "review", change.key)
    assert reverse("review_promote", args=[change.key]) in page(reviewer, "review", change.key)
    page(viewer, "review_promote", change.key, status=403)


def test_promoting_asks_once_naming_target_branch_and_commit(page, reviewer, change, world):
    text = page(reviewer, "review_promote", change.key)
    assert change.head in text
    assert str(world.production) in text
    assert default_branch(world.run) in text
    assert text.count('type="checkbox"') == 2


def test_a_reviewer_promotes_by_the_form(client, reviewer, change, world):
    ticks = [risk["id"] for risk in change.risks]
    answer = post(client, reviewer, "review_promote", change.key, head=change.head, tick=ticks)
    assert f"as {default_branch(world.run)}" in answer.content.decode()
    assert world.promoted() == {default_branch(world.run): change.head}


def test_a_refused_promotion_says_why_and_keeps_what_was_entered(client, reviewer, change, world):
    one = change.risks[0]["id"]
    answer = post(
        client,
        reviewer,
        "review_promote",
        change.key,
        head=change.head,
        tick=[one],
        branch="devaipod/mine",
    )
    text = answer.content.decode()
    assert answer.status_code == 409
    assert "not confirmed" in text
    assert 'value="devaipod/mine"' in text
    assert text.count(" checked") == 1
    assert world.promoted() == {}


def test_a_branch_that_moved_clears_the_ticks(client, reviewer, change, world):
    seen, ticks = change.head, [risk["id"] for risk in change.risks]
    world.work({"more": "x\n"})
    world.push()
    refresh(world.run.key)
    answer = post(client, reviewer, "review_promote", change.key, head=seen, tick=ticks)
    text = answer.content.decode()
    assert "The branch has moved since you reviewed it" in text
    assert text.count(" checked") == 0
    assert f'name="head" value="{seen}"' not in text
    assert world.promoted() == {}


def test_a_reviewer_rejects_with_a_reason(client, page, reviewer, change):
    assert "nothing leaves" in page(reviewer, "review_reject", change.key).lower()
    post(client, reviewer, "review_reject", change.key, head=change.head, reason="No")
    change.refresh_from_db()
    assert change.state == ReviewState.REJECTED
    assert "rejected by Bob" in page(reviewer, "review", change.key).lower().replace("bob", "Bob")


@pytest.mark.parametrize("name", ["review_promote", "review_reject"])
def test_operators_viewers_and_strangers_may_not_decide(
    client, operator, viewer, stranger, change, name
):
    for person in (operator, viewer, stranger):
        assert post(client, person, name, change.key, head=change.head).status_code == 403
    change.refresh_from_db()
    assert change.state == ReviewState.OPEN


class TestAudit:
    def test_entries_are_shown_filtered_and_linked(self, page, manager, change):
        audit.write(manager, "project.changed", target="<b>Web</b>", detail={"a": "<i>"})
        text = page(manager, "audit")
        assert "review.opened" in text
        assert "&lt;b&gt;Web&lt;/b&gt;" in text
        assert f'href="/reviews/{change.key}/"' in text
        only = page(manager, "audit", query="?action=project&actor=mona&q=Web")
        assert "agent of run" not in only
        assert "No entry matches" in page(manager, "audit", query="?q=nothing-like-this")

    def test_an_empty_log_says_what_will_be_here(self, page, manager):
        assert "No entries yet" in page(manager, "audit")

    def test_verifying_really_verifies(self, client, manager):
        first = audit.write(manager, "a.b")
        audit.write(manager, "a.c")
        assert "All 2 entries are sound" in post(client, manager, "audit_verify").content.decode()
        AuditEntry.objects.filter(pk=first.pk).update(action="a.x")
        assert "The chain breaks" in post(client, manager, "audit_verify").content.decode()

    def test_the_export_has_every_entry_and_no_formula(self, client, manager):
        audit.write(manager, "a.b", target="=cmd|' /C calc'!A0")
        audit.write(manager, "a.c", target="two")
        client.login(username="mona", password=PASSWORD)
        answer = client.get(reverse("audit_export"))
        rows = list(csv.DictReader(io.StringIO(answer.content.decode())))
        assert [row["action"] for row in rows] == ["a.b", "a.c"]
        assert rows[0]["target"].startswith("'=")
        assert len(rows[0]["digest"]) == 64

    def test_only_managers_see_it(self, page, reviewer, client):
        for name in ("audit", "audit_export"):
            page(reviewer, name, status=403)
