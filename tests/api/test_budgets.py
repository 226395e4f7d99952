"""Budgets and incidents over the API: set by managers, seen by everybody, resolved once."""

from __future__ import annotations

import pytest
from django.utils import timezone

from devaipod_web.accounts import tokens
from devaipod_web.budgets import incidents, leases
from devaipod_web.budgets.models import Budget, BudgetWindow
from devaipod_web.budgets.money import PICO
from devaipod_web.runs.models import Run
from devaipod_web.runs.states import State
from tests.api.conftest import problem

pytestmark = pytest.mark.django_db

NEW = {"scope": "project", "subject": "payments", "metric": "usd", "window": "month", "limit": "10"}


@pytest.fixture
def mona(call, manager):
    return call(manager)


def refuse(key: str, run: Run) -> str:
    window = leases.window_of(Budget.objects.get(key=key), timezone.now())
    return str(incidents.open_hard(window.pk, run.pk, PICO)[0].key)


def test_a_budget_is_set_read_changed_and_removed(mona, project):
    made = mona.post("/budgets", NEW)
    assert made.status_code == 201, made.content
    row = made.json()
    assert (row["subject"], row["spent"], row["left"], row["created_by"]) == (
        "payments", "0.000000000000", "10.000000000000", "mona",
    )  # fmt: skip
    assert mona.get(f"/budgets/{row['key']}").json() == row
    BudgetWindow.objects.update(spent=4 * PICO, leased=PICO)
    changed = mona("PATCH", f"/budgets/{row['key']}", {"limit": "8.5", "note": "Less"}).json()
    assert (changed["left"], changed["note"]) == ("3.500000000000", "Less")
    assert mona("DELETE", f"/budgets/{row['key']}").status_code == 204
    problem(mona.get(f"/budgets/{row['key']}"), 404, "not-found")
    assert mona.get("/budgets").json()["results"] == []


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"limit": 10}, 422, "invalid-request"),
        ({"limit": "ten"}, 422, "invalid-request"),
        ({"limit": "100000000"}, 400, "invalid-budget"),
        ({"metric": "requests", "limit": "1.5"}, 400, "invalid-budget"),
        ({"scope": "installation"}, 400, "invalid-budget"),
        ({"scope": "run"}, 404, "no-such-subject"),
        ({"subject": "nothing"}, 404, "no-such-subject"),
        ({"colour": "red"}, 422, "invalid-request"),
    ],
)
def test_a_budget_that_cannot_be_is_refused(mona, project, change, status, code):
    problem(mona.post("/budgets", {**NEW, **change}), status, code)
    assert not Budget.objects.exists()


def test_the_same_budget_twice_is_one_too_many(mona, project):
    mona.post("/budgets", NEW)
    problem(mona.post("/budgets", NEW), 409, "budget-exists")


def test_lists_are_narrowed(mona, project, run):
    of_project = mona.post("/budgets", NEW).json()["key"]
    of_run = mona.post(
        "/budgets",
        {"scope": "run", "subject": run.key, "metric": "requests", "window": "total", "limit": "5"},
    ).json()["key"]
    of_all = mona.post(
        "/budgets", {"scope": "installation", "metric": "tokens", "window": "day", "limit": "5000"}
    ).json()["key"]

    def keys(query: str) -> set[str]:
        return {row["key"] for row in mona.get(f"/budgets?{query}").json()["results"]}

    assert keys("") == {of_project, of_run, of_all}
    assert keys("scope=run") == keys(f"run={run.key}") == keys("metric=requests") == {of_run}
    assert keys("project=payments") == {of_project}
    problem(mona.get("/budgets?scope=planet"), 422, "invalid-request")


def test_a_list_takes_the_same_queries_however_long_it_is(
    mona, project, django_assert_max_num_queries
):
    for window in ("day", "month", "total", "each_run"):
        mona.post("/budgets", {**NEW, "window": window})
    with django_assert_max_num_queries(6):
        assert len(mona.get("/budgets").json()["results"]) == 4


def test_an_incident_waits_until_a_manager_decides(mona, call, operator, project, run):
    key = mona.post("/budgets", NEW).json()["key"]
    incident = refuse(key, run)
    (waiting,) = mona.get("/incidents?state=open").json()["results"]
    assert (waiting["key"], waiting["budget"], waiting["run"]) == (incident, key, run.key)
    problem(
        call(operator).post(f"/incidents/{incident}/resolve", {"how": "stop"}), 403, "role-needed"
    )
    path = f"/incidents/{incident}/resolve"
    problem(mona.post(path, {"how": "extend"}), 400, "invalid-budget")
    done = mona.post(path, {"how": "extend", "amount": "2.5", "note": "Release"}).json()
    assert (done["state"], done["how"], done["resolved_by"]) == ("resolved", "extended", "mona")
    assert mona.get(f"/budgets/{key}").json()["extra"] == "2.500000000000"
    problem(mona.post(path, {"how": "dismiss"}), 409, "incident-closed")
    assert mona.get("/incidents?state=open").json()["results"] == []


def test_an_incident_can_stop_its_run(mona, project, run):
    incident = refuse(mona.post("/budgets", NEW).json()["key"], run)
    done = mona.post(f"/incidents/{incident}/resolve", {"how": "stop"}).json()
    assert done["how"] == "stopped"
    assert Run.objects.get().state == State.STOPPED


def test_a_run_is_created_with_lower_limits_and_remembers_its_token(call, operator, project):
    alice = call(operator)
    made = alice.post(
        "/runs",
        {"project": "payments", "task": "a", "budget_usd": "0.75", "budget_requests": 20},
    )
    assert made.status_code == 201, made.content
    run = Run.objects.get()
    assert run.token == alice.token_row
    rows = alice.get(f"/budgets?run={run.key}").json()["results"]
    assert {row["metric"]: row["limit"] for row in rows} == {
        "usd": "0.750000000000",
        "requests": "20",
    }


def test_a_token_of_one_project_sees_its_budgets_and_sets_none(mona, manager, project, call):
    mona.post("/budgets", NEW)
    mona.post("/budgets", {**NEW, "scope": "installation", "subject": ""})
    row, text = tokens.create(manager, "bound", project=project)
    bound = call(manager)
    bound.token = text
    assert [found["scope"] for found in bound.get("/budgets").json()["results"]] == ["project"]
    problem(bound.post("/budgets", NEW), 403, "token-bound")
    assert row.project == project
