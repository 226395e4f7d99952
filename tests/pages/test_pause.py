"""A paused run on its page, in lists and on Now: why, and what each person can do about it."""

from __future__ import annotations

import re

import pytest
from django.utils import timezone

from devaipod_web.budgets import incidents, leases, services
from devaipod_web.budgets.models import Budget, BudgetWindow, Incident
from devaipod_web.runs import shown
from devaipod_web.runs.models import Run
from devaipod_web.runs.services.launch import launch
from devaipod_web.runs.services.pause import pause_by_hand, resume

pytestmark = pytest.mark.django_db


def now_of(sidecar) -> Run:
    return Run.objects.get(pk=sidecar.run.pk)


@pytest.fixture
def over_budget(working, manager):
    """The run has met a limit of 5 requests of its own."""
    Budget.objects.filter(run=working.run).delete()
    row = services.create(
        manager, scope="run", subject=working.run, metric="requests", window="total", limit=5
    )
    window = leases.window_of(row, timezone.now())
    BudgetWindow.objects.filter(pk=window.pk).update(spent=5)
    return incidents.open_hard(window.pk, working.run.pk, 1)[0]


def test_pausing_and_resuming_by_hand(page, post, operator, working):
    assert "/pause/" in page(operator, "run", working.run.key)
    assert "is paused" in post(operator, "run_pause", working.run.key).content.decode()
    text = page(operator, "run", working.run.key)
    assert "Paused by Alice." in text
    assert "/resume/" in text and "/pause/" not in text
    assert "paused already" in post(operator, "run_pause", working.run.key).content.decode()
    assert "goes on" in post(operator, "run_resume", working.run.key).content.decode()
    assert now_of(working).state == "running"


def test_the_composer_of_a_paused_run_resumes_it_with_the_words(post, operator, working):
    pause_by_hand(working.run, operator)
    assert post(operator, "run_prompt", working.run.key, text="Try the other.").status_code == 200
    assert now_of(working).state == "running"
    assert working.run.turns.last().prompt == "Try the other."


def test_a_budget_is_decided_by_a_manager_on_the_page(page, post, operator, manager, over_budget):
    key = over_budget.run.key
    text = page(manager, "run", key)
    assert "5 requests of 5 requests are spent" in text
    assert "Raise the budget" in text and "Extend once" in text
    assert "/resume/" not in text
    given = {"incident": over_budget.key, "how": "extend", "amount": "20"}
    assert post(operator, "run_incident", key, **given).status_code == 403
    bad = post(manager, "run_incident", key, **{**given, "amount": "a lot"})
    assert "amount" in bad.content.decode()
    assert "goes on" in post(manager, "run_incident", key, **given).content.decode()
    assert Run.objects.get(key=key).state == "running"
    assert Incident.objects.get().how == "extended"
    assert "resolved already" in post(manager, "run_incident", key, **given).content.decode()


def test_a_manager_stops_it_there_too_and_another_runs_incident_is_not_found(
    post, operator, manager, over_budget, project
):
    another = launch(project, operator, task="Another.")
    given = {"incident": over_budget.key, "how": "stop"}
    assert post(manager, "run_incident", another.key, **given).status_code == 404
    post(manager, "run_incident", over_budget.run.key, **given)
    assert Run.objects.get(key=over_budget.run.key).state == "stopped"


def test_resuming_against_an_open_incident_says_which(post, operator, over_budget):
    answer = post(operator, "run_resume", over_budget.run.key).content.decode()
    assert over_budget.key in answer


@pytest.mark.parametrize("name", ["run_pause", "run_resume", "run_incident"])
def test_a_viewer_may_do_none_of_it(post, viewer, working, name):
    assert post(viewer, name, working.run.key).status_code == 403


def test_now_and_the_list_show_it_with_its_reason(page, operator, working):
    pause_by_hand(working.run, operator, reason="Wrong table.")
    for name in ("now", "runs"):
        text = page(operator, name)
        assert "Paused by Alice. Wrong table." in text
        assert "degraded" not in text
    assert re.search(r"1\s+thing needs\s+a person", page(operator, "now"))


def test_the_transcript_has_a_row_for_pause_and_resumption(operator, working):
    pause_by_hand(working.run, operator)
    resume(working.run, operator)
    rows = [item.data for item in shown.latest(working.run).items if item.name == "state"]
    assert [(row["state"], row["reason"]) for row in rows] == [
        ("paused", "Paused by Alice."),
        ("running", "Resumed by Alice."),
    ]


def test_what_the_agent_wrote_is_escaped_in_the_banner(page, operator, working, settings):
    settings.LOOP_CALLS = 2
    for number in range(2):
        working.says(
            "tool_call",
            tool_call_id=f"c{number}",
            title="bash",
            status="completed",
            input={"command": "<script>alert(1)</script>\u202egnp"},
            output="x",
        )
    text = page(operator, "run", working.run.key)
    assert "goes round in a loop" in text
    assert "<script>alert(1)" not in text
    assert "\u202e" not in text
