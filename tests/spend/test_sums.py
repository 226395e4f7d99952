"""The database's sums against plain Python's over the same rows."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devaipod_web.budgets.spend import changes, figures, report
from devaipod_web.budgets.spend.ranges import Range, preset
from devaipod_web.home import new_key
from devaipod_web.llm import meter, reports
from devaipod_web.llm.models import LlmCall
from devaipod_web.projects.models import Project
from devaipod_web.reviews.models import Promotion, Review
from devaipod_web.runs.models import Run

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
MODELS = ("opus", "codex", "")
CALLS = st.lists(
    st.tuples(
        st.integers(0, 3),  # whose run; 3 is a deleted one's
        st.sampled_from(MODELS),
        st.datetimes(datetime(2026, 10, 20), datetime(2026, 11, 24, 12)),
        st.none() | st.decimals(0, 4000, places=12),
        st.booleans(),
    ),
    max_size=25,
)


@pytest.fixture
def runs(project, operator, reviewer) -> list[Run]:
    other = Project.objects.create(slug="search", name="Search", upstream_url="https://x.example/s")
    return [
        Run.objects.create(
            project=where, owner=who, title="t", task="t", agent=agent, wall_seconds=60
        )
        for where, who, agent in (
            (project, operator, "opencode"),
            (project, reviewer, "codex"),
            (other, operator, "codex"),
        )
    ]


def group(call: LlmCall, by: str) -> str:
    """What a call counts for, said once more in plain Python."""
    run = call.run
    project = run.project_id if run else call.project_id
    owner = run.owner_id if run else call.owner_id
    agent = run.agent if run else call.agent
    return str({"project": project, "owner": owner, "agent": agent, "model": call.model}[by])


def period(at: datetime, per: str) -> str:
    if per == "week":
        return (at.date() - timedelta(days=at.weekday())).isoformat()
    return at.strftime({"hour": "%Y-%m-%d %H", "day": "%Y-%m-%d", "month": "%Y-%m"}[per])


@pytest.mark.parametrize("per", ["hour", "day", "week", "month"])
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(given=CALLS)
def test_series_are_the_sums_of_their_rows_to_the_last_digit(per, runs, given):
    LlmCall.objects.all().delete()
    given_costs: dict[int, Decimal] = {}
    for who, model, at, cost, flag in given:
        named = (
            {"run": runs[who]}
            if who < 3
            else {
                "run_key": "gone",
                "project": runs[0].project,
                "owner": runs[0].owner,
                "agent": "goose",
            }
        )
        made = LlmCall.objects.create(
            key=new_key(), provider_kind="openai", model=model, at=at.replace(tzinfo=UTC),
            status=200, tokens_in=3, tokens_out=2, cost=cost, unpriced=flag, estimated=flag, **named,
        )  # fmt: skip
        given_costs[made.pk] = cost or Decimal(0)
    rows = list(LlmCall.objects.select_related("run"))
    for by in ("project", "owner", "agent", "model"):
        expected: dict[tuple[str, str], list[LlmCall]] = defaultdict(list)
        for call in rows:
            expected[period(call.at, per), group(call, by)].append(call)
        found = {(row.period, row.group): row for row in reports.series(reports.calls(), by, per)}
        assert set(found) == set(expected)
        for key, calls in expected.items():
            row = found[key]
            # Read back one by one, a cost above 999 dollars would lack its last digit on SQLite.
            assert row.cost == sum((given_costs[call.pk] for call in calls), Decimal(0))
            assert row.calls == len(calls)
            assert row.tokens_in == 3 * len(calls)
            assert row.uncounted_calls == sum(call.cost is None for call in calls)
            assert row.unpriced_calls == sum(c.cost is None or c.unpriced for c in calls)
            assert row.estimated_calls == sum(call.estimated for call in calls)
        total = reports.total(reports.calls())
        assert reports.added(found.values()) == total
        assert reports.cost(reports.calls()) == total.cost
    range_ = Range(datetime(2026, 10, 1).date(), datetime(2026, 11, 24).date())
    drawn = report.stack(reports.series(reports.calls(), "model", "day"), range_, "model", NOW)
    assert sum((column.total.cost for column in drawn.columns), Decimal(0)) == total.cost
    assert all(sum(column.costs) == column.total.cost for column in drawn.columns)


def call(run: Run, at: str, cost: str) -> None:
    LlmCall.objects.create(
        key=new_key(), run=run, provider_kind="openai", model="m", status=200,
        at=datetime.fromisoformat(at).replace(tzinfo=UTC), cost=Decimal(cost),
    )  # fmt: skip


def test_days_are_those_of_utc_and_a_range_has_both_of_its_ends(runs):
    for at in (
        "2026-11-09T23:59:59.999999",
        "2026-11-10T00:00:00",
        "2026-11-11T23:59:59.999999",
        "2026-11-12T00:00:00",
    ):
        call(runs[0], at, "1")
    range_ = Range(datetime(2026, 11, 10).date(), datetime(2026, 11, 11).date())
    found = reports.calls(since=range_.start, until=range_.end)
    drawn, _ = report.stacked(found, range_, "project", NOW)
    assert [(column.period, column.total.cost) for column in drawn.columns] == [
        ("2026-11-10", Decimal(1)),
        ("2026-11-11", Decimal(1)),
    ]


def test_a_sum_of_many_small_costs_is_exact(runs):
    LlmCall.objects.bulk_create(
        LlmCall(
            key=new_key(), run=runs[0], provider_kind="openai", model="m", status=200, at=NOW,
            cost=Decimal("0.100000000001"),
        )
        for _ in range(3_000)
    )  # fmt: skip
    assert reports.cost(reports.calls()) == Decimal("300.000000003000")
    assert reports.sums(reports.calls(), "day", limit=3)[0].cost == Decimal("300.000000003")


def test_six_groups_have_a_colour_and_the_rest_are_drawn_together(runs):
    for number in range(9):
        LlmCall.objects.create(
            key=new_key(), run=runs[0], provider_kind="openai", model=f"m{number}", status=200,
            at=NOW, cost=Decimal(number + 1),
        )  # fmt: skip
    range_ = preset("month", NOW.date())
    drawn, _ = report.stacked(reports.calls(), range_, "model", NOW)
    assert [one.label for one in drawn.series] == ["m8", "m7", "m6", "m5", "m4", "m3", "3 others"]
    assert [one.number for one in drawn.series] == [1, 2, 3, 4, 5, 6, 0]
    assert drawn.columns[-1].costs == [9, 8, 7, 6, 5, 4, 6]
    assert len(drawn.columns) == 24


def test_what_a_deleted_run_spent_stays_with_its_project_person_and_agent(runs):
    call(runs[1], "2026-11-20T10:00:00", "2.5")
    meter.keep_without_run(runs[1])
    for by, word in (("project", "payments"), ("owner", "bob"), ("agent", "codex")):
        (row,) = reports.named_series(reports.calls(), by, "day")
        assert (row.group, row.cost) == (word, Decimal("2.5"))


# --- changes ------------------------------------------------------------------------------------------------------


def reviewed(run: Run, state: str, cost: str, *done: str) -> None:
    Run.objects.filter(pk=run.pk).update(cost=Decimal(cost), state="succeeded")
    review = Review.objects.create(
        run=run, state=state, base="a", head="b", diff_digest="c", updated_at=NOW
    )
    for at in done:
        Promotion.objects.create(
            review=review, head="b", diff_digest="c", target_url="x", target_branch="y",
            state="done", ended_at=datetime.fromisoformat(at).replace(tzinfo=UTC),
        )  # fmt: skip


def test_a_change_counts_once_when_it_is_promoted_first(runs):
    reviewed(runs[0], "promoted", "3", "2026-11-03T10:00", "2026-11-09T10:00")
    reviewed(runs[1], "promoted", "8", "2026-10-31T23:59", "2026-11-09T10:00")
    reviewed(runs[2], "promoted", "5", "2026-11-20T10:00")
    range_ = preset("month", NOW.date())
    found = changes.promoted(range_.start, range_.end)
    assert [found.promoted, found.median_cost] == [2, 4]
    of_one = changes.promoted(range_.start, range_.end, runs[2].project)
    assert [of_one.promoted, of_one.median_cost] == [1, 5]
    assert changes.promoted(NOW, NOW).median_cost is None


def test_what_was_rejected_is_a_part_of_what_was_spent(runs):
    for run, cost in ((runs[0], "6"), (runs[1], "2")):
        call(run, "2026-11-05T10:00:00", cost)
        call(run, "2026-10-05T10:00:00", "1")
    reviewed(runs[1], "rejected", "3")
    reviewed(runs[0], "promoted", "7", "2026-11-05T11:00")
    found = figures.figures(preset("month", NOW.date()), NOW, None)
    assert [found.spent, found.rejected, found.rejected_share] == [8, 2, "25 % of all"]
    assert [found.before, found.change] == [2, "+300 % on October to date"]
    assert found.per_change == 8
    assert figures.figures(preset("7d", NOW.date()), NOW, None).change == "nothing yet"
