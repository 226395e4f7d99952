"""The endpoint without a pod to ask about: what was kept, stored logs, a backend that does not answer. On real pods: tests/scenarios."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from devaipod_web.api.schemas.pods import DiagnosisOut
from devaipod_web.llm.models import LlmCall
from devaipod_web.runs import diagnosis, events
from devaipod_web.runs.log_writer import Writer
from devaipod_web.runs.models import Run, RunPod
from devaipod_web.runs.states import State
from devaipod_web.runs.supervisor import records
from pods import causes, diagnostics
from pods.findings import finding
from pods.spec import LogLine
from tests.api.conftest import problem

pytestmark = [pytest.mark.django_db(transaction=True)]

TOKEN = "q3Vh0xUO4mWc-GZr_8bJtY1nLk5sEdPaF7uQw2iRzX9"


@pytest.fixture(autouse=True)
def no_podman(monkeypatch, tmp_path):
    """No service listens there: whoever asks the backend is told so."""
    monkeypatch.setenv("DEVAIPOD_PODMAN_SOCKET", str(tmp_path / "nobody.sock"))


def pod_of(run: Run, **more) -> RunPod:
    Run.objects.filter(pk=run.pk).update(attempts=1)
    run.refresh_from_db()
    return RunPod.objects.create(
        run=run,
        attempt=1,
        name=f"devaipod-payments-{run.key}-1",
        backend="podman",
        image="localhost/agent:1",
        control_digest=f"c{run.key}",
        data_digest=f"d{run.key}",
        **more,
    )


def kept(pod: RunPod, **agent) -> dict:
    at = timezone.now().isoformat()
    container = {
        "name": "agent",
        "state": "exited",
        "exit_code": 42,
        "health": "",
        "image": "localhost/agent:1",
        "started_at": at,
        "finished_at": at,
        "logs": ["devaipod: the program opencode is not in this image", f"key {TOKEN}"],
        **agent,
    }
    return {"name": pod.name, "backend": "podman", "created_at": at, "containers": [container]}


def fail(run: Run, found) -> None:
    Run.objects.filter(pk=run.pk).update(state=State.STARTING)
    records.fail(run.pk, found)
    run.refresh_from_db()


def seen(call, person, path: str) -> dict:
    answer = call(person).get(path)
    assert answer.status_code == 200, answer.content
    document: dict = answer.json()
    # The answer is written without a look at its schema: here it is looked at.
    checked = DiagnosisOut.model_validate(document).model_dump()
    assert set(checked) == set(document)
    for container, one in zip(checked["containers"], document["containers"], strict=True):
        assert set(container) == set(one)
    return document


def test_a_run_that_never_had_a_pod_has_a_diagnosis(call, viewer, run):
    document = seen(call, viewer, f"/runs/{run.key}/diagnostics")
    assert (document["name"], document["state"], document["containers"]) == (None, None, [])
    assert [one["code"] for one in document["findings"]] == ["queued"]
    fail(run, finding("upstream-failed", "The upstream has no branch main."))
    (found,) = seen(call, viewer, f"/runs/{run.key}/diagnostics")["findings"]
    assert (found["code"], found["severity"]) == ("upstream-failed", "error")
    assert (found["message"], found["next_step"]) == (run.reason, run.next_step)


def test_a_pod_that_is_gone_answers_from_what_was_kept(call, viewer, run):
    now = timezone.now()
    pod = pod_of(run, removed_at=now, ended_at=now)
    fail(run, finding("agent-missing", "The agent's program `opencode` is not in image x."))
    RunPod.objects.filter(pk=pod.pk).update(
        diagnostics={**kept(pod), "findings": [finding("agent-missing", run.reason).as_json()]}
    )
    document = seen(call, viewer, f"/pods/{pod.name}/diagnostics")
    assert document == seen(call, viewer, f"/runs/{run.key}/diagnostics")
    assert (document["state"], document["attempt"]) == ("gone", 1)
    (agent,) = document["containers"]
    assert (agent["state"], agent["exit_code"]) == ("exited", 42)
    (found,) = document["findings"]
    assert (found["code"], found["message"], found["container"]) == (
        "agent-missing",
        run.reason,
        "agent",
    )


def test_no_secret_is_in_a_diagnosis(call, viewer, run):
    now = timezone.now()
    pod = pod_of(run, removed_at=now, ended_at=now)
    RunPod.objects.filter(pk=pod.pk).update(diagnostics=kept(pod, error=f"Bearer {TOKEN}"))
    fail(run, finding("agent-exited", f"Its last words: OPENAI_API_KEY={TOKEN[:20]}"))
    answer = call(viewer).get(f"/pods/{pod.name}/diagnostics").content.decode()
    assert TOKEN[:20] not in answer
    assert "[masked]" in answer


def test_a_pod_of_which_nothing_was_kept_answers_from_its_stored_logs(call, viewer, run):
    now = timezone.now()
    pod = pod_of(run, removed_at=now, ended_at=now)
    writer = Writer(run.key, pod.name, "agent")
    writer.append([LogLine("stderr", now, f"line {n}".encode(), str(n)) for n in range(80)])
    writer.close(finished=True)
    document = seen(call, viewer, f"/pods/{pod.name}/diagnostics")
    (agent,) = document["containers"]
    assert agent["state"] == "gone"
    assert agent["logs"] == [f"line {n}" for n in range(30, 80)]


def test_a_backend_that_does_not_answer_is_a_finding_and_no_error(call, viewer, run):
    pod = pod_of(run)
    Run.objects.filter(pk=run.pk).update(state=State.RUNNING)
    document = seen(call, viewer, f"/pods/{pod.name}/diagnostics")
    assert document["state"] == "unknown"
    (found,) = document["findings"]
    assert (found["code"], found["severity"]) == ("backend-unavailable", "error")
    assert "does not answer" in found["message"] and found["next_step"]


def test_an_attempt_that_was_lost_keeps_its_own_finding(call, viewer, run):
    now = timezone.now()
    first = pod_of(run, removed_at=now, ended_at=now)
    lost = causes.pod_lost("the sidecar ended with exit code 1.")
    RunPod.objects.filter(pk=first.pk).update(
        diagnostics={**kept(first, exit_code=137), "findings": [lost.as_json()]}
    )
    Run.objects.filter(pk=run.pk).update(state=State.PREPARING)
    # The next attempt has no pod yet: the run alone is shown, and the lost one by its number.
    assert seen(call, viewer, f"/runs/{run.key}/diagnostics")["name"] is None
    document = seen(call, viewer, f"/runs/{run.key}/diagnostics?attempt=1")
    assert [one["code"] for one in document["findings"]] == ["pod-lost"]
    problem(call(viewer).get(f"/runs/{run.key}/diagnostics?attempt=7"), 404, "not-found")
    problem(call(viewer).get("/pods/devaipod-nobody-1/diagnostics"), 404, "not-found")


def test_a_run_that_failed_before_there_were_findings_still_says_why(call, viewer, run):
    Run.objects.filter(pk=run.pk).update(state=State.FAILED, reason="Something broke.")
    (found,) = seen(call, viewer, f"/runs/{run.key}/diagnostics")["findings"]
    assert (found["code"], found["message"]) == ("run-failed", "Something broke.")


def test_what_is_wrong_with_a_run_in_progress_is_on_its_row_until_it_is_over(call, viewer, run):
    pod_of(run)
    Run.objects.filter(pk=run.pk).update(state=State.RUNNING, next_step="")
    sick = finding("health-check-failing", "The health check fails.", container="agent")
    records.degrade(run.pk, sick)
    row = call(viewer).get(f"/runs/{run.key}").json()
    assert (row["finding_code"], row["reason"], row["next_step"]) == (
        sick.code,
        sick.message,
        sick.next_step,
    )
    notes = events.after(run.pk, 0, limit=100)
    records.degrade(run.pk, sick)
    assert len(events.after(run.pk, 0, limit=100)) == len(notes)  # said once
    records.degrade(run.pk, None)
    row = call(viewer).get(f"/runs/{run.key}").json()
    assert (row["finding_code"], row["reason"]) == ("", "")


def test_a_run_whose_model_refuses_is_degraded_until_it_answers(run):
    pod = pod_of(run)
    Run.objects.filter(pk=run.pk).update(state=State.RUNNING)

    def called(status: int, error: str = "") -> None:
        LlmCall.objects.create(
            run=run,
            provider_kind="openai",
            model="m",
            at=timezone.now(),
            status=status,
            error=error,
        )

    called(402, "The credit is used up (402).")
    facts = diagnosis.facts_of_pod(pod.pk)
    assert diagnostics.degraded(None, facts).code == "budget-used-up"
    called(499, "The agent hung up.")
    assert diagnosis.facts_of_pod(pod.pk).model_error.code == "budget-used-up"
    called(200)
    assert diagnosis.facts_of_pod(pod.pk).model_error is None


def test_an_attempts_calls_before_it_do_not_count(run):
    LlmCall.objects.create(
        run=run,
        provider_kind="openai",
        model="m",
        at=timezone.now() - timedelta(minutes=5),
        status=500,
        error="x",
    )
    pod = pod_of(run)
    Run.objects.filter(pk=run.pk).update(state=State.RUNNING)
    assert diagnosis.facts_of_pod(pod.pk).model_error is None
