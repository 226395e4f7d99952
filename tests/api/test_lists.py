"""Lists: sorted and filtered as asked, every row once, whatever comes and goes between two pages."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from decimal import Decimal
from typing import get_args

import pytest
from django.utils import timezone

from devaipod_web.api import pods as api_pods
from devaipod_web.api import projects as api_projects
from devaipod_web.api import reviews as api_reviews
from devaipod_web.api import runs as api_runs
from devaipod_web.api.schemas.common import RunState
from devaipod_web.projects.models import Project
from devaipod_web.runs.models import Run, RunPod
from devaipod_web.runs.states import State
from tests.api.conftest import problem
from tests.api.things import fill

pytestmark = [pytest.mark.django_db(transaction=True)]

LISTS = {
    "/runs": api_runs.ORDERS,
    "/pods": api_pods.ORDERS,
    "/reviews": api_reviews.ORDERS,
    "/projects": api_projects.ORDERS,
}
EVERY_ORDER = [(path, sort) for path, orders in LISTS.items() for sort in orders]


@pytest.fixture
def things(project, operator):
    found = [fill(project, operator)]
    for slug in ("billing", "alpha", "zeta"):
        row = Project.objects.create(
            slug=slug, name=slug.upper(), upstream_url=f"https://forge.example/{slug}.git"
        )
        found.append(fill(row, operator))
    # Many rows with the same value: only the key settles their order.
    Run.objects.filter(project=project).update(cost=Decimal("0.5"), title="same")
    return found


def name_of(row: dict) -> str:
    return str(row["key"] if "key" in row else row["name"])


def walk(call, path: str, step: str = "next") -> list[str]:
    """The names of all rows, page by page from an address on."""
    names: list[str] = []
    page = call.get(path).json()
    while True:
        rows = [name_of(row) for row in page["results"]]
        names = names + rows if step == "next" else rows + names
        if page[step] is None:
            return names
        address = page[step].partition("/api/devaipod")[2]
        page = call.get(address).json()


@pytest.mark.parametrize(("path", "sort"), EVERY_ORDER)
def test_every_order_gives_every_row_once_forwards_and_back(call, viewer, things, path, sort):
    vera = call(viewer)
    whole = vera.get(f"{path}?sort={sort}&page_size=100").json()
    everything = [name_of(row) for row in whole["results"]]
    assert len(everything) == len(set(everything)) > 3
    assert (whole["next"], whole["previous"]) == (None, None)
    assert walk(vera, f"{path}?sort={sort}&page_size=3") == everything
    last = vera.get(f"{path}?sort={sort}&page_size=3").json()
    while last["next"]:
        last = vera.get(last["next"].partition("/api/devaipod")[2]).json()
    if last["previous"]:
        back = walk(vera, last["previous"].partition("/api/devaipod")[2], "previous")
        assert back + [name_of(row) for row in last["results"]] == everything


@pytest.mark.parametrize(("path", "sort"), EVERY_ORDER)
def test_the_first_order_is_the_one_without_a_word(call, viewer, things, path, sort):
    if sort != next(iter(LISTS[path])):
        return
    vera = call(viewer)
    assert vera.get(path).json()["results"] == vera.get(f"{path}?sort={sort}").json()["results"]


def test_the_orders_are_what_their_words_say(call, viewer, things):
    vera = call(viewer)
    rows = vera.get("/runs?sort=cost&page_size=100").json()["results"]
    costs = [Decimal(row["cost"]) for row in rows]
    assert costs == sorted(costs, reverse=True)
    runs = {run.key: run for run in Run.objects.all()}
    now = timezone.now()

    def at_work(row) -> timedelta:
        run = runs[row["key"]]
        return (run.ended_at or now) - run.started_at if run.started_at else timedelta(0)

    rows = vera.get("/runs?sort=duration&page_size=100").json()["results"]
    durations = [at_work(row) for row in rows]
    assert durations == sorted(durations, reverse=True)
    assert rows[-1]["state"] == "queued"
    rows = vera.get("/runs?sort=oldest&page_size=100").json()["results"]
    times = [row["created_at"] for row in rows]
    assert times == sorted(times)
    rows = vera.get("/projects?sort=name").json()["results"]
    assert [row["name"] for row in rows] == ["ALPHA", "BILLING", "Payments", "ZETA"]


def test_rows_that_come_and_go_between_pages_shift_nothing(call, viewer, operator, things):
    vera = call(viewer)
    before = walk(vera, "/runs?page_size=100")
    first = vera.get("/runs?page_size=5").json()
    seen = [row["key"] for row in first["results"]]
    Run.objects.get(key=seen[0]).delete()
    gone = before[7]
    Run.objects.get(key=gone).delete()
    Run.objects.create(
        project=things[0].project, owner=operator, title="new", task="x", wall_seconds=60
    )
    rest = walk(vera, first["next"].partition("/api/devaipod")[2])
    assert seen + rest == [key for key in before if key != gone]


def test_a_running_runs_duration_grows_and_it_still_comes_once(call, viewer, things):
    vera = call(viewer)
    first = vera.get("/runs?sort=duration&page_size=7").json()
    # Half an hour goes by for the clock of the rows: what runs has grown, what has ended has not.
    names = [row["key"] for row in first["results"]]
    names += walk(vera, first["next"].partition("/api/devaipod")[2])
    assert len(names) == len(set(names)) == Run.objects.count()


@pytest.mark.parametrize("path", LISTS)
def test_a_list_takes_the_same_number_of_queries_however_long(
    call, viewer, project, operator, path, django_assert_max_num_queries
):
    vera = call(viewer)
    fill(project, operator)
    vera.get(path)  # the use of the token is noted now, and not again for a minute
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as short:
        few = len(vera.get(path).json()["results"])
    for number in range(5):
        row = Project.objects.create(
            slug=f"p{number}", name=f"P{number}", upstream_url="https://forge.example/p.git"
        )
        fill(row, operator)
    with CaptureQueriesContext(connection) as long:
        many = len(vera.get(path).json()["results"])
    assert many > few
    assert len(long) == len(short) <= 4


def test_runs_are_filtered_by_state_project_owner_agent_text_and_time(
    call, operator, viewer, things
):
    vera, alice = call(viewer), call(operator)

    def states(query: str) -> set[str]:
        return {row["state"] for row in vera.get(f"/runs?page_size=100&{query}").json()["results"]}

    assert states("state=running,waiting") == states("state=running&state=waiting")
    assert states("state=running,waiting") == {"running", "waiting"}
    assert states("state=ended") == {"succeeded", "failed", "stopped", "timed_out"}
    assert states("state=ended&state=queued") == states("state=ended") | {"queued"}
    assert states("state=") == states("") == set(State.values)

    def count(query: str, who=vera) -> int:
        return len(who.get(f"/runs?page_size=100&{query}").json()["results"])

    everything = Run.objects.count()
    assert count("project=billing") == count(f"project={things[1].project.key}") == len(State)
    assert count("owner=alice") == count("owner=me", alice) == everything
    assert count("owner=me") == count("owner=nobody") == count("agent=other") == 0
    assert count("agent=opencode") == everything
    assert count("text=billing+queued") == 1
    moment = Run.objects.order_by("created_at")[5].created_at
    after = moment.isoformat().replace("+", "%2B")
    assert count(f"created_after={after}") == everything - 5
    assert count(f"created_before={after}") == 5
    assert count(f"created_before={moment.isoformat()}") == 5, "a plus that was not escaped"


def test_pods_are_filtered_by_run_project_state_attempt_and_backend(call, viewer, things):
    vera = call(viewer)

    def names(query: str) -> set[str]:
        return {row["name"] for row in vera.get(f"/pods?page_size=100&{query}").json()["results"]}

    mine = things[0]
    assert names("project=payments") == {pod.name for pod in mine.pods.values()}
    assert names("state=live&project=payments") == names("live=true&project=payments")
    assert names("state=live&project=payments") == {
        mine.pods["running"].name,
        mine.pods["waiting"].name,
    }
    assert names("state=removed") == {
        pod.name for pod in RunPod.objects.filter(removed_at__isnull=False)
    }
    RunPod.objects.filter(pk=mine.pods["running"].pk).update(ended_at=timezone.now())
    assert names("state=ended") == {mine.pods["running"].name}
    run = mine.runs["failed"]
    assert names(f"run={run.key}") == {mine.pods["failed"].name}
    assert names("attempt=1&backend=podman") == names("")
    assert names("attempt=2") == names("backend=kubernetes") == set()


@pytest.mark.parametrize(
    ("query", "field", "says"),
    [
        ("/runs?stat=running", "stat", "state"),
        ("/runs?state=runing", "state.0", "running"),
        ("/runs?sort=price", "sort", "cost"),
        ("/runs?page_size=0", "page_size", "1"),
        ("/runs?page_size=101", "page_size", "100"),
        ("/runs?created_after=yesterday", "created_after", "RFC 3339"),
        ("/runs?created_after=2026-11-24T20:14:03", "created_after", "zone"),
        ("/runs?created_after=0001-01-01T00:00:00%2B23:59", "created_after", "RFC 3339"),
        ("/pods?state=asleep", "state", "live"),
        ("/pods?attempt=first", "attempt", "integer"),
        ("/reviews?state=maybe", "state.0", "promoted"),
        ("/projects?sort=cost", "sort", "newest"),
        ("/status?verbose=1", "verbose", "takes none"),
        ("/usage?group_by=week", "group_by", "day"),
    ],
)
def test_a_parameter_that_cannot_be_is_refused_and_what_can_be_is_named(
    call, viewer, query, field, says
):
    found = problem(call(viewer).get(query), 422, "invalid-request")
    (error,) = found["errors"]
    assert error["field"] == field
    assert says in error["detail"]


def packed(*parts: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


NOW = "2026-11-24T00:00:00+00:00"


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "0" * 900,
        packed("newest"),
        packed("cost", "1", "a", NOW, 0),
        packed("newest", "never", "a", NOW, 0),
        packed("newest", "2026-11-24", "a", NOW, 2),
        packed("newest", 1, "a", NOW, 0),
        packed("newest", NOW, "a\x00", NOW, 0),
        packed("newest", NOW, "a", "then", 0),
        packed("newest", "0001-01-01T00:00:00+23:59", "a", NOW, 0),
        "[" * 500,
    ],
)
def test_a_cursor_that_was_never_given_is_refused(call, viewer, cursor):
    found = problem(call(viewer).get(f"/runs?cursor={cursor}"), 400, "bad-cursor")
    assert "next" in found["next_step"]


def test_a_cursor_of_cost_that_is_no_number_is_refused(call, viewer):
    for value in ("NaN", "Infinity", "1e999999", "x"):
        cursor = packed("cost", value, "a", NOW, 0)
        answer = call(viewer).get(f"/runs?sort=cost&cursor={cursor}")
        assert answer.status_code in (200, 400), answer.content


def test_a_cursor_tells_no_row_number(call, viewer, things):
    cursor = call(viewer).get("/runs?page_size=1").json()["next"].partition("cursor=")[2]
    parts = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    row = Run.objects.get(key=parts[2])
    assert str(row.pk) not in [str(part) for part in parts]


def test_the_states_of_the_api_are_those_of_runs():
    assert list(get_args(RunState)) == State.values
