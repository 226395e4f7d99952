"""CreateAgentPod, StopAgentPod and DestroyAgentPod over the API, in process; `tests/orchestrators` does it with podman."""

from __future__ import annotations

import pytest
from django.utils import timezone

from devaipod_web.runs.models import Run, RunPod
from devaipod_web.runs.states import State
from tests.api.conftest import problem

pytestmark = [pytest.mark.django_db(transaction=True)]

POD = {
    "project": "payments",
    "argv": ["make", "test"],
    "image": "registry.example/acme/till:2",
    "env": {"MODE": "quick"},
    "workdir": "services/till",
    "title": "Nightly",
    "wall_seconds": 600,
    "labels": {"issue": "7"},
}


def test_a_pod_is_asked_for_and_its_run_is_the_answer(call, operator, project):
    answer = call(operator).post("/pods", POD)
    assert answer.status_code == 201, answer.content
    made = answer.json()
    assert made["pod"] is None
    for name in ("argv", "env", "workdir", "title", "wall_seconds", "labels", "project"):
        assert made[name] == POD[name]
    assert (made["agent"], made["state"], made["exit_code"]) == ("command", "queued", None)
    assert Run.objects.get().asked_image == POD["image"]


def test_the_same_idempotency_key_is_the_same_pod(call, operator, project):
    alice = call(operator)
    first = alice.post("/pods", POD, **{"Idempotency-Key": "nightly-7"})
    second = alice.post("/pods", POD, **{"Idempotency-Key": "nightly-7"})
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["key"] == second.json()["key"]


def test_a_name_that_is_taken_is_a_conflict(call, operator, project):
    alice = call(operator)
    body = {**POD, "unique_label": "issue"}
    assert alice.post("/pods", body).status_code == 201
    assert "already exists" in problem(alice.post("/pods", body), 409, "already-exists")["detail"]


@pytest.mark.parametrize(
    ("more", "status", "code"),
    [
        ({"argv": []}, 400, "bad-request"),
        ({"argv": "make test"}, 422, "invalid-request"),
        ({"env": {"A": 1}}, 422, "invalid-request"),
        ({"env": {"GH_TOKEN": "x"}}, 400, "bad-request"),
        ({"image": "oci:/etc"}, 400, "bad-request"),
        ({"wall_seconds": 1}, 422, "invalid-request"),
        ({"project": "none"}, 404, "no-such-project"),
        ({"comand": "x"}, 422, "invalid-request"),
    ],
)
def test_what_is_wrong_is_a_problem_document(call, operator, project, more, status, code):
    assert problem(call(operator).post("/pods", {**POD, **more}), status, code)["detail"]
    assert not Run.objects.exists()


def test_a_run_of_the_agent_command_is_the_same(call, operator, project):
    alice = call(operator)
    made = alice.post("/runs", {"agent": "command", **POD}).json()
    assert (made["agent"], made["argv"]) == ("command", ["make", "test"])
    refused = alice.post("/runs", {**POD, "task": "x"})
    assert "agent command" in problem(refused, 400, "bad-request")["detail"]


def test_labels_find_runs_and_are_changed(call, operator, project):
    alice = call(operator)
    key = alice.post("/pods", POD).json()["key"]
    alice.post("/pods", {**POD, "labels": {}})
    (found,) = alice.get("/runs?label=issue=7").json()["results"]
    assert found["key"] == key
    changed = alice("PATCH", f"/runs/{key}/labels", {"labels": {"issue": None, "done": "yes"}})
    assert changed.json() == {"labels": {"done": "yes"}}
    assert alice.get("/runs?label=issue").json()["results"] == []
    problem(alice.get('/runs?label=a"b'), 400, "bad-request")


@pytest.fixture
def pod(call, operator, project) -> RunPod:
    run = Run.objects.get(key=call(operator).post("/pods", POD).json()["key"])
    Run.objects.filter(pk=run.pk).update(state=State.RUNNING, attempts=1)
    return RunPod.objects.create(
        run=run, attempt=1, name="devaipod-payments-x-1", backend="podman", image="i",
        control_digest="c", data_digest="d",
    )  # fmt: skip


def test_a_stop_stops_its_run_once(call, operator, pod):
    alice = call(operator)
    assert alice.post(f"/pods/{pod.name}/stop", {"reason": "Enough."}).status_code == 200
    assert Run.objects.get().reason == "Stopped by Alice. Enough."
    problem(alice.post(f"/pods/{pod.name}/stop"), 409, "not-now")


def test_a_destroyed_pod_is_going_until_it_is_gone_and_its_row_stays(call, operator, pod):
    alice = call(operator)
    for _ in range(2):
        assert alice("DELETE", f"/pods/{pod.name}").status_code == 202
    assert Run.objects.get().state == State.STOPPED
    RunPod.objects.update(ended_at=timezone.now(), removed_at=timezone.now())
    gone = alice("DELETE", f"/pods/{pod.name}")
    assert gone.status_code == 200
    assert gone.json()["removed_at"]
    assert alice.get(f"/pods/{pod.name}").status_code == 200


def test_who_may_only_look_destroys_nothing(call, viewer, stranger, pod):
    problem(call(viewer)("DELETE", f"/pods/{pod.name}"), 403, "role-needed")
    problem(call(stranger)("DELETE", f"/pods/{pod.name}"), 404, "not-found")
    assert Run.objects.get().state == State.RUNNING


def test_a_pod_that_is_not_there_is_not_found(call, operator):
    alice = call(operator)
    for method, path in (("DELETE", ""), ("POST", "/stop")):
        problem(alice(method, f"/pods/devaipod-none-x-1{path}"), 404, "not-found")


def test_input_is_on_its_way_or_refused(call, operator, pod):
    alice = call(operator)
    path = f"/runs/{pod.run.key}/input"
    assert "no input" in problem(alice.post(path, {"text": "x"}), 409, "not-now")["detail"]
    Run.objects.update(interactive=True)
    sent = alice.post(path, {"text": "x\n"})
    assert (sent.status_code, sent.json()["state"]) == (202, "queued")


#: What Paperclip's http adapter merges into its payloadTemplate.
PAPERCLIP = {
    "agentId": "agent-1",
    "runId": "run-9",
    "context": {"taskId": "PAP-12", "wakeReason": "issue_assigned"},
}


def test_paperclips_http_adapter_launches_a_command_with_its_ids(call, operator, project):
    alice = call(operator)
    first, again = (alice.post("/pods", {**POD, **PAPERCLIP}) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201)
    made = first.json()
    assert made["labels"] == {
        "issue": "7",
        "paperclip.agent": "agent-1",
        "paperclip.run": "run-9",
        "paperclip.task": "PAP-12",
    }
    assert made["env"] == {
        "MODE": "quick",
        "PAPERCLIP_AGENT_ID": "agent-1",
        "PAPERCLIP_RUN_ID": "run-9",
        "PAPERCLIP_TASK_ID": "PAP-12",
    }


def test_paperclips_http_adapter_launches_an_agent_that_is_told_its_context(
    call, operator, project
):
    body = {"project": "payments", "task": "Work on what you are assigned.", **PAPERCLIP}
    made = call(operator).post("/runs", body).json()
    assert made["title"] == "Work on what you are assigned."
    assert '"wakeReason": "issue_assigned"' in made["task"]
    assert made["env"] == {}
