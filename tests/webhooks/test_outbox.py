"""What happens to runs and reviews is queued for those who asked, in the transaction in which it happens."""

from __future__ import annotations

import json

import pytest
from django.db import transaction

from devaipod_web.projects.models import Project
from devaipod_web.runs import events
from devaipod_web.runs.models import PermissionRequest, Run
from devaipod_web.runs.services import permissions, stop
from devaipod_web.runs.services.launch import launch
from devaipod_web.runs.services.transition import transition
from devaipod_web.runs.states import Cause, State
from devaipod_web.webhooks import kinds, services
from devaipod_web.webhooks.kinds import KINDS, SUBSCRIBABLE, Kind
from devaipod_web.webhooks.models import Delivery
from tests.pages.conftest import HOSTILE, begun

pytestmark = pytest.mark.django_db

ALL = [str(kind) for kind in SUBSCRIBABLE]


@pytest.fixture
def webhook(manager):
    return services.create(manager, name="Ops", url="https://receiver.example/", events=ALL)[0]


@pytest.fixture
def working(webhook, project, operator):
    return begun(launch(project, operator, task="Mend the till"))


def told(kind: str = "") -> list[dict]:
    """The payloads that were queued, in order, each checked against its schema."""
    rows = Delivery.objects.order_by("id")
    found = [json.loads(row.payload) for row in (rows.filter(kind=kind) if kind else rows)]
    for one in found:
        kinds.envelope(Kind(one["type"])).model_validate(one)
    return found


def moves() -> list[tuple[str | None, str]]:
    return [(one["data"]["from"], one["data"]["to"]) for one in told("run.state")]


def test_every_move_of_a_run_is_told_from_the_launch_on(working, operator):
    stop.stop(working.run, operator, reason="Enough.")
    assert moves() == [
        (None, "queued"),
        ("queued", "preparing"),
        ("preparing", "starting"),
        ("starting", "running"),
        ("running", "stopped"),
    ]
    last = told("run.state")[-1]
    run = working.run
    assert last["version"] == 1
    assert last["timestamp"].endswith("Z")
    assert last["data"]["reason"] == "Stopped by Alice. Enough."
    assert last["data"]["run"] == {
        "key": run.key,
        "title": "Mend the till",
        "project": "payments",
        "agent": run.agent,
        "owner": "alice",
        "labels": {},
        "state": "stopped",
        "url": f"/runs/{run.key}/",
        "api_url": f"/api/devaipod/runs/{run.key}",
    }


def test_addresses_are_whole_when_the_installation_knows_its_own(
    webhook, project, operator, settings
):
    settings.PUBLIC_URL = "https://devaipod.example/"
    run = launch(project, operator, task="x")
    assert told()[0]["data"]["run"]["url"] == f"https://devaipod.example/runs/{run.key}/"


def test_a_permission_is_told_with_all_that_an_answer_needs(working):
    working.asks("q1", command="alembic upgrade head")
    (waiting,) = told("run.waiting")
    request = PermissionRequest.objects.get()
    asked = waiting["data"]["permission"]
    assert asked["key"] == request.key
    assert "alembic upgrade head" in asked["title"]
    assert [option["id"] for option in asked["options"]] == ["once", "always", "no"]
    assert asked["answer_url"] == f"/api/devaipod/runs/{working.run.key}/permission"
    assert waiting["data"]["run"]["state"] == "waiting"
    assert moves()[-1] == ("running", "waiting")


def test_each_of_several_questions_is_told_once(working):
    working.asks("q1")
    working.asks("q2", command="rm -r build")
    working.asks("q2", command="rm -r build")  # the sidecar says it again
    assert len(told("run.waiting")) == 2
    assert [to for _, to in moves()].count("waiting") == 1


def test_what_the_policy_answers_waits_for_nobody(webhook, project, operator):
    run = launch(project, operator, task="x", permission_policy="allow")
    begun(run).asks()
    assert told("run.waiting") == []


def test_a_run_that_waits_for_a_prompt_says_so(working, operator):
    stop.cancel_turn(working.run, operator)
    working.says("turn.ended", turn=1, stop_reason="cancelled")
    working.says("work.staged", turn=1, head="a" * 40)
    (waiting,) = told("run.waiting")
    assert waiting["data"]["permission"] is None
    assert "your next prompt" in waiting["data"]["waits_for"]


def test_a_run_that_goes_on_is_not_told_as_waiting_again(working, operator):
    working.asks()
    permissions.answer(PermissionRequest.objects.get(), operator, option_id="once")
    assert moves()[-1] == ("waiting", "running")
    assert len(told("run.waiting")) == 1


def test_a_budget_that_pauses_a_run_is_told(working):
    transition(
        working.run.pk,
        State.PAUSED,
        reason="The budget of Payments is used up: $10.00 of $10.00.",
        next_step="A manager raises it on the page Spend.",
        cause=Cause.BUDGET,
    )
    (exceeded,) = told("budget.exceeded")
    assert exceeded["data"]["run"]["state"] == "paused"
    assert exceeded["data"]["reason"].startswith("The budget of Payments")
    assert exceeded["data"]["next_step"].startswith("A manager")
    assert exceeded["data"]["cost"] == "0.00000000"
    assert moves()[-1] == ("running", "paused")
    event = working.run.events.filter(kind=events.Kind.STATE).last()
    assert event.payload["cause"] == "budget"


def test_a_pause_by_hand_is_no_budget(working):
    transition(working.run.pk, State.PAUSED, reason="Paused by Alice.")
    assert told("budget.exceeded") == []
    assert moves()[-1] == ("running", "paused")


def test_reviews_are_told_when_they_are_opened_and_promoted(working):
    run = working.run
    counted = {"commits": 2, "files": 3, "additions": 40, "deletions": 5, "revision": 1}
    events.record(run, events.Kind.REVIEW, {"review": "abcdefghij", "head": "a" * 40, **counted})
    events.record(
        run,
        events.Kind.PROMOTED,
        {"review": "abcdefghij", "branch": "devaipod/x", "head": "a" * 40, "by": "Bob"},
    )
    (opened,) = told("review.opened")
    assert counted.items() <= opened["data"]["review"].items()
    assert opened["data"]["review"]["url"] == "/reviews/abcdefghij/"
    (promoted,) = told("review.promoted")
    assert promoted["data"]["branch"] == "devaipod/x"
    assert promoted["data"]["by"] == "Bob"
    assert promoted["data"]["review"]["head"] == "a" * 40


def test_only_what_was_asked_for_is_queued(manager, project, operator):
    services.create(manager, name="A", url="https://a.example/", events=["review.opened"])
    launch(project, operator, task="x")
    assert told() == []


def test_a_webhook_of_one_project_hears_of_no_other(manager, project, operator):
    other = Project.objects.create(slug="shop", name="Shop", upstream_url="https://x.example/y")
    services.create(manager, name="A", url="https://a.example/", events=ALL, project=other)
    launch(project, operator, task="x")
    assert told() == []
    launch(other, operator, task="x")
    assert [one["data"]["run"]["project"] for one in told()] == ["shop"]


def test_a_disabled_webhook_is_queued_nothing(webhook, manager, project, operator):
    services.disable(webhook, manager)
    launch(project, operator, task="x")
    assert told() == []


def test_a_move_that_is_taken_back_is_not_told(working):
    before = Delivery.objects.count()
    with pytest.raises(RuntimeError), transaction.atomic():
        transition(working.run.pk, State.FAILED, reason="x")
        assert Delivery.objects.count() == before + 1
        raise RuntimeError
    assert Delivery.objects.count() == before
    assert Run.objects.get().state == State.RUNNING


def test_an_agents_text_is_bounded_and_stays_text(working):
    working.asks("q1", command=HOSTILE + "x" * 5000)
    row = Delivery.objects.get(kind="run.waiting")
    assert len(row.payload) < 4000
    assert "\n" not in row.payload and "\x1b" not in row.payload
    asked = json.loads(row.payload)["data"]["permission"]
    assert len(asked["title"]) <= kinds.MAX_TITLE


@pytest.mark.parametrize(
    "text", ["\ud800", "a\x00b", "\udfff\ud83d", "\u2028</script>", "🦊" * 3000]
)
def test_text_that_no_database_takes_stops_no_run(working, text):
    working.asks("q1", command=text)
    working.says("message", message_id="m", text=text)
    (waiting,) = told("run.waiting")
    assert waiting["data"]["permission"]["key"] == PermissionRequest.objects.get().key
    assert len(Delivery.objects.get(kind="run.waiting").payload) < 20_000


def test_what_a_sidecar_claims_is_not_told(working):
    before = Delivery.objects.count()
    working.says("review.promoted", review="x", branch="main", head="a" * 40, by="Mona")
    working.says("run.state", **{"from": "running", "to": "succeeded", "reason": "x"})
    assert Delivery.objects.count() == before


def test_every_kind_has_a_form_and_a_sentence():
    assert set(KINDS) == set(Kind)
    for spec in KINDS.values():
        assert spec.says and spec.data.model_json_schema()["properties"]
