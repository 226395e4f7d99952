from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import date, timedelta

import pytest
from django.utils import timezone

from devaipod_web.cli.tokens import days_until
from devaipod_web.runs import events
from devaipod_web.runs.log_writer import Writer
from devaipod_web.runs.models import PermissionRequest, Run, RunPod
from pods.spec import LogLine
from tests.cli.conftest import ROOT, devaipod

# Each starts processes: together they take most of a minute.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.django_db(transaction=True),
]


def wait_for_run() -> Run:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        run = Run.objects.select_related("project").first()
        if run is not None:
            return run
        time.sleep(0.05)
    raise AssertionError("no run was made")


def end(run: Run, state: str, reason: str = "") -> None:
    Run.objects.filter(pk=run.pk).update(state=state, reason=reason)
    events.record(run, "run.state", {"from": "running", "to": state, "reason": reason})


def in_background(make):
    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("state", "status"), [("succeeded", 0), ("failed", 10), ("stopped", 11), ("timed_out", 12)]
)
def test_run_streams_the_transcript_and_exits_by_the_outcome(alice, project, state, status):
    def play() -> None:
        run = wait_for_run()
        for piece in ("Looking ", "around."):
            events.record(run, "message", {"message_id": "m", "text": piece})
        events.record(
            run, "tool_call", {"tool_call_id": "t", "title": "Read README", "status": "completed"}
        )
        end(run, state, "because of the test")

    in_background(play)
    result = alice("run", "payments", "Retry webhooks")
    assert "Looking around.\n" in result.stdout
    assert "✓ Read README" in result.stdout
    assert result.returncode == status, result.stderr
    assert Run.objects.get().task == "Retry webhooks"


def test_run_reads_the_task_from_standard_input_and_detaches_at_once(alice, project):
    result = alice("run", "payments", "-", "--detach", "--title", "T", stdin="Line one\nLine two\n")
    run = Run.objects.get()
    assert result.stdout.strip() == run.key
    assert (run.task, run.title) == ("Line one\nLine two", "T")


def test_ctrl_c_detaches_and_leaves_the_run_alone(environment, operator, project):
    process = subprocess.Popen(
        [sys.executable, "-m", "devaipod_web.cli.main", "run", "payments", "Retry"],
        env=environment(operator),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore the signal, and so would their children; a person's terminal does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("Run ")
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Detached" in complaint
    assert Run.objects.get().state == "queued"


def test_ps_lists_what_is_at_work_as_a_table_and_as_json(alice, run):
    assert run.key in alice("ps").stdout
    rows = json.loads(alice("ps", "--json").stdout)
    assert [row["key"] for row in rows] == [run.key]
    Run.objects.update(state="succeeded")
    assert "No run is at work." in alice("ps").stdout
    assert run.key in alice("ps", "--all").stdout


def test_an_agents_text_cannot_steer_the_terminal(alice, run):
    Run.objects.update(title="\x1b]0;owned\x07\u202eevil [bold]x[/bold]")
    out = alice("ps").stdout + alice("show", run.key).stdout
    assert "\x1b]" not in out
    assert "\u202e" not in out
    assert "[bold]x" in out


def test_show_says_what_the_agent_asks_and_answer_answers(alice, run):
    now = timezone.now()
    pod = RunPod.objects.create(
        run=run,
        attempt=1,
        name="devaipod-p-1",
        backend="podman",
        image="i",
        control_digest="a" * 64,
        data_digest="b" * 64,
    )
    asked = PermissionRequest.objects.create(
        run=run,
        pod=pod,
        request_id="r1",
        title="Run make",
        asked_at=now,
        expires_at=now + timedelta(minutes=5),
        options=[{"id": "once", "name": "Allow", "kind": "allow_once"}],
    )
    words = next(
        line.split() for line in alice("show", run.key).stdout.splitlines() if " answer " in line
    )
    done = alice(*words[1:])
    assert "Allowed: Run make" in done.stdout
    asked.refresh_from_db()
    assert asked.state == "allowed"


def test_logs_print_the_last_pods_container(alice, run):
    pod = RunPod.objects.create(
        run=run,
        attempt=1,
        name="devaipod-p-1",
        backend="podman",
        image="i",
        control_digest="a" * 64,
        data_digest="b" * 64,
    )
    writer = Writer(run.key, pod.name, "agent")
    now = timezone.now()
    writer.append(
        [
            LogLine("stdout", now, b"one", cursor="1"),
            LogLine("stderr", now, b"two \x1b[2J", cursor="2"),
        ]
    )
    writer.close()
    result = alice("logs", run.key)
    assert result.stdout == "one\n"
    assert result.stderr == "two ␛[2J\n"


def test_stop_and_prompt_go_over_the_api(alice, run):
    assert "stopped" in alice("stop", run.key, "--reason", "enough").stdout
    run.refresh_from_db()
    assert run.state == "stopped"
    assert "Turn" in alice("prompt", run.key, "once more", "--detach").stdout


def test_a_token_is_made_used_and_revoked(alice, environment, operator):
    made = json.loads(alice("token", "create", "nightly", "--json").stdout)
    env = {**environment(operator), "DEVAIPOD_TOKEN": made["token"]}
    assert devaipod("ps", env=env).returncode == 0
    alice("token", "revoke", made["key"])
    refused = devaipod("ps", env=env)
    assert refused.returncode == 1
    assert "revoked" in refused.stderr


def test_a_token_has_the_role_the_end_and_the_project_that_were_asked_for(
    alice, environment, operator, project
):
    words = ("--role", "viewer", "--expires", "7", "--project", project.slug)
    made = json.loads(alice("token", "create", "nightly", *words, "--json").stdout)
    assert (made["role"], made["project"]) == ("viewer", project.slug)
    listed = alice("token", "list").stdout
    assert "viewer" in listed and project.slug in listed
    env = {**environment(operator), "DEVAIPOD_TOKEN": made["token"]}
    refused = devaipod("run", project.slug, "x", "--detach", env=env)
    assert "needs the role operator" in refused.stderr
    for wrong, says in (
        (("--role", "manager"), "Choose operator"),
        (("--expires", "never"), "1 to 366 days"),
        (("--expires", "2020-01-01"), "no end of a token"),
        (("--project", "nothing"), "no project"),
    ):
        done = alice("token", "create", "x", *wrong)
        assert done.returncode != 0
        assert says in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("word", "days"), [("30", 30), ("30d", 30), ("never", 0), ("2026-12-04", 10)]
)
def test_the_end_of_a_token_is_given_in_days_or_by_its_date(word, days):
    assert days_until(word, today=date(2026, 11, 24)) == days


def test_every_refusal_is_a_sentence_with_a_next_step_and_no_traceback(alice, project):
    for words in (
        ["show", "zzzzzzzzzz"],
        ["run", "nothing", "x"],
        ["run", "payments", "   "],
        ["promote", "zzzzzzzzzz"],
        ["project", "create", "X", "https://forge.example/x.git"],
        ["prune"],
    ):
        result = alice(*words)
        assert result.returncode != 0, words
        assert result.stderr.startswith("devaipod: "), (words, result.stderr)
        assert "Traceback" not in result.stderr
    assert "role" in alice("prune").stderr


def test_a_server_that_is_gone_is_said_with_how_to_start_it(environment, operator):
    env = {**environment(operator), "DEVAIPOD_URL": "http://127.0.0.1:9"}
    result = devaipod("ps", env=env)
    assert result.returncode == 1
    assert "does not answer" in result.stderr
    assert "devaipod serve" in result.stderr


def test_the_local_token_is_not_sent_to_another_server(environment, operator):
    env = environment(operator)
    del env["DEVAIPOD_TOKEN"]
    result = devaipod("ps", env=env)
    assert "DEVAIPOD_TOKEN is not" in result.stderr


def test_listing_needs_no_django(environment, operator):
    code = (
        "import sys; import devaipod_web.cli.main; "
        "sys.exit(any(n.split('.')[0] in ('django', 'rich', 'aiohttp') for n in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ, check=False)
    assert done.returncode == 0


def test_a_list_costs_less_than_half_a_second_of_processor_time(environment, operator, run):
    """Wall time on a quiet machine is little more. A third of a second on slow processors; Django alone would be a whole one."""
    spent = []
    for _ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-m", "devaipod_web.cli.main", "ps"],
            env=environment(operator),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode == 0
        spent.append(usage.ru_utime + usage.ru_stime)
    assert min(spent) < 0.5, spent


def test_help_names_every_verb_with_a_sentence():
    result = devaipod("--help", env={**os.environ, "COLUMNS": "200"})
    for verb in [
        "run",
        "ps",
        "show",
        "logs",
        "prompt",
        "answer",
        "stop",
        "promote",
        "reject",
        "demo",
        "serve",
        "setup",
    ]:
        assert f" {verb} " in result.stdout, verb
