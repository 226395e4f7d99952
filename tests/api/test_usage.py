from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from django.utils import timezone

from devaipod_web.llm.models import LlmCall, Provider
from devaipod_web.projects.models import Project
from tests.api.things import fill

pytestmark = [pytest.mark.django_db(transaction=True)]


@pytest.fixture
def two(project, operator, reviewer):
    Provider.objects.create(name="Acme", base_url="https://m.example/v1")
    other = Project.objects.create(
        slug="billing", name="Billing", upstream_url="https://forge.example/b.git"
    )
    return fill(project, operator), fill(other, reviewer)


@pytest.mark.parametrize("group", ["project", "run", "owner", "model", "provider", "day"])
def test_the_groups_together_are_the_total(call, viewer, two, group):
    found = call(viewer).get(f"/usage?group_by={group}").json()
    total = found["total"]
    assert total["calls"] == LlmCall.objects.count() > 0
    for name in ("calls", "failed_calls", "tokens_in", "tokens_out", "unpriced_calls"):
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
