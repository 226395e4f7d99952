"""Every verb that calls the server, with everything that can be wrong around it: one sentence, a next step, never a traceback."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
import typer.main

from devaipod_web.cli.arrange import HELP
from devaipod_web.cli.main import app
from tests.cli.conftest import ROOT, devaipod

pytestmark = pytest.mark.slow

KEY = "zzzzzzzzzz"
#: Verb → words that make it call the server at once, without asking.
VERBS: dict[str, list[str]] = {
    "run": ["run", "payments", "Retry"],
    "ps": ["ps"],
    "show": ["show", KEY],
    "logs": ["logs", KEY],
    "events": ["events", KEY],
    "prompt": ["prompt", KEY, "more"],
    "answer": ["answer", KEY, KEY, "once"],
    "pause": ["pause", KEY],
    "resume": ["resume", KEY],
    "stop": ["stop", KEY],
    "rm": ["rm", KEY, "--yes"],
    "promote": ["promote", KEY],
    "reject": ["reject", KEY],
    "review list": ["review", "list"],
    "review show": ["review", "show", KEY],
    "project list": ["project", "list"],
    "project create": ["project", "create", "X", "https://forge.example/x.git"],
    "token list": ["token", "list"],
    "token create": ["token", "create", "x"],
    "token revoke": ["token", "revoke", KEY],
    "setup": ["setup"],
    "status": ["status"],
    "services": ["services"],
    "restart": ["restart", "gateway"],
    "teardown": ["teardown", "--yes"],
    "prune": ["prune", "--yes"],
    "debug": ["debug", KEY],
    "diff": ["diff", KEY],
    "pod create": ["pod", "create", "payments", "--", "true"],
    "pod ls": ["pod", "ls"],
    "pod input": ["pod", "input", KEY, "x"],
    "pod stop": ["pod", "stop", KEY],
    "pod rm": ["pod", "rm", KEY],
    "provider list": ["provider", "list"],
    "provider test": ["provider", "test", KEY],
    "provider reseal": ["provider", "reseal"],
    "target list": ["target", "list"],
    "target add": ["target", "add", "b"],
    "target test": ["target", "test", KEY],
    "target rm": ["target", "rm", KEY, "--yes"],
    "usage": ["usage"],
    "budget list": ["budget", "list"],
    "budget set": ["budget", "set", "100"],
    "budget raise": ["budget", "raise", KEY, "200"],
    "budget rm": ["budget", "rm", KEY, "--yes"],
    "incident list": ["incident", "list"],
    "incident resolve": ["incident", "resolve", KEY, "dismiss"],
    "webhook ls": ["webhook", "ls"],
    "webhook create": [
        "webhook",
        "create",
        "X",
        "https://receiver.example/x",
        "--event",
        "run.state",
    ],
    "webhook rm": ["webhook", "rm", KEY],
    "webhook deliveries": ["webhook", "deliveries", KEY],
    "webhook test": ["webhook", "test", KEY],
}
#: Verbs of this host, which need no server, or have tests of their own where they set one up.
OF_THE_HOST = {"serve", "migrate", "down", "clean", "doctor", "sign-in-link", "demo", "completion"}
#: Verbs of others, with tests of their own.
ELSEWHERE = {"attach", "gc-session"}


def verbs() -> Iterator[str]:
    """Every verb there is, groups by their members."""
    root = typer.main.get_command(app)
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        yield from (f"{name} {one}" for one in inner) if inner else (name,)


def test_every_verb_is_tried_here_or_needs_no_server():
    rest = {
        name
        for name in verbs()
        if name not in VERBS and name not in OF_THE_HOST and name.split()[0] not in ELSEWHERE
    }
    assert rest == set()


def complains(result: subprocess.CompletedProcess[str], *, status: set[int]) -> str:
    """Assert the form of a complaint and return its first line."""
    assert result.returncode in status, (result.returncode, result.stderr)
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("devaipod: ")]
    assert len(lines) == 1, result.stderr
    assert "  → " in result.stderr, result.stderr
    assert "fault of devaipod" not in result.stderr
    return lines[0]


@pytest.fixture
def bare(tmp_path) -> dict[str, str]:
    """The environment of somebody who has set up nothing."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("DEVAIPOD")}
    return {**clean, "DEVAIPOD_HOME": str(tmp_path / "home"), "PYTHONDONTWRITEBYTECODE": "1"}


@contextlib.contextmanager
def edge(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A program on a port that is no server of ours."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                line, _ = listener.accept()
            except OSError:
                return
            with line, contextlib.suppress(OSError):
                line.recv(65536)
                answer(line)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


def hang_up(line: socket.socket) -> None:
    """A server that dies with the request in its hands."""


def html(line: socket.socket) -> None:
    body = b"<html>Welcome to nginx!</html>"
    line.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s"
        % (len(body), body)
    )


def redirect(line: socket.socket) -> None:
    line.sendall(
        b"HTTP/1.1 301 Moved\r\nLocation: https://elsewhere.example/\r\nContent-Length: 0\r\n\r\n"
    )


def half(line: socket.socket) -> None:
    """A server killed while it answers."""
    line.sendall(
        b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{"results": ['
    )


@pytest.mark.parametrize("verb", VERBS)
def test_no_server_and_servers_that_are_none_of_ours(verb, bare, here):
    env = {**bare, "DEVAIPOD_URL": "http://127.0.0.1:9", "DEVAIPOD_TOKEN": "dvp_x"}
    said = complains(here(*VERBS[verb], env=env), status={1})
    assert "does not answer" in said
    for answer, words in (
        (hang_up, "does not answer"),
        (html, "is no devaipod server"),
        (redirect, "sends elsewhere"),
        (half, "does not answer"),
    ):
        with edge(answer) as url:
            said = complains(here(*VERBS[verb], env={**env, "DEVAIPOD_URL": url}), status={1})
        # A stream that is no JSON is a broken one: it is not known for a stranger's.
        assert words in said or "connection" in said, (answer.__name__, said)


@pytest.mark.parametrize("verb", [name for name in VERBS if name != "setup"])
def test_nothing_set_up_here(verb, bare, here):
    assert "No devaipod server runs" in complains(here(*VERBS[verb], env=bare), status={1})


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.django_db(transaction=True)
def test_wrong_token_missing_right_and_things_that_are_not_there(
    verb, environment, here, stranger, viewer, project
):
    env = environment(viewer)
    wrong = here(*VERBS[verb], env={**env, "DEVAIPOD_TOKEN": "dvp_wrong"})
    assert "token is unknown" in complains(wrong, status={1})
    refused = here(*VERBS[verb], env=env)
    # A viewer may read, and have tokens; what is named here is not there.
    if verb in (
        "ps",
        "review list",
        "project list",
        "token list",
        "token create",
        "services",
        "status",
        "pod ls",
        "usage",
        "provider list",
        "target list",
        "budget list",
        "incident list",
    ):
        assert refused.returncode in (0, 1), refused.stderr
    else:
        complains(refused, status={1, 4})
    complains(here(*VERBS[verb], env=environment(stranger)), status={1, 4}) if verb not in (
        "status",
        "token list",
        "token create",
    ) else None


# To Gas City every unknown word is an operation that a provider need not have: status 2, and no word.
@pytest.mark.parametrize("verb", sorted({*verbs()} - {"gc-session"}))
def test_wrong_words_are_explained_with_where_to_read_on(verb, bare, here):
    said = complains(here(*verb.split(), "--no-such-option", env=bare), status={2})
    assert "no-such-option" in said


def test_a_verb_that_is_nearly_right_is_named(bare):
    assert "Did you mean 'teardown'" in complains(devaipod("teardwn", env=bare), status={2})


@pytest.mark.parametrize("verb", sorted(verbs()))
def test_help_of_every_verb_has_examples_statuses_and_environment(verb, bare, here):
    assert verb in HELP, "add it to devaipod_web/cli/arrange.py"
    shown = here(*verb.split(), "--help", env=bare)
    assert shown.returncode == 0, shown.stderr
    for heading in (" Examples", " Exit status", " Environment"):
        assert f"\n{heading}\n" in shown.stdout
    assert all(line.split()[0] for line in HELP[verb].examples)
    assert any(f"devaipod {verb.split()[0]}" in line for line in HELP[verb].examples)


def test_the_command_itself_shows_its_panels(bare):
    shown = devaipod("--help", env=bare).stdout
    places = [
        shown.index(f"─ {panel} ") for panel in ("Runs", "Reviews", "Installation", "This host")
    ]
    assert places == sorted(places)


# --- what stands around the command -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [["ps"], ["ps", "--json"], ["services"], ["status"], ["show"], ["show", "--json"]]
)
@pytest.mark.django_db(transaction=True)
def test_a_full_disk_under_the_output_is_said(words, environment, operator, run):
    words = [*words, run.key] if words[0] == "show" else words
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "devaipod_web.cli.main", *words],
            env=environment(operator),
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("words", ["ps --json", "services --json", "events {key}", "show {key}"])
@pytest.mark.django_db(transaction=True)
def test_a_reader_that_goes_away_is_no_error(words, environment, operator, run):
    line = f"{sys.executable} -m devaipod_web.cli.main {words.format(key=run.key)}"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line} | true"],
        env=environment(operator),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "words", [["rm", "{key}"], ["teardown"], ["prune"], ["clean"]], ids=lambda words: words[0]
)
@pytest.mark.django_db(transaction=True)
def test_what_asks_once_says_how_to_answer_without_a_terminal(words, environment, manager, run):
    from datetime import timedelta

    from django.utils import timezone

    from devaipod_web.runs.log_writer import Writer
    from devaipod_web.runs.models import Run
    from pods.spec import LogLine

    # Something that is old enough to be pruned.
    writer = Writer(run.key, "devaipod-p-1", "agent")
    writer.append([LogLine("stdout", timezone.now(), b"old", cursor="1")])
    writer.close()
    long_ago = timezone.now() - timedelta(days=400)
    Run.objects.filter(pk=run.pk).update(state="failed", ended_at=long_ago)
    env = environment(manager)
    said = devaipod(*(word.format(key=run.key) for word in words), env=env)
    complains(said, status={2})
    assert "Add --yes." in said.stderr
    assert Run.objects.filter(pk=run.pk).exists()


def test_a_home_that_cannot_be_read_is_named(bare, tmp_path):
    (tmp_path / "home").write_text("a file where a folder should be")
    said = complains(devaipod("migrate", env=bare), status={1})
    assert str(tmp_path / "home") in said


def test_a_terminal_without_utf8_gets_question_marks_and_no_fault(bare):
    done = devaipod("doctor", env={**bare, "PYTHONIOENCODING": "ascii:strict"})
    assert "fault of devaipod" not in done.stderr
    assert done.stdout
