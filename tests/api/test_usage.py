from __future__ import annotations

import csv
import io
from datetime import timedelta
from decimal import Decimal

import pytest
from django.utils import timezone

from devaipod_web.accounts import tokens
from devaipod_web.budgets import services
from devaipod_web.llm.models import LlmCall, Provider
from devaipod_web.projects.models import Project
from tests.api.conftest import problem, streamed
from tests.api.things import fill

pytestmark = [pytest.mark.django_db(transaction=True)]


@pytest.fixture
def two(project, operator, reviewer):
    Provider.objects.create(name="Acme", base_url="https://m.example/v1")
    other = Project.objects.create(
        slug="billing", name="Billing", upstream_url="https://forge.example/b.git"
    )
    return fill(project, operator), fill(other, reviewer)


@pytest.mark.parametrize("group", ["project", "run", "owner", "agent", "model", "provider", "day"])
def test_the_groups_together_are_the_total(call, viewer, two, group):
    found = call(viewer).get(f"/usage?group_by={group}").json()
    total = found["total"]
    assert total["calls"] == LlmCall.objects.count() > 0
    for name in (
        "calls",
        "failed_calls",
        "tokens_in",
        "tokens_out",
        "unpriced_calls",
        "uncounted_calls",
    ):
        assert sum(row[name] for row in found["results"]) == total[name], name
    assert sum(Decimal(row["cost"]) for row in found["results"]) == Decimal(total["cost"])
    assert all(row["group"] for row in found["results"])
    assert (found["more"], found["group_by"]) == (False, group)


def test_the_dearest_come_first_and_days_in_their_order(call, viewer, two):
    vera = call(viewer)
    costs = [Decimal(row["cost"]) for row in vera.get("/usage?group_by=run").json()["results"]]
    assert costs == sorted(costs, reverse=True)
    days = [row["group"] for row in vera.get("/usage?group_by=day").json()["results"]]
    assert days == sorted(days)
    assert days[-1] == timezone.now().date().isoformat()


def test_calls_are_filtered_by_project_run_owner_model_and_time(call, viewer, reviewer, two):
    mine, other = two

    def calls(query: str, who=None) -> int:
        return int((who or call(viewer)).get(f"/usage?{query}").json()["total"]["calls"])

    everything = calls("")
    assert calls("project=payments") == calls(f"project={other.project.key}") == everything / 2
    assert calls("owner=bob") == calls("owner=me", call(reviewer)) == everything / 2
    assert calls(f"run={mine.runs['failed'].key}") == 2
    assert calls("model=model-0") + calls("model=model-1") + calls("model=model-2") == everything
    since = (timezone.now() - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert calls(f"since={since}") + calls(f"until={since}") == everything
    assert 0 < calls(f"since={since}") < everything
    assert calls("project=nothing") == 0
    assert Decimal(call(viewer).get("/usage?project=nothing").json()["total"]["cost"]) == 0


def test_more_says_that_there_are_others_and_the_total_counts_them(call, viewer, two):
    found = call(viewer).get("/usage?group_by=run&limit=3").json()
    assert len(found["results"]) == 3
    assert found["more"]
    assert found["total"]["calls"] == LlmCall.objects.count()


def test_sums_take_the_same_number_of_queries_however_many_calls(
    call, viewer, two, django_assert_max_num_queries
):
    vera = call(viewer)
    vera.get("/usage")
    with django_assert_max_num_queries(4):
        vera.get("/usage?group_by=run")


# --- over time ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", ["project", "owner", "agent", "model"])
def test_a_series_together_is_the_total_and_its_groups_have_their_words(call, viewer, two, group):
    vera = call(viewer)
    since = (timezone.now() - timedelta(days=9)).strftime("%Y-%m-%dT00:00:00Z")
    found = vera.get(f"/usage/series?group_by={group}&since={since}").json()
    assert found["total"]["calls"] == LlmCall.objects.count()
    assert sum(Decimal(row["cost"]) for row in found["results"]) == Decimal(found["total"]["cost"])
    groups = {row["group"] for row in vera.get(f"/usage?group_by={group}").json()["results"]}
    assert {row["group"] for row in found["results"]} == groups
    periods = [row["period"] for row in found["results"]]
    assert periods == sorted(periods)
    text = vera.get(f"/usage/series?group_by={group}&since={since}&format=csv")
    assert text.headers["Content-Type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(text.content.decode())))
    assert [(row["day"], row[group], row["cost"]) for row in rows] == [
        (row["period"], row["group"], row["cost"]) for row in found["results"]
    ]


def test_a_series_begins_with_the_month_and_has_an_end_to_its_length(call, viewer, two):
    vera = call(viewer)
    month = timezone.now().strftime("%Y-%m")
    rows = vera.get("/usage/series").json()["results"]
    assert all(row["period"].startswith(month) for row in rows)
    problem(vera.get("/usage/series?per=hour&since=1990-01-01T00:00:00Z"), 400, "bad-range")
    problem(vera.get("/usage/series?group_by=day"), 422, "invalid-request")


def test_calls_are_a_stream_and_a_file(call, viewer, two):
    vera = call(viewer)
    rows = streamed(vera.get("/usage/calls"))
    assert len(rows) == LlmCall.objects.count()
    assert [row["at"] for row in rows] == sorted(row["at"] for row in rows)
    assert {row["project"] for row in rows} == {"payments", "billing"}
    assert any(row["cost"] is None for row in rows)
    mine, _ = two
    run = mine.runs["failed"].key
    assert {row["run"] for row in streamed(vera.get(f"/usage/calls?run={run}"))} == {run}
    answer = vera.get("/usage/calls?format=csv&project=payments")
    assert answer.headers["Content-Type"].startswith("text/csv")
    assert "attachment" in answer.headers["Content-Disposition"]


def test_the_summary_has_the_figures_of_the_page(call, viewer, manager, two):
    vera = call(viewer)
    services.create(manager, scope="installation", metric="usd", window="month", limit=600)
    since = (timezone.now() - timedelta(days=9)).strftime("%Y-%m-%dT00:00:00Z")
    found = vera.get(f"/usage/summary?since={since}").json()
    assert Decimal(found["cost"]) == Decimal(vera.get("/usage").json()["total"]["cost"])
    assert (found["promoted_changes"], found["median_promoted_cost"]) == (0, None)
    assert Decimal(found["previous_cost"]) == 0
    assert Decimal(found["month"]["limit"]) == 600
    problem(vera.get("/usage/summary?project=nothing"), 404, "not-found")
    problem(vera.get(f"/usage/summary?since={since}&until=2020-01-01T00:00:00Z"), 400, "bad-range")


def test_a_token_of_one_project_sees_its_own_spend_alone(call, viewer, two):
    _, text = tokens.create(viewer, "bound", project=two[0].project)
    bound = call(viewer)
    bound.token = text
    mine = LlmCall.objects.filter(run__project=two[0].project).count()
    since = "since=2020-01-01T00:00:00Z"
    assert bound.get(f"/usage/series?per=month&{since}").json()["total"]["calls"] == mine
    assert {row["project"] for row in streamed(bound.get("/usage/calls"))} == {"payments"}
    whole = Decimal(call(viewer).get(f"/usage/summary?{since}").json()["cost"])
    assert 0 < Decimal(bound.get(f"/usage/summary?{since}").json()["cost"]) < whole
    problem(bound.get("/usage/summary?project=billing"), 404, "not-found")
