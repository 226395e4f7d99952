from __future__ import annotations

import re
from html import unescape

import pytest
from django.urls import reverse
from django.utils import timezone

from devaipod_web.runs.models import Run, RunPod
from devaipod_web.runs.services.launch import launch
from devaipod_web.runs.supervisor import records
from pods.findings import finding
from tests.pages.conftest import HOSTILE, begun

SICK = finding(
    "health-check-failing", "The health check of the container `agent` fails.", container="agent"
)
MISSING = finding(
    "agent-missing", "The agent's program `opencode` is not in image x (exit code 42)."
)


@pytest.fixture(autouse=True)
def no_podman(monkeypatch, tmp_path):
    monkeypatch.setenv("DEVAIPOD_PODMAN_SOCKET", str(tmp_path / "nobody.sock"))


def end(run: Run, *, logs: tuple[str, ...] = ("last words",)) -> RunPod:
    records.fail(run.pk, MISSING)
    pod = run.pods.get()
    at = timezone.now().isoformat()
    agent = {
        "name": "agent",
        "state": "exited",
        "exit_code": 42,
        "image": "x",
        "finished_at": at,
        "logs": list(logs),
    }
    RunPod.objects.filter(pk=pod.pk).update(
        ended_at=timezone.now(),
        removed_at=timezone.now(),
        diagnostics={
            "name": pod.name,
            "created_at": at,
            "containers": [agent],
            "findings": [MISSING.as_json()],
        },
    )
    return pod


def test_the_tab_says_the_cause_the_next_step_and_the_last_lines(page, viewer, working):
    pod = end(working.run)
    text = unescape(page(viewer, "run_diagnostics", working.run.key))
    assert 'aria-current="page">Diagnostics' in text
    for words in (
        "`opencode` is not in image x",
        MISSING.next_step,
        "agent-missing",
        pod.name,
        "last words",
        "42",
    ):
        assert words in text
    # An ended run whose pod is gone changes no more: nothing is fetched again.
    assert "hx-get" not in re.search(r'<div class="page-content" id="diagnostics"[^>]*>', text)[0]


def test_the_tab_of_a_run_at_work_is_fetched_again_by_itself(page, viewer, working):
    text = page(viewer, "run_diagnostics", working.run.key)
    assert reverse("run_diagnostics_live", args=[working.run.key]) in text
    assert "backend-unavailable" in text  # nobody listens at podman's socket here
    assert "<html" not in page(viewer, "run_diagnostics_live", working.run.key)


def test_a_queued_run_has_the_tab_too(page, viewer, run):
    assert "The run waits for a place." in page(viewer, "run_diagnostics", run.key)


def test_what_a_pod_wrote_is_text_in_the_tab(page, viewer, working):
    end(working.run, logs=(HOSTILE,))
    text = page(viewer, "run_diagnostics", working.run.key)
    assert "<script>alert" not in text and "<img src=x" not in text
    assert "&lt;script&gt;" in text


def test_the_text_for_a_bug_report_has_no_secret_and_no_control_character(client, viewer, working):
    pod = end(working.run, logs=("API_TOKEN=abcdefgh12345678", "\x1b[31mred"))
    client.force_login(viewer)
    address = reverse("run_diagnostics_text", args=[working.run.key])
    answer = client.get(address)
    text = answer.content.decode()
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert "abcdefgh12345678" not in text and "API_TOKEN=[masked]" in text
    assert "\x1b" not in text
    assert "✗ agent-missing [agent]" in text and "Container Logs" in text
    assert "Content-Disposition" not in answer.headers
    file = client.get(address, {"download": 1})
    assert f'filename="{pod.name}-diagnostics.txt"' in file.headers["Content-Disposition"]


def test_attempts_are_chosen_by_number_and_others_are_not_there(page, client, viewer, working):
    end(working.run)
    RunPod.objects.create(
        run=working.run, attempt=2, name=f"devaipod-payments-{working.run.key}-2", backend="podman",
        image="x", control_digest="c2", data_digest="d2", removed_at=timezone.now(),
    )  # fmt: skip
    text = page(viewer, "run_diagnostics", working.run.key, query="?attempt=1")
    assert 'href="?attempt=1" aria-current="true"' in text
    for number in ("9", "x", "-1", "²"):
        page(viewer, "run_diagnostics", working.run.key, query=f"?attempt={number}", status=404)


@pytest.mark.parametrize("name", ["now", "runs", "run"])
def test_a_failed_run_shows_its_finding_with_the_way_to_its_diagnosis(page, viewer, working, name):
    end(working.run)
    text = page(viewer, name, *([working.run.key] if name == "run" else []))
    assert "`opencode` is not in image x" in text
    assert reverse("run_diagnostics", args=[working.run.key]) in text
    if name == "now":
        assert "Diagnose<" in text


@pytest.mark.parametrize("name", ["now", "runs", "run"])
def test_a_degraded_run_shows_its_finding_while_it_goes_on(page, viewer, working, name):
    args = [working.run.key] if name == "run" else []
    records.degrade(working.run.pk, SICK)
    text = page(viewer, name, *args)
    assert SICK.message in text
    assert reverse("run_diagnostics", args=[working.run.key]) in text
    records.degrade(working.run.pk, None)
    after = page(viewer, name, *args)
    banner = re.search(r'class="notice run-banner"', after)
    assert banner is None
    assert 'class="row-finding"' not in after


@pytest.mark.parametrize("name", ["now", "runs", "runs_live", "now_live"])
def test_findings_cost_lists_no_query(client, operator, project, django_assert_num_queries, name):
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    client.force_login(operator)
    runs = [begun(launch(project, operator, task=f"Task {number}")).run for number in range(6)]
    client.get(reverse(name))
    with CaptureQueriesContext(connection) as before:
        client.get(reverse(name))
    for run in runs[:3]:
        records.degrade(run.pk, SICK)
    for run in runs[3:]:
        records.fail(run.pk, MISSING)
    with django_assert_num_queries(len(before)):
        client.get(reverse(name))


def test_the_tab_takes_the_same_number_of_queries_however_much_happened(
    client, viewer, working, django_assert_max_num_queries
):
    for number in range(40):
        working.says("tool_call", tool_call_id=f"c{number}", title="ls", kind="execute")
    end(working.run)
    client.force_login(viewer)
    with django_assert_max_num_queries(20):
        client.get(reverse("run_diagnostics", args=[working.run.key]))
