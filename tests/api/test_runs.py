from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from devaipod_web.runs import events
from devaipod_web.runs.models import PermissionRequest, Run, RunPod
from tests.api.conftest import problem, streamed

pytestmark = [pytest.mark.django_db(transaction=True)]

TASK = {"project": "payments", "task": "Retry webhooks"}


def test_an_operator_launches_a_run_and_reads_it(call, operator, project):
    alice = call(operator)
    made = alice.post("/runs", TASK)
    assert made.status_code == 201, made.content
    found = alice.get(f"/runs/{made.json()['key']}").json()
    assert found["state"] == "queued"
    assert found["project"] == "payments"
    assert found["owner"] == "alice"
    assert found["provider_label"] == "scripted demo, no AI"
    assert found["queue_place"] == 1
    assert found["cost"] == "0E-8" or float(found["cost"]) == 0


def test_the_same_idempotency_key_is_the_same_run(call, operator, project):
    alice = call(operator)
    first = alice.post("/runs", TASK, **{"Idempotency-Key": "nightly-7"})
    second = alice.post("/runs", TASK, **{"Idempotency-Key": "nightly-7"})
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert second.headers["Idempotency-Replayed"] == "true"
    assert Run.objects.count() == 1


def test_an_empty_task_is_refused_with_the_next_step(call, operator, project):
    answer = call(operator).post("/runs", {"project": "payments", "task": "  "})
    assert problem(answer, 400, "bad-request")["next_step"]


def test_a_project_that_is_not_there_is_named(call, operator):
    answer = call(operator).post("/runs", TASK)
    assert "payments" in problem(answer, 404, "no-such-project")["detail"]


def test_a_misspelt_field_is_refused_by_its_name(call, operator, project):
    answer = call(operator).post("/runs", {**TASK, "modle": "x"})
    assert "modle" in problem(answer, 422, "invalid-request")["detail"]


def test_junk_instead_of_json_is_refused(call, operator):
    alice = call(operator)
    answer = alice.client.post(
        "/api/devaipod/runs",
        "{",
        content_type="application/json",
        headers={"Authorization": f"Bearer {alice.token}"},
    )
    assert "JSON" in problem(answer, 400, "bad-body")["detail"]


def test_lists_are_paged_by_cursor_and_filtered(call, operator, project):
    alice = call(operator)
    for number in range(5):
        alice.post("/runs", {**TASK, "title": f"number {number}"})
    page = alice.get("/runs?page_size=2&state=active").json()
    titles = [row["title"] for row in page["results"]]
    while page["next"]:
        page = alice.client.get(
            page["next"], headers={"Authorization": f"Bearer {alice.token}"}
        ).json()
        titles += [row["title"] for row in page["results"]]
    assert titles == [f"number {n}" for n in (4, 3, 2, 1, 0)]
    assert alice.get("/runs?state=succeeded").json()["results"] == []
    assert len(alice.get("/runs?owner=me&project=payments").json()["results"]) == 5
    assert "timed_out" in problem(alice.get("/runs?state=asleep"), 422, "invalid-request")["detail"]


def test_a_list_of_runs_takes_the_same_number_of_queries_however_long(
    call, operator, project, django_assert_max_num_queries
):
    alice = call(operator)
    for _ in range(8):
        alice.post("/runs", TASK)
    with django_assert_max_num_queries(5):
        assert len(alice.get("/runs").json()["results"]) == 8


def test_a_prompt_and_a_stop_reach_the_run(call, operator, run):
    alice = call(operator)
    turn = alice.post(f"/runs/{run.key}/prompt", {"text": "And add a test."})
    assert turn.status_code == 202
    assert turn.json()["prompt"] == "And add a test."
    stopped = alice.post(f"/runs/{run.key}/stop", {"reason": "not needed"}).json()
    assert stopped["state"] == "stopped"
    assert "not needed" in stopped["reason"]
    problem(alice.post(f"/runs/{run.key}/stop"), 409, "not-now")


def test_of_two_answers_to_a_permission_request_the_first_counts(call, operator, reviewer, run):
    pod = RunPod.objects.create(
        run=run,
        attempt=1,
        name="devaipod-p-1",
        backend="podman",
        image="i",
        control_digest="a" * 64,
        data_digest="b" * 64,
    )
    now = timezone.now()
    asked = PermissionRequest.objects.create(
        run=run,
        pod=pod,
        request_id="r1",
        title="Run ls",
        asked_at=now,
        expires_at=now + timedelta(minutes=5),
        options=[
            {"id": "once", "name": "Allow", "kind": "allow_once"},
            {"id": "no", "name": "Refuse", "kind": "reject_once"},
        ],
    )
    alice, bob = call(operator), call(reviewer)
    assert alice.get(f"/runs/{run.key}").json()["permissions"][0]["key"] == asked.key
    first = alice.post(f"/runs/{run.key}/permission", {"request": asked.key, "option_id": "once"})
    assert first.json()["state"] == "allowed"
    second = bob.post(f"/runs/{run.key}/permission", {"request": asked.key, "option_id": "no"})
    assert "Alice" in problem(second, 409, "already-answered")["detail"]


def test_events_come_as_ndjson_after_the_cursor(call, operator, run):
    for number in range(3):
        events.record(run, "message", {"message_id": "m", "text": f"line {number}"})
    alice = call(operator)
    answer = alice.get(f"/runs/{run.key}/events?after=1")
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    rows = streamed(answer)
    assert [row["seq"] for row in rows] == [2, 3]
    assert rows[0]["payload"]["text"] == "line 1"


def test_a_run_that_is_not_there_is_a_problem_document(call, operator):
    problem(call(operator).get("/runs/zzzzzzzzzz"), 404, "not-found")


def test_a_run_is_paused_and_resumed(call, operator, run):
    alice = call(operator)
    refused = problem(alice.post(f"/runs/{run.key}/pause"), 409, "not-now")
    assert refused["detail"] == "Only a run at work can be paused; this one is queued."
    Run.objects.filter(pk=run.pk).update(state="running")
    found = alice.post(f"/runs/{run.key}/pause", {"reason": "Let me look."}).json()
    assert (found["state"], found["pause_cause"]) == ("paused", "person")
    assert found["reason"] == "Paused by Alice. Let me look."
    said = problem(alice.post(f"/runs/{run.key}/prompt", {"text": "more"}), 409, "not-now")
    assert "Resume it with these words" in said["next_step"]
    found = alice.post(f"/runs/{run.key}/resume", {"text": "more"}).json()
    assert (found["state"], found["pause_cause"]) == ("queued", "")
    problem(alice.post(f"/runs/{run.key}/resume"), 409, "not-now")
