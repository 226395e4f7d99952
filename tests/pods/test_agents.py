"""How an agent is started: by `sh` alone, on two FIFOs, after the repository's own commands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from pods.agents import (
    ACP_PROFILES,
    EXIT_LIFECYCLE_FAILED,
    PROFILES,
    AgentProfile,
    Choice,
    agent_env,
    choose_form,
    entry,
    entry_argv,
)
from pods.command import PLACEHOLDER_KEY, looks_secret
from pods.devcontainer import RESERVED
from pods.spec import EXIT_AGENT_MISSING

ECHO = AgentProfile("echo", "Echo", "cat", ("cat",))
AWKWARD = 'it\'s "quoted" $HOME `id` \\ %s\nsecond line\n'


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run the entry with its FIFOs and home in a folder, and return exit code, output and standard error."""
    monkeypatch.setattr(entry, "STDIO_DIR", str(tmp_path))
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
    absent = AgentProfile("x", "X", "no-such-agent", ("no-such-agent",))
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


def test_files_are_written_into_the_home_as_they_are_whatever_was_there(start, tmp_path) -> None:
    home = tmp_path / "home"
    elsewhere = tmp_path / "elsewhere"
    (home / "plain").symlink_to(elsewhere)
    lifecycle = {"postStartCommand": [("sh", "-c", 'mkdir "$HOME/.x"; echo mine > "$HOME/.x/y z"')]}
    code, _, errors = start(
        text=b"x\n", lifecycle=lifecycle, files={".x/y z": AWKWARD, "plain": "one"}
    )
    assert (code, errors) == (0, "devaipod: postStartCommand\n")
    assert (home / ".x" / "y z").read_text() == AWKWARD
    assert (home / "plain").read_text() == "one"
    assert not elsewhere.exists()


def test_a_file_that_cannot_be_written_is_named_in_the_log_and_the_agent_starts(
    start, tmp_path
) -> None:
    (tmp_path / "home" / ".x").write_text("a file where a folder should be")
    code, said, errors = start(text=b"hello\n", files={".x/y": "z"})
    assert (code, said) == (0, b"hello\n")
    assert ".x/y could not be written" in errors


# --- the profiles ------------------------------------------------------------------------------------------------


def made(key: str, **choice: str) -> tuple[dict[str, str], dict[str, str]]:
    """Environment and files of a profile."""
    chosen = Choice(**{"model": "vendor/one", "home": "/home/x", **choice})
    return agent_env(PROFILES[key], chosen), PROFILES[key].files(chosen)


@pytest.mark.parametrize("policy", ["ask", "allow"])
@pytest.mark.parametrize("key", ACP_PROFILES)
def test_each_agent_is_pointed_at_the_sidecar_with_its_model_and_without_a_key(
    key: str, policy: str
) -> None:
    env, files = made(key, policy=policy)
    text = json.dumps([env, files])
    assert set(re.findall(r"https?://[^/\"\\]+", text)) <= {
        "http://127.0.0.1:8400",
        "https://opencode.ai",  # the name of a schema
    }
    assert "vendor/one" in text
    for name, value in env.items():
        if re.search(r"(KEY|TOKEN)$", name):
            assert value == PLACEHOLDER_KEY, name
        else:
            assert not looks_secret(name, value), name


@pytest.mark.parametrize("key", ACP_PROFILES)
def test_what_points_an_agent_somewhere_cannot_be_set_by_the_repository(key: str) -> None:
    env, _ = made(key)
    pointing = [
        name for name, value in env.items() if "127.0.0.1" in value or value.startswith("/home/x")
    ]
    assert pointing
    for name in pointing:
        assert RESERVED.match(name), name


@pytest.mark.parametrize("key", ACP_PROFILES)
def test_each_agent_has_a_name_a_program_and_a_mode_for_each_policy_or_none(key: str) -> None:
    profile = PROFILES[key]
    assert profile.key == key
    assert profile.argv[0] == profile.program
    assert set(profile.modes) in (set(), {"ask", "allow"})
    assert profile.forms


@pytest.mark.parametrize("policy", ["ask", "allow"])
def test_opencode_is_told_where_the_model_is_and_what_to_ask_about(policy: str) -> None:
    env, _ = made("opencode", policy=policy)
    config = json.loads(env["OPENCODE_CONFIG_CONTENT"])
    provider = config["provider"]["devaipod"]
    assert provider["options"]["baseURL"] == "http://127.0.0.1:8400/llm/v1"
    assert "vendor/one" in provider["models"]
    assert config["permission"]["edit"] == config["permission"]["bash"] == policy
    assert config["permission"]["webfetch"] == "deny"
    assert config["autoupdate"] is False
    assert config["share"] == "disabled"


@pytest.mark.parametrize(
    ("form", "package", "path"),
    [
        ("openai-chat", "@ai-sdk/openai-compatible", "/llm/v1"),
        ("anthropic-messages", "@ai-sdk/anthropic", "/llm/v1"),
        ("gemini", "@ai-sdk/google", "/llm/v1beta"),
    ],
)
def test_opencode_speaks_the_form_that_is_chosen(form: str, package: str, path: str) -> None:
    env, _ = made("opencode", form=form)
    provider = json.loads(env["OPENCODE_CONFIG_CONTENT"])["provider"]["devaipod"]
    assert provider["npm"] == package
    assert provider["options"]["baseURL"] == f"http://127.0.0.1:8400{path}"


def test_codex_has_a_provider_of_its_own_that_wants_no_key() -> None:
    env, files = made("codex", model='odd "name"\\')
    config = tomllib.loads(files[".codex/config.toml"])
    assert env["CODEX_HOME"] == "/home/x/.codex"
    assert config["model"] == 'odd "name"\\'
    provider = config["model_providers"][config["model_provider"]]
    assert provider["base_url"] == "http://127.0.0.1:8400/llm/v1"
    assert provider["wire_api"] == "responses"
    assert provider["requires_openai_auth"] is False
    assert config["analytics"]["enabled"] is False
    assert config["check_for_update_on_startup"] is False
    assert config["web_search"] == "disabled"


@pytest.mark.parametrize("key", ["gemini", "qwen"])
def test_settings_that_win_over_the_repositorys_switch_off_what_reaches_further(key: str) -> None:
    env, files = made(key)
    (path, text), *others = files.items()
    assert not others
    assert f"/home/x/{path}" in env.values()
    settings = json.loads(text)
    assert settings["privacy"]["usageStatisticsEnabled"] is False
    assert settings["telemetry"]["enabled"] is False
    assert settings["general"]["enableAutoUpdate"] is False
    assert "web_fetch" in settings["tools"]["exclude"]
    assert settings["model"]["name"] == "vendor/one"


def test_claude_code_neither_reports_nor_updates_nor_searches() -> None:
    env, files = made("claude")
    assert env["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:8400/llm"
    assert env["ANTHROPIC_MODEL"] == env["ANTHROPIC_DEFAULT_HAIKU_MODEL"] == "vendor/one"
    for name in ("DISABLE_TELEMETRY", "DISABLE_AUTOUPDATER", "DISABLE_ERROR_REPORTING"):
        assert env[name] == "1"
    denied = json.loads(files[".claude/settings.json"])["permissions"]["deny"]
    assert {"WebSearch", "WebFetch"} <= set(denied)


@pytest.mark.parametrize(("policy", "mode"), [("ask", "approve"), ("allow", "auto")])
def test_goose_is_told_provider_model_and_mode(policy: str, mode: str) -> None:
    env, files = made("goose", policy=policy)
    assert not files
    assert (env["GOOSE_PROVIDER"], env["GOOSE_MODEL"]) == ("openai", "vendor/one")
    assert env["OPENAI_HOST"] == "http://127.0.0.1:8400"
    assert env["OPENAI_BASE_PATH"] == "llm/v1/chat/completions"
    assert env["GOOSE_MODE"] == mode
    assert env["GOOSE_DISABLE_KEYRING"] == "1"
    assert env["GOOSE_TELEMETRY_ENABLED"] == "false"
    assert PROFILES["goose"].argv == ("goose", "acp", "--with-builtin", "developer")
    on_anthropic, _ = made("goose", form="anthropic-messages")
    assert on_anthropic["GOOSE_PROVIDER"] == "anthropic"
    assert on_anthropic["ANTHROPIC_HOST"] == "http://127.0.0.1:8400/llm"


def test_the_first_form_that_both_speak_is_chosen() -> None:
    opencode, claude, command = (PROFILES[key] for key in ("opencode", "claude", "command"))
    assert choose_form(opencode, ["gemini", "openai-chat"]) == "openai-chat"
    assert choose_form(opencode, ["gemini"]) == "gemini"
    assert choose_form(claude, ["openai-chat", "openai-responses"]) is None
    assert choose_form(command, []) == ""


def test_what_the_repository_sets_never_wins_over_ours() -> None:
    given = {"OPENAI_BASE_URL": "http://evil", "MINE": "1"}
    env = agent_env(PROFILES["opencode"], Choice(), extra=given)
    assert env["OPENAI_BASE_URL"] == "http://127.0.0.1:8400/llm/v1"
    assert env["MINE"] == "1"
