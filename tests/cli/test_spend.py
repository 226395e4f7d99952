"""`devaipod usage`, `budget` and `incident` against a server."""

from __future__ import annotations

import csv
import io
import json
from datetime import date

import pytest
from django.utils import timezone

from devaipod_web.budgets.models import Budget, BudgetWindow, Incident
from devaipod_web.budgets.money import PICO
from devaipod_web.cli.client import CliError
from devaipod_web.cli.spend import moment
from devaipod_web.home import new_key
from devaipod_web.llm.models import LlmCall
from tests.budgets.test_services import refused

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def mona(environment, manager, here):
    env = environment(manager)

    def run(*words: str) -> str:
        done = here(*words, env=env)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    return run


def called(run, cost: str | None, model: str = "opus") -> None:
    LlmCall.objects.create(
        key=new_key(), run=run, provider_kind="openai", model=model, status=200,
        at=timezone.now(), tokens_in=1200, cost=cost,
    )  # fmt: skip


def test_usage_is_a_table_json_and_csv(mona, run):
    called(run, "1.25")
    called(run, None, "codex")
    text = mona("usage", "--by", "model")
    assert "$1.25" in text and "$0 + ?" in text and "together" in text
    found = json.loads(mona("usage", "--by", "person", "--since", "7d", "--json"))
    assert [row["group"] for row in found["results"]] == ["alice"]
    text = mona("usage", "--by", "agent", "--per", "month", "--csv", "--project", "payments")
    (row,) = csv.DictReader(io.StringIO(text))
    assert (row["agent"], row["cost"]) == ("opencode", "1.250000000000")
    assert "No model was called" in mona("usage", "--until", "2020-01-01", "--since", "2019-01-01")


def test_a_budget_is_set_listed_raised_and_removed(mona, project, run):
    key = mona("budget", "set", "$10", "--project", "payments", "--note", "Pilot").strip()
    row = Budget.objects.get(key=key)
    assert (row.scope, row.metric, row.window, row.limit) == ("project", "usd", "month", 10 * PICO)
    of_run = mona("budget", "set", "20", "--run", run.key, "--in", "requests").strip()
    text = mona("budget", "list")
    assert "project payments" in text and "Pilot" in text and of_run not in text
    assert "20 requests" in mona("budget", "list", "--run", run.key)
    refused(row, run)
    assert "The limit is $25.00" in mona("budget", "raise", key, "25")
    assert Incident.objects.get().how == "raised"
    assert key in mona("budget", "rm", key, "--yes")
    assert key not in mona("budget", "list")


def test_an_incident_is_listed_and_resolved_once(mona, here, environment, manager, project, run):
    key = mona("budget", "set", "10", "--project", "payments").strip()
    incident = refused(Budget.objects.get(key=key), run)
    text = mona("incident", "list")
    assert incident.key in text and "hard" in text
    assert "is resolved: extended" in mona("incident", "resolve", incident.key, "extend", "2")
    assert BudgetWindow.objects.get(budget__key=key).extra == 2 * PICO
    again = here("incident", "resolve", incident.key, "dismiss", env=environment(manager))
    assert again.returncode == 1 and "resolved already" in again.stderr
    assert "No incident waits" in mona("incident", "list")
    assert incident.key in mona("incident", "list", "--state", "all")


@pytest.mark.parametrize(
    "words",
    [
        ["usage", "--by", "colour"],
        ["usage", "--since", "soon"],
        ["usage", "--by", "day", "--csv"],
        ["budget", "set", "10", "--project", "a", "--person", "b"],
        ["incident", "resolve", "zzzzzzzzzz", "forgive"],
        ["incident", "resolve", "zzzzzzzzzz", "extend"],
    ],
)
def test_what_is_written_wrongly_is_explained(here, environment, manager, words):
    done = here(*words, env=environment(manager))
    assert done.returncode == 2, done.stderr
    assert "  → " in done.stderr


def test_days_are_days_ago_or_dates():
    today = date(2026, 11, 24)
    assert moment("7d", today=today) == "2026-11-17T00:00:00Z"
    assert moment("2026-11-01") == "2026-11-01T00:00:00Z"
    assert moment("2026-11-30", end=True) == "2026-12-01T00:00:00Z"
    with pytest.raises(CliError):
        moment("9999-12-31", end=True)
