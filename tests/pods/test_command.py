"""How a command is started and ended: by `sh` alone, on FIFOs, with the program's own exit code and no secret."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pods import command
from pods.agents import PROFILES, Choice, agent_env
from pods.command import EXIT_NO_WORKDIR, entry_argv, looks_secret
from pods.spec import EXIT_AGENT_MISSING

SECONDS = 10


def contained() -> tuple[str, ...]:
    """Words that give a program a process namespace of its own, as a container does: `kill -1` must not meet anybody else's."""
    mapped = () if os.geteuid() == 0 else ("--map-root-user",)
    return ("unshare", *mapped, "--pid", "--fork", "--kill-child", "--mount-proc")


class Entry:
    """The entry with the test as its sidecar."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("in", "out", "stdin"):
            os.mkfifo(folder / name)
        self.out = os.open(folder / "out", os.O_RDONLY | os.O_NONBLOCK)
        self.words = os.open(folder / "in", os.O_RDWR)
        self.stdin = os.open(folder / "stdin", os.O_RDWR)
        self.child: subprocess.Popen[str] | None = None

    def start(self, *argv: str, workdir: str = "", interactive: bool = False, **env: str) -> None:
        self.child = subprocess.Popen(
            [
                *contained(),
                *entry_argv(argv, workdir=workdir or str(self.folder), interactive=interactive),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": os.environ["PATH"], **env},
        )

    def say(self, word: str) -> None:
        os.write(self.words, f"{word}\n".encode())

    def hear(self) -> str:
        """The entry's next words; empty when it has closed its end."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            try:
                said = os.read(self.out, 4096).decode()
            except BlockingIOError:
                said = ""
            if said or (self.child and self.child.poll() is not None):
                return said
            time.sleep(0.02)
        raise AssertionError("the entry says nothing")

    def end(self) -> tuple[int, str, str]:
        assert self.child is not None
        output, errors = self.child.communicate(timeout=SECONDS)
        return self.child.returncode, output, errors

    def close(self) -> None:
        if self.child is not None and self.child.poll() is None:
            self.child.kill()
            self.child.communicate()
        for descriptor in (self.out, self.words, self.stdin):
            os.close(descriptor)


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Entry]:
    monkeypatch.setattr(command, "STDIO_DIR", str(tmp_path))
    found = Entry(tmp_path)
    yield found
    found.close()


def test_nothing_runs_before_the_sidecar_says_so(entry: Entry) -> None:
    entry.start("touch", "made")
    assert entry.hear() == "ready\n"
    time.sleep(0.2)
    assert not (entry.folder / "made").exists()
    entry.say("run")
    assert entry.hear() == "exit 0\n"
    assert entry.end()[0] == 0
    assert (entry.folder / "made").exists()


def test_another_word_than_run_ends_it_without_the_program(entry: Entry) -> None:
    entry.start("touch", "made")
    assert entry.hear() == "ready\n"
    entry.say("TERM")
    assert entry.end()[0] == 0
    assert not (entry.folder / "made").exists()


@pytest.mark.parametrize("code", [0, 1, EXIT_AGENT_MISSING, 255])
def test_the_programs_exit_code_is_said_and_kept(entry: Entry, code: int) -> None:
    entry.start("sh", "-c", f"echo out; echo err >&2; exit {code}")
    entry.hear()
    entry.say("run")
    assert entry.hear() == f"exit {code}\n"
    assert entry.end() == (code, "out\n", "err\n")


def test_words_reach_the_program_as_they_are(entry: Entry) -> None:
    entry.start("printf", "[%s]", "a b", "$HOME", "'", "*", "", "-n")
    entry.hear()
    entry.say("run")
    assert entry.end()[1] == "[a b][$HOME]['][*][][-n]"


@pytest.mark.parametrize("program", ["no-such-program", "./made-later", "if", "/tmp"])
def test_a_program_that_is_not_there_has_its_own_exit_code_and_is_named(
    entry: Entry, program: str
) -> None:
    entry.start(program)
    code, _, errors = entry.end()
    assert code == EXIT_AGENT_MISSING
    assert errors == f"devaipod: the program {program} is not in this image\n"
    assert entry.hear() == ""


def test_a_program_of_the_workspace_is_found_from_its_folder(entry: Entry) -> None:
    folder = entry.folder / "tools dir"
    folder.mkdir()
    shutil.copy(shutil.which("true") or "/bin/true", folder / "mine")
    entry.start("./mine", workdir=str(folder))
    assert entry.hear() == "ready\n"
    entry.say("run")
    assert entry.hear() == "exit 0\n"


def test_a_folder_that_is_not_there_has_its_own_exit_code(entry: Entry) -> None:
    entry.start("true", workdir="no such/folder")
    code, _, errors = entry.end()
    assert (code, errors) == (
        EXIT_NO_WORKDIR,
        "devaipod: the folder no such/folder is not there\n",
    )


@pytest.mark.parametrize(("name", "code"), [("INT", 130), ("TERM", 143), ("KILL", 137)])
def test_a_signal_reaches_the_program_and_what_it_started(
    entry: Entry, name: str, code: int
) -> None:
    entry.start("sh", "-c", "sleep 60 & sleep 60; wait")
    entry.hear()
    entry.say("run")
    time.sleep(0.3)
    entry.say(name)
    assert entry.hear() == f"exit {code}\n"
    assert entry.end()[0] == code


def test_without_interactive_standard_input_is_empty(entry: Entry) -> None:
    entry.start("cat")
    entry.hear()
    entry.say("run")
    assert entry.hear() == "exit 0\n"


def test_an_interactive_program_reads_what_is_sent_and_never_its_end(entry: Entry) -> None:
    entry.start("sh", "-c", "read a; read b; echo $b $a", interactive=True)
    entry.hear()
    entry.say("run")
    os.write(entry.stdin, b"one\n")
    time.sleep(0.2)
    os.write(entry.stdin, b"two\n")
    assert entry.hear() == "exit 0\n"
    assert entry.end()[1] == "two one\n"


def test_what_a_caller_sets_never_wins_over_ours() -> None:
    given = {"OPENAI_BASE_URL": "http://evil", "MINE": "1"}
    env = agent_env(PROFILES["command"], Choice(), extra=given)
    assert env["MINE"] == "1"
    for name in (
        "OPENAI_BASE_URL",
        "ANTHROPIC_BASE_URL",
        "GOOGLE_GEMINI_BASE_URL",
        "LLMPROXY_URL",
    ):
        assert env[name].startswith("http://127.0.0.1:8400/llm")
    assert env["SERVICE_GATOR_URL"].startswith("http://127.0.0.1:8400/mcp/")
    assert env["FORGEJO_URL"] == "http://127.0.0.1:8400/git"


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("GH_TOKEN", "x", True),
        ("AWS_SECRET_ACCESS_KEY", "x", True),
        ("DB_PASSWORD", "x", True),
        ("MODEL", "sk-abc", True),
        ("NOTE", "ghp_0123", True),
        ("GH_TOKEN", "", False),
        ("MAX_TOKENS", "100", False),
        ("TOKENIZER", "bpe", False),
        ("KEYBOARD", "us", False),
        ("OPENAI_API_KEY", "x", False),  # ours, and a placeholder
    ],
)
def test_what_looks_like_a_credential(name: str, value: str, secret: bool) -> None:
    assert looks_secret(name, value) is secret
