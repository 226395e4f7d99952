"""How an agent is started: by `sh` alone, on two FIFOs, after the repository's own commands."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from pods import agents
from pods.agents import EXIT_LIFECYCLE_FAILED, PROFILES, AgentProfile, agent_env, entry_argv
from pods.spec import EXIT_AGENT_MISSING

ECHO = AgentProfile("echo", "Echo", "cat", ("cat",), lambda model, policy: {})


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run the entry with its FIFOs and home in a folder, and return exit code, output and standard error."""
    monkeypatch.setattr(agents, "STDIO_DIR", str(tmp_path))
    for name in ("in", "out"):
        os.mkfifo(tmp_path / name)
    home = tmp_path / "home"
    home.mkdir()

    def run(profile: AgentProfile = ECHO, text: bytes = b"", **how) -> tuple[int, bytes, str]:
        child = subprocess.Popen(
            entry_argv(profile, **how),
            stderr=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "HOME": str(home)},
        )
        ours = os.open(tmp_path / "in", os.O_RDWR)
        out = os.open(tmp_path / "out", os.O_RDONLY | os.O_NONBLOCK)
        writer = os.open(tmp_path / "in", os.O_WRONLY)
        os.write(writer, text)
        os.set_blocking(out, True)
        try:
            said = b""
            while text and len(said) < len(text):
                said += os.read(out, 4096)
        finally:
            os.close(ours)
            os.close(writer)
        assert child.stderr is not None
        errors = child.stderr.read().decode()
        os.close(out)
        return child.wait(10), said, errors

    return run


def test_the_agent_speaks_over_the_fifos(start) -> None:
    code, said, errors = start(text=b"hello\n", lifecycle={"postStartCommand": [("true",)]})
    assert (code, said) == (0, b"hello\n")


def test_a_missing_program_ends_with_its_own_code_and_name(start) -> None:
    absent = AgentProfile("x", "X", "no-such-agent", ("no-such-agent",), lambda m, p: {})
    code, _, errors = start(absent)
    assert code == EXIT_AGENT_MISSING
    assert "no-such-agent is not in this image" in errors


def test_commands_of_the_repository_run_before_the_agent_and_are_logged(start) -> None:
    lifecycle = {
        "onCreateCommand": [("sh", "-c", "echo created; echo 'a  b'")],
        "postCreateCommand": [("printf", "%s|", "x y", "$HOME")],
        "postStartCommand": [("echo", "started")],
    }
    _, said, errors = start(text=b"ping\n", lifecycle=lifecycle)
    assert said == b"ping\n"
    assert "created\na  b\n" in errors
    assert "x y|$HOME|" in errors
    assert errors.index("created") < errors.index("x y|") < errors.index("started")
    _, _, again = start(text=b"ping\n", lifecycle=lifecycle)
    assert "created" not in again
    assert "started" in again


def test_a_failing_command_is_named_with_its_code_and_runs_again_next_time(start) -> None:
    lifecycle = {"postCreateCommand": [("sh", "-c", "echo no such package; exit 3")]}
    for _ in range(2):
        code, _, errors = start(lifecycle=lifecycle)
        assert code == EXIT_LIFECYCLE_FAILED
        assert "no such package" in errors
        assert "postCreateCommand ended with 3" in errors


@pytest.mark.parametrize("policy", ["ask", "allow"])
def test_opencode_is_told_where_the_model_is_and_what_to_ask_about(policy: str) -> None:
    env = agent_env(PROFILES["opencode"], model="demo/one", policy=policy)
    config = json.loads(env["OPENCODE_CONFIG_CONTENT"])
    provider = config["provider"]["devaipod"]
    assert provider["options"]["baseURL"] == "http://127.0.0.1:8400/llm/v1"
    assert "demo/one" in provider["models"]
    assert config["permission"]["edit"] == config["permission"]["bash"] == policy
    assert config["permission"]["webfetch"] == "deny"
    assert config["autoupdate"] is False
    assert config["share"] == "disabled"


def test_what_the_repository_sets_never_wins_over_ours() -> None:
    env = agent_env(PROFILES["opencode"], extra={"OPENAI_BASE_URL": "http://evil", "MINE": "1"})
    assert env["OPENAI_BASE_URL"] == "http://127.0.0.1:8400/llm/v1"
    assert env["MINE"] == "1"
