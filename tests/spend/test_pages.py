"""The pages of spend, budgets and incidents, as those who look and those who decide see them."""

from __future__ import annotations

import csv
import io
import re
from datetime import timedelta
from decimal import Decimal

import pytest
from asgiref.sync import async_to_sync
from django.utils import timezone

from devaipod_web.budgets import services
from devaipod_web.budgets.models import Budget, BudgetWindow, Incident
from devaipod_web.budgets.money import PICO
from devaipod_web.home import new_key
from devaipod_web.llm.models import LlmCall
from devaipod_web.reviews.models import AuditEntry
from devaipod_web.runs.models import Run
from devaipod_web.runs.states import State
from tests.budgets.test_services import refused

pytestmark = pytest.mark.django_db
NEW = {
    "scope": "project",
    "project": "payments",
    "metric": "usd",
    "window": "month",
    "limit": "220",
    "soft_percent": "80",
}


def called(run: Run, cost: str | None = "0.25", **more: object) -> LlmCall:
    given = {
        "provider_kind": "openai",
        "model": "opus",
        "status": 200,
        "at": timezone.now(),
        **more,
    }
    return LlmCall.objects.create(
        key=new_key(), run=run, cost=None if cost is None else Decimal(cost), **given
    )


@pytest.fixture
def budget(manager, project) -> Budget:
    return services.create(
        manager, scope="project", subject=project, metric="usd", window="month", limit="10"
    )


@pytest.fixture
def incident(budget, run) -> Incident:
    row = refused(budget, run)
    BudgetWindow.objects.filter(budget=budget).update(spent=10 * PICO)
    return row


# --- spend --------------------------------------------------------------------------------------------------------


def test_an_empty_installation_says_what_will_be_here(page, viewer):
    text = page(viewer, "spend")
    assert "Nothing is spent yet" in text
    assert "what every new run" not in text
    assert "All projects, each run" in text


@pytest.mark.parametrize(
    ("by", "label"),
    [("project", "Payments"), ("agent", "OpenCode"), ("model", "opus"), ("person", "Alice")],
)
def test_spend_is_stacked_by_what_the_address_says(page, viewer, run, by, label):
    called(run, "12.5")
    text = page(viewer, "spend", query=f"?by={by}&range=7d")
    legend = re.search(r'<ul class="legend".*?</ul>', text, re.S).group()
    assert label in legend
    assert 'role="img"' in text
    assert "$12.50" in text
    assert f"Spend per day by {by}" in text
    # The table behind the drawing has a row a day, and one for all.
    table = re.search(r'<table class="table">.*?</table>', text, re.S).group()
    assert table.count("<tr>") == 9


@pytest.mark.parametrize("days", [1, 7, 62, 200, 900])
def test_every_length_of_range_is_drawn(page, viewer, run, days):
    called(run)
    today = timezone.now().date()
    first = today - timedelta(days=days - 1)
    text = page(viewer, "spend", query=f"?from={first}&to={today}")
    unit = {1: "hour", 7: "day", 62: "day", 200: "week", 900: "month"}[days]
    assert f"Per {unit}" in text
    assert "$0.2500" in text


def test_days_that_are_no_range_are_said_and_stay_in_the_form(page, viewer):
    text = page(viewer, "spend", query="?from=2026-11-05&to=2026-11-04", status=400)
    assert "The range ends before it begins." in text
    assert 'value="2026-11-05"' in text and 'value="2026-11-04"' in text
    page(viewer, "spend", query="?project=nothing", status=404)


def test_calls_without_a_price_are_said_and_never_free(page, viewer, run):
    called(run, None)
    called(run, "0.5", unpriced=True)
    called(run, "0.5", estimated=True)
    text = page(viewer, "spend")
    assert "$1.00 + ?" in text
    assert "2 calls unpriced: 1 of them cost an unknown amount" in text
    assert "1 call estimated" in text


def test_one_project_shows_its_own_alone(page, viewer, run, operator):
    from devaipod_web.projects.models import Project

    other = Project.objects.create(slug="search", name="Search", upstream_url="https://x.example/s")
    theirs = Run.objects.create(
        project=other, owner=operator, title="Theirs", task="t", agent="codex", wall_seconds=60,
        cost=9, started_at=timezone.now(),
    )  # fmt: skip
    called(run, "3")
    called(theirs, "9")
    text = page(viewer, "spend", query="?project=search")
    assert "$9.00" in text and "$3.00" not in text
    assert "Theirs" in text and "Retry webhooks" not in text


def test_names_are_text_whatever_they_hold(page, viewer, run):
    Run.objects.update(title="<script>alert(1)</script>", cost=1)
    called(run, "1", model='"><img src=x onerror=alert(2)>')
    text = page(viewer, "spend", query="?by=model")
    assert "<script>alert" not in text and "<img" not in text


def test_the_page_takes_as_many_queries_with_many_calls_as_with_few(
    client, viewer, manager, person, django_assert_max_num_queries
):
    from tests.spend.world import fill

    fill(person, manager, days=10, runs_a_day=3, calls_a_run=3)
    client.force_login(viewer)
    client.get("/spend/")
    with django_assert_max_num_queries(36):
        text = client.get("/spend/").content.decode()
    assert "payments-api, a month" in text
    assert "runs reached it" in text
    assert text.count("likely") + text.count("no likelihood") >= 1
    assert "Runs without budget" in text


# --- CSV ----------------------------------------------------------------------------------------------------------


def streamed(answer) -> str:
    async def collect() -> bytes:
        return b"".join([piece async for piece in answer.streaming_content])

    return async_to_sync(collect)().decode()


def test_sums_are_exported_as_they_are_shown(client, viewer, run):
    called(run, "1.234567890123")
    called(run, None)
    client.force_login(viewer)
    answer = client.get("/spend/export.csv?by=project&range=7d")
    assert answer.headers["Content-Type"].startswith("text/csv")
    assert "spend-" in answer.headers["Content-Disposition"]
    (row,) = csv.DictReader(io.StringIO(answer.content.decode()))
    assert (row["day"], row["project"]) == (timezone.now().date().isoformat(), "payments")
    assert (row["cost"], row["calls"], row["uncounted_calls"]) == ("1.234567890123", "2", "1")
    assert client.get("/spend/export.csv?from=x").status_code == 400


@pytest.mark.django_db(transaction=True)
def test_every_call_is_exported_once_in_order_and_no_cell_is_a_formula(
    client, viewer, run, monkeypatch
):
    from devaipod_web.budgets.spend import export

    monkeypatch.setattr(export, "PIECE", 7)
    at = timezone.now()
    for number in range(30):
        # Many at one moment, over the ends of the pieces.
        called(run, str(number), at=at + timedelta(seconds=number // 10), model=f"=m{number}")
    client.force_login(viewer)
    rows = list(csv.DictReader(io.StringIO(streamed(client.get("/spend/calls.csv?range=7d")))))
    assert [row["cost"] for row in rows] == [f"{number}.000000000000" for number in range(30)]
    assert rows[0]["model"] == "'=m0"
    assert (rows[0]["run"], rows[0]["owner"], rows[0]["unpriced"]) == (run.key, "alice", "no")


# --- budgets ------------------------------------------------------------------------------------------------------


def test_a_budget_is_set_by_a_form_changed_and_removed(page, post, manager, project):
    answer = post(manager, "budget_new", **NEW, note="Pilot")
    row = Budget.objects.get()
    assert answer.url == f"/spend/budgets/{row.key}/"
    text = page(manager, "budget", row.key)
    assert "Payments, a month" in text and "$0.00 / $220.00" in text
    post(
        manager,
        "budget_change",
        row.key,
        limit="300",
        soft_percent="90",
        note="Pilot",
        enabled="on",
    )
    text = page(manager, "budget", row.key)
    assert "limit from 220 to 300" in text and "soft percent from 80 to 90" in text
    assert "set it: <bdi>limit 220; “Pilot”" in text
    assert post(manager, "budget_remove", row.key).url == "/spend/budgets/"
    assert "is removed" in page(manager, "budgets")
    assert "Payments, a month" not in page(manager, "budgets")
    page(manager, "budget", row.key, status=404)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"limit": "lots"}, "It must be a number."),
        ({"limit": "-1"}, "It must be a number from 0 on."),
        ({"project": ""}, "Name the project that the budget is for."),
        ({"scope": "person", "person": "alice", "window": "each_run"}, "set on the installation or a project"),
        ({"scope": "run", "run": "nothing000"}, "There is no run"),
        ({"soft_percent": "0"}, "greater than or equal to 1"),
        ({"metric": "tokens", "limit": "1.5"}, "It must be a whole number."),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_beside_its_field_and_what_was_typed_stays(
    post, manager, operator, project, change, sentence
):
    answer = post(manager, "budget_new", **{**NEW, "note": "For the pilot", **change})
    assert answer.status_code == 400
    text = answer.content.decode()
    error = re.search(r'<div class="field-error".*?</div>', text, re.S)
    assert error and sentence in error.group()
    assert 'value="For the pilot"' in text
    assert not Budget.objects.exists()


def test_the_same_budget_twice_is_refused_on_the_form(post, manager, budget):
    answer = post(manager, "budget_new", **NEW)
    assert answer.status_code == 400
    assert "has a budget in US dollars with the window month already" in answer.content.decode()


def test_a_link_fills_the_form_in(page, manager, project):
    text = page(manager, "budget_new", query="?scope=project&project=payments&limit=12")
    assert re.search(r'value="project" checked', text)
    assert re.search(r'<option value="payments" selected>', text)
    assert 'value="12"' in text


@pytest.mark.parametrize("who", ["viewer", "operator", "reviewer"])
def test_others_look_and_change_nothing(page, post, request, who, budget, incident):
    person = request.getfixturevalue(who)
    assert "Change it" not in page(person, "budget", budget.key)
    assert "Set a budget" not in page(person, "budgets")
    text = page(person, "incident", incident.key)
    assert "A manager decides" in text and 'name="amount"' not in text
    page(person, "budget_new", status=403)
    for name, key in (
        ("budget_change", budget.key),
        ("budget_remove", budget.key),
        ("incident_resolve", incident.key),
    ):
        assert post(person, name, key, how="dismiss").status_code == 403
    assert Incident.objects.get().state == "open"


def test_what_each_run_has_is_not_in_the_list_and_has_a_page(page, viewer, manager, run):
    row = services.create(
        manager, scope="run", subject=run, metric="requests", window="total", limit=20
    )
    assert row.key not in page(viewer, "budgets")
    assert "0 / 20 requests" in page(viewer, "budget", row.key)


def test_a_raised_limit_resolves_what_waits_and_a_lower_one_does_not(
    post, manager, budget, incident
):
    given = {"soft_percent": "80", "enabled": "on"}
    post(manager, "budget_change", budget.key, limit="8", **given)
    assert Incident.objects.get().state == "open"
    assert Budget.objects.get().limit == 8 * PICO
    post(manager, "budget_change", budget.key, limit="25", note="More", **given)
    row = Incident.objects.get()
    assert (row.state, row.how, row.resolved_by) == ("resolved", "raised", manager)
    assert (Budget.objects.get().limit, Budget.objects.get().note) == (25 * PICO, "More")


# --- incidents ----------------------------------------------------------------------------------------------------


def test_an_incident_says_what_happened_and_takes_a_decision(page, post, manager, incident):
    text = page(manager, "incident", incident.key)
    assert "A hard limit was reached" in text and "used up" in text and "Retry webhooks" in text
    assert re.search(r'id="amount-raise" name="amount" value="20"', text)
    assert re.search(r'id="amount-extend" name="amount" value="5"', text)
    post(manager, "incident_resolve", incident.key, how="extend", amount="2.5", note="Release")
    text = page(manager, "incident", incident.key)
    assert "Resolved: extended once by" in text and "“Release”" in text
    assert BudgetWindow.objects.get().extra == 25 * PICO // 10
    assert "extended it once: <bdi>by 2.5" in page(manager, "budget", incident.budget.key)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"how": "raise", "amount": "9"}, "above the present one"),
        ({"how": "raise", "amount": "much"}, "It must be a number."),
        ({"how": "extend", "amount": ""}, "An amount is needed to extend."),
    ],
)
def test_a_decision_that_cannot_be_is_said_beside_it_and_stays_typed(
    post, manager, incident, given, sentence
):
    answer = post(manager, "incident_resolve", incident.key, note="Please", **given)
    assert answer.status_code == 400
    text = answer.content.decode()
    error = re.search(rf'id="error-{given["how"]}".*?</div>', text, re.S)
    assert error and sentence in error.group()
    assert f'id="note-{given["how"]}" name="note" value="Please"' in text
    assert Incident.objects.get().state == "open"


def test_the_second_answer_is_told_who_was_first(post, person, manager, incident):
    post(manager, "incident_resolve", incident.key, how="dismiss")
    answer = post(person("max", "manager"), "incident_resolve", incident.key, how="stop")
    assert answer.status_code == 409
    assert "Mona was first: dismissed. Nothing else was done." in answer.content.decode()
    assert Run.objects.get().state == State.QUEUED


def test_a_run_is_stopped_from_now_and_the_counts_follow(page, post, manager, incident):
    text = page(manager, "now")
    assert "hard limit" in text and "Extend once" in text
    assert "runs without budget</span>" in page(manager, "rail")
    answer = post(manager, "incident_resolve", incident.key, how="stop", next="/")
    assert answer.url == "/"
    assert Run.objects.get().state == State.STOPPED
    assert "hard limit" not in page(manager, "now")
    assert "runs without budget</span>" not in page(manager, "rail")
    assert AuditEntry.objects.filter(action="incident.resolved").exists()


def test_a_decision_leads_nowhere_else(post, manager, incident):
    answer = post(
        manager, "incident_resolve", incident.key, how="dismiss", next="https://evil.example/"
    )
    assert answer.url == f"/spend/incidents/{incident.key}/"


def test_incidents_are_listed_by_state_and_level(page, post, viewer, manager, incident):
    assert incident.key in page(viewer, "incidents")
    assert incident.key in page(viewer, "incidents", query="?level=hard")
    assert incident.key not in page(viewer, "incidents", query="?level=soft")
    post(manager, "incident_resolve", incident.key, how="dismiss")
    assert "No incident waits" in page(viewer, "incidents")
    assert "dismissed" in page(viewer, "incidents", query="?state=resolved")


# --- elsewhere ----------------------------------------------------------------------------------------------------


def test_a_project_and_a_new_run_say_what_is_left(page, operator, budget, run, settings):
    BudgetWindow.objects.update(spent=4 * PICO)
    text = page(operator, "project", "payments")
    assert "$4.00 / $10.00" in text and "/spend/?project=payments" in text
    text = page(operator, "run_new", query="?project=payments")
    assert "Budget left" in text and "$6.00" in text and "$5.00" in text
    assert "$6.00" in page(operator, "run_aside", run.key)


def test_a_persons_page_has_their_budgets(page, manager, operator):
    assert "None on" in page(manager, "person", operator.key)
    services.create(
        manager, scope="person", subject=operator, metric="tokens", window="day", limit=5000
    )
    assert "0 / 5,000 tokens" in page(manager, "person", operator.key)


def test_a_paused_run_leads_to_what_it_waits_for(page, viewer, incident):
    Run.objects.update(state=State.PAUSED)
    assert f"/spend/incidents/{incident.key}/" in page(viewer, "run", incident.run.key)


def test_every_component_is_on_the_style_guide(page, viewer, settings):
    settings.DEBUG = True
    text = page(viewer, "styleguide")
    assert 'class="burn"' in text and 'id="series-6"' in text and 'class="menu"' in text
