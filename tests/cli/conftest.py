"""The command as a person runs it: a process of its own against a server on a real port."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer.main

from devaipod_web.accounts import tokens
from devaipod_web.accounts.models import User
from tests.live import serving

ROOT = Path(__file__).resolve().parent.parent.parent
Command = Callable[..., subprocess.CompletedProcess[str]]
#: The tree of verbs does not change between two calls in one process, and takes a tenth of a second to build.
built = functools.cache(typer.main.get_command)


@pytest.fixture
def server(db):
    with serving() as url:
        yield url


@pytest.fixture
def environment(server: str) -> Callable[[User], dict[str, str]]:
    """The environment of a command that speaks for a person."""

    def make(user: User) -> dict[str, str]:
        _, text = tokens.create(user, "tests")
        clean = {k: v for k, v in os.environ.items() if not k.startswith("DEVAIPOD_TEST")}
        return {**clean, "DEVAIPOD_URL": server, "DEVAIPOD_TOKEN": text}

    return make


def devaipod(*words: str, env: dict[str, str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command and return what it wrote and how it ended."""
    return subprocess.run(
        [sys.executable, "-m", "devaipod_web.cli.main", *words],
        env=env,
        cwd=ROOT,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def alice(environment: Callable[[User], dict[str, str]], operator: User) -> Command:
    env = environment(operator)
    return lambda *words, stdin="": devaipod(*words, env=env, stdin=stdin)


@pytest.fixture
def here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command in this process, for tables of hundreds of cases; as `devaipod` otherwise."""
    from devaipod_web.cli.main import main

    def run(*words: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            for name in [n for n in os.environ if n.startswith("DEVAIPOD") and n not in env]:
                patch.delenv(name)
            for name, value in env.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["devaipod", *words])
            patch.setattr(typer.main, "get_command", built)
            with pytest.raises(SystemExit) as ended:
                main()
        out, complaint = capsys.readouterr()
        return subprocess.CompletedProcess(words, int(ended.value.code or 0), out, complaint)

    return run
