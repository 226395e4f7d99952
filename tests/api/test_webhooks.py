"""Webhooks over the API: for managers alone, secrets shown once, deliveries paged."""

from __future__ import annotations

import pytest
from django.utils import timezone

from devaipod_web.webhooks import queue, services
from devaipod_web.webhooks.models import Delivery, Webhook
from tests.api.conftest import problem

pytestmark = pytest.mark.django_db

BODY = {"name": "Ops", "url": "https://receiver.example/hook", "events": ["run.state"]}


@pytest.fixture
def mona(call, manager):
    return call(manager)


@pytest.fixture
def webhook(manager):
    return services.create(
        manager, name="Ops", url="https://receiver.example/hook", events=["run.state"]
    )[0]


def test_a_webhook_is_made_read_changed_and_removed(mona, project):
    made = mona.post("/webhooks", {**BODY, "project": "payments"})
    assert made.status_code == 201
    row = made.json()
    assert row["secret"].startswith("whsec_")
    assert (row["project"], row["enabled"], row["created_by"]) == ("payments", True, "mona")
    found = mona.get(f"/webhooks/{row['key']}").json()
    assert "secret" not in found
    assert found == {name: value for name, value in row.items() if name != "secret"}
    changed = mona(
        "PATCH", f"/webhooks/{row['key']}", {"events": ["review.opened"], "project": None}
    ).json()
    assert (changed["events"], changed["project"], changed["name"]) == (
        ["review.opened"],
        None,
        "Ops",
    )
    assert [one["key"] for one in mona.get("/webhooks").json()] == [row["key"]]
    assert mona("DELETE", f"/webhooks/{row['key']}").status_code == 204
    problem(mona.get(f"/webhooks/{row['key']}"), 404, "not-found")


def test_enabling_and_disabling_go_by_a_field(mona, webhook):
    path = f"/webhooks/{webhook.key}"
    off = mona("PATCH", path, {"enabled": False}).json()
    assert (off["enabled"], off["disabled_reason"]) == (False, "Disabled by Mona.")
    problem(mona.post(f"{path}/test"), 409, "webhook-disabled")
    on = mona("PATCH", path, {"enabled": True}).json()
    assert (on["enabled"], on["disabled_reason"]) == (True, "")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": " "}, "name"),
        ({"url": "ftp://x.example"}, "url"),
        ({"url": "https://x.example/#a"}, "url"),
        ({"events": []}, "events"),
        ({"events": ["run.state", "run.eaten"]}, "events"),
        ({"events": ["webhook.test"]}, "events"),
    ],
)
def test_what_cannot_be_is_a_problem_that_names_the_field(mona, webhook, changes, field):
    for answer in (
        mona.post("/webhooks", {**BODY, **changes}),
        mona("PATCH", f"/webhooks/{webhook.key}", changes),
    ):
        found = problem(answer, 400, "invalid-webhook")
        assert [one["field"] for one in found["errors"]] == [field]
    assert Webhook.objects.get().events == ["run.state"]


def test_a_project_that_is_not_there_is_said(mona):
    problem(mona.post("/webhooks", {**BODY, "project": "nothing"}), 404, "not-found")
    problem(mona.post("/webhooks", {**BODY, "secret": "mine"}), 422, "invalid-request")


def test_rotating_answers_with_the_new_secret(mona, webhook):
    row = mona.post(f"/webhooks/{webhook.key}/rotate").json()
    assert row["secret"].startswith("whsec_")
    assert row["previous_until"] is not None


def test_deliveries_are_paged_and_filtered_and_sent_again(mona, webhook):
    for _ in range(3):
        assert mona.post(f"/webhooks/{webhook.key}/test").status_code == 202
    (job,) = queue.claim("here:1:1", now=timezone.now(), room=1, busy={})
    queue.settle(job, queue.Outcome(timezone.now(), 7, status=200, answer="thanks"))
    path = f"/webhooks/{webhook.key}/deliveries"
    page = mona.get(f"{path}?page_size=2").json()
    assert len(page["results"]) == 2 and page["next"]
    (done,) = mona.get(f"{path}?state=delivered").json()["results"]
    assert done["key"] == job.key
    assert done["attempts"][0]["answer"] == "thanks"
    assert "payload" not in done
    assert mona.get(f"{path}?kind=run.state").json()["results"] == []
    problem(mona.get(f"{path}?state=lost"), 422, "invalid-request")
    again = mona.post(f"/deliveries/{job.key}/redeliver")
    assert again.status_code == 202
    assert (again.json()["state"], again.json()["key"]) == ("queued", job.key)
    found = mona.get(f"/deliveries/{job.key}").json()
    assert found["payload"]["type"] == "webhook.test"
    problem(mona.get("/deliveries/nothing"), 404, "not-found")


def test_deliveries_take_few_queries(mona, webhook, manager, django_assert_max_num_queries):
    for _ in range(30):
        services.test(webhook, manager)
    with django_assert_max_num_queries(10):
        assert len(mona.get(f"/webhooks/{webhook.key}/deliveries").json()["results"]) == 30


def test_others_are_refused_and_strangers_find_nothing(call, webhook, manager, reviewer, stranger):
    row = services.test(webhook, manager)
    calls = [
        ("GET", "/webhooks", None),
        ("POST", "/webhooks", BODY),
        ("GET", f"/webhooks/{webhook.key}", None),
        ("PATCH", f"/webhooks/{webhook.key}", {"enabled": False}),
        ("DELETE", f"/webhooks/{webhook.key}", None),
        ("POST", f"/webhooks/{webhook.key}/rotate", None),
        ("POST", f"/webhooks/{webhook.key}/test", None),
        ("GET", f"/webhooks/{webhook.key}/deliveries", None),
        ("GET", f"/deliveries/{row.key}", None),
        ("POST", f"/deliveries/{row.key}/redeliver", None),
    ]
    bob, charlie = call(reviewer), call(stranger)
    for method, path, body in calls:
        problem(bob(method, path, body), 403, "role-needed")
        problem(charlie(method, path, body), 404, "not-found")
    assert Webhook.objects.get().enabled
    assert Delivery.objects.count() == 1
