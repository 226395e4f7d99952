"""Deleting a run: what goes, what stays, and when it is refused."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone

from devaipod_web import home
from devaipod_web.llm.models import LlmCall
from devaipod_web.projects import queries
from devaipod_web.reviews.models import AuditEntry, Promotion, Review
from devaipod_web.runs import wake
from devaipod_web.runs.models import Run, RunEvent, RunPod
from devaipod_web.runs.states import ENDED, State
from tests.api.conftest import problem
from tests.api.things import fill

pytestmark = [pytest.mark.django_db(transaction=True)]


@pytest.fixture
def things(project, operator):
    return fill(project, operator)


def test_an_ended_run_goes_with_everything_of_it(call, operator, things):
    alice, run = call(operator), things.runs["succeeded"]
    repository = home.run_repository(run.project.key, run.key)
    payload = home.event_payload(run.key, 1)
    for folder in (repository, payload.parent):
        folder.mkdir(parents=True)
    payload.write_text("{}")
    lock = repository.with_suffix(".lock")
    lock.touch()
    others = RunEvent.objects.exclude(run=run).count()
    assert alice("DELETE", f"/runs/{run.key}").status_code == 204
    assert not Run.objects.filter(key=run.key).exists()
    assert not Review.objects.exists() and not Promotion.objects.exists()
    assert RunEvent.objects.count() == others
    for gone in (home.run_logs_dir(run.key), repository, lock, payload.parent):
        assert not gone.exists()
    assert home.run_logs_dir(things.runs["failed"].key).is_dir()
    problem(alice.get(f"/runs/{run.key}"), 404, "not-found")
    problem(alice("DELETE", f"/runs/{run.key}"), 404, "not-found")
    entry = AuditEntry.objects.get(action="run.deleted")
    assert entry.actor == operator
    assert run.key in entry.target
    assert Decimal(entry.detail["cost"]) == run.cost


def spend_of(run: Run) -> Decimal:
    """What the project's card shows."""
    shown: Any = queries.projects().get(pk=run.project_id)
    return Decimal(shown.spend)


def test_what_it_cost_stays_known_by_run_project_and_owner(call, operator, viewer, things):
    alice, run = call(operator), things.runs["failed"]
    total = alice.get("/usage").json()["total"]
    spent = queries.overview(run.project).spend_total
    card = spend_of(run)
    alice("DELETE", f"/runs/{run.key}")
    assert alice.get("/usage").json()["total"] == total
    assert alice.get(f"/usage?group_by=run&run={run.key}").json()["results"][0]["group"] == run.key
    assert alice.get("/usage?project=payments&owner=alice").json()["total"] == total
    assert queries.overview(run.project).spend_total == spent > 0
    assert spend_of(run) == card > 0
    assert LlmCall.objects.filter(run=None, run_key=run.key).count() == 2


@pytest.mark.parametrize("state", [state for state in State if state not in ENDED])
def test_a_run_that_has_not_ended_is_refused(call, operator, things, state):
    run = things.runs[state]
    found = problem(call(operator)("DELETE", f"/runs/{run.key}"), 409, "not-now")
    assert "Stop it first" in found["next_step"]
    assert Run.objects.filter(key=run.key).exists()
    assert home.run_logs_dir(run.key).is_dir() or run.state not in things.pods


def test_anothers_run_needs_a_manager(call, reviewer, manager, things):
    run = things.runs["failed"]
    assert (
        "Alice" in problem(call(reviewer)("DELETE", f"/runs/{run.key}"), 403, "not-yours")["detail"]
    )
    assert call(manager)("DELETE", f"/runs/{run.key}").status_code == 204


def test_a_managers_token_of_a_lesser_role_deletes_no_others_run(person, manager, things):
    from devaipod_web.accounts import tokens
    from devaipod_web.accounts.permissions import Role
    from tests.api.test_tokens import bearer

    call = bearer(tokens.create(manager, "x", role=Role.OPERATOR)[1])
    problem(call("DELETE", f"/runs/{things.runs['failed'].key}"), 403, "not-yours")


def test_a_promotion_on_its_way_is_not_cut_off(call, operator, things):
    Promotion.objects.update(state="started", ended_at=None)
    found = problem(call(operator)("DELETE", f"/runs/{things.review.run.key}"), 409, "not-now")
    assert "promoted" in found["detail"]


def test_a_pod_that_is_kept_warm_is_let_go_first(call, operator, things):
    run = things.runs["succeeded"]
    Run.objects.filter(pk=run.pk).update(keep_warm_until=timezone.now() + timedelta(minutes=9))
    RunPod.objects.filter(run=run).update(ended_at=None, removed_at=None)

    def supervise() -> None:
        # What the supervisor does when a run is kept warm no longer.
        from django.db import connection

        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if not Run.objects.filter(pk=run.pk, keep_warm_until__isnull=False).exists():
                now = timezone.now()
                RunPod.objects.filter(run=run).update(ended_at=now, removed_at=now)
                break
            time.sleep(0.05)
        connection.close()

    thread = threading.Thread(target=supervise)
    thread.start()
    answer = call(operator)("DELETE", f"/runs/{run.key}")
    thread.join(20)
    assert answer.status_code == 204, answer.content
    assert not Run.objects.filter(pk=run.pk).exists()


def test_a_pod_that_does_not_go_is_waited_for_and_then_said(call, operator, things, monkeypatch):
    from devaipod_web.runs.services import delete

    monkeypatch.setattr(delete, "POD_SECONDS", 0.5)
    run = things.runs["succeeded"]
    RunPod.objects.filter(run=run).update(ended_at=None, removed_at=None)
    found = problem(call(operator)("DELETE", f"/runs/{run.key}"), 409, "not-now")
    assert "taken down" in found["detail"]
    assert Run.objects.filter(pk=run.pk).exists()


def test_a_backend_that_does_not_answer_is_said_and_the_run_can_be_deleted_again(
    call, operator, things, monkeypatch
):
    monkeypatch.setenv("DEVAIPOD_PODMAN_SOCKET", "/nonexistent/podman.sock")
    alice, run = call(operator), things.runs["failed"]
    Run.objects.filter(pk=run.pk).update(volumes_pruned_at=None, attempts=1)
    found = problem(alice("DELETE", f"/runs/{run.key}"), 503, "backend-unavailable")
    assert "doctor" in found["next_step"]
    assert Run.objects.filter(pk=run.pk, volumes_pruned_at=None).exists()
    Run.objects.filter(pk=run.pk).update(attempts=0)
    assert alice("DELETE", f"/runs/{run.key}").status_code == 204


def test_a_follower_of_a_deleted_run_comes_to_its_end(call, operator, things):
    from devaipod_web.cli.client import Client
    from tests.api.test_streams import Reader
    from tests.live import serving

    run = things.runs["running"]
    with serving() as url:
        reader = Reader(Client(url, call(operator).token), f"/runs/{run.key}/events", follow=True)
        reader.wait_for(2)
        Run.objects.filter(pk=run.pk).delete()
        wake.wake_now(run.key)
        assert reader.ended()
