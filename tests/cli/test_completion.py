"""What the shells offer after Tab."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from devaipod_web.budgets import services
from tests.budgets.test_services import refused
from tests.cli.conftest import devaipod

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


def offered(env: dict[str, str], *words: str) -> list[str]:
    done = devaipod(
        env={
            **env,
            "_DEVAIPOD_COMPLETE": "complete_bash",
            "COMP_WORDS": " ".join(["devaipod", *words]),
            "COMP_CWORD": str(len(words)),
        }
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_verbs_run_keys_projects_and_services_are_offered(environment, operator, run):
    env = environment(operator)
    assert {"setup", "services", "serve"} <= set(offered(env, "se"))
    assert offered(env, "show", run.key[:2]) == [run.key]
    assert offered(env, "run", "pay") == ["payments"]
    assert "supervisor" in offered(env, "restart", "sup")


def test_budgets_incidents_and_ways_to_decide_are_offered(environment, manager, project, run):
    row = services.create(
        manager, scope="project", subject=project, metric="usd", window="month", limit=10
    )
    incident = refused(row, run)
    env = environment(manager)
    assert offered(env, "budget", "raise", row.key[:3]) == [row.key]
    assert offered(env, "incident", "resolve", incident.key[:3]) == [incident.key]
    assert offered(env, "incident", "resolve", incident.key, "ex") == ["extend"]


def test_without_a_server_nothing_is_offered_and_nothing_said(tmp_path):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("DEVAIPOD")}
    began = time.monotonic()
    assert offered({**clean, "DEVAIPOD_HOME": str(tmp_path)}, "show", "x") == []
    assert time.monotonic() - began < 10


def test_bash_completes_a_run_key_through_the_script(environment, operator, run, tmp_path):
    command = tmp_path / "devaipod"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m devaipod_web.cli.main "$@"\n')
    command.chmod(0o755)
    root = Path(__file__).resolve().parents[2]
    env = {
        **environment(operator),
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(root),
    }
    play = (
        "source <(devaipod completion bash); "
        f"COMP_WORDS=(devaipod show {run.key[:3]}); COMP_CWORD=2; "
        "_devaipod_completion devaipod; echo ${COMPREPLY[@]}"
    )
    done = subprocess.run(
        ["bash", "-c", play], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == run.key, done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_one_that_it_can_read(shell, tmp_path):
    done = devaipod("completion", shell, env=dict(os.environ))
    assert "_DEVAIPOD_COMPLETE" in done.stdout
    if found := shutil.which(shell):
        checked = subprocess.run(
            [found, "-n"], input=done.stdout, text=True, capture_output=True, check=False
        )
        assert checked.returncode == 0, checked.stderr


def test_another_shell_is_refused_with_those_there_are():
    done = devaipod("completion", "tcsh", env=dict(os.environ))
    assert done.returncode == 2
    assert "bash, zsh, fish" in done.stderr
