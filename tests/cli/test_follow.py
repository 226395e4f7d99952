"""Following a run: over broken connections, and what Ctrl-C does in a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from devaipod_web.cli.client import Client, ServerGone
from devaipod_web.runs import events
from devaipod_web.runs.models import Run, RunEvent
from tests.cli.conftest import ROOT
from tests.cli.test_verbs import end, wait_for_run

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


class Wire:
    """The way to a server, which can be cut as a killed server cuts it: what is open breaks, and nobody listens."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._to = (host, int(port))
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._serve()

    def _serve(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._to)
            self._open += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        for side in (one, other):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def mend(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._serve()


def test_a_broken_stream_goes_on_from_the_last_event_without_gap_or_repeat(
    environment, operator, project, server
):
    wire = Wire(server)
    command = subprocess.Popen(
        [sys.executable, "-m", "devaipod_web.cli.main", "run", "payments", "Retry", "--json"],
        env={**environment(operator), "DEVAIPOD_URL": wire.url},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert command.stdout is not None
    lines = [command.stdout.readline()]
    run = wait_for_run()
    events.record(run, "message", {"message_id": "m", "text": "before"})
    while "before" not in lines[-1]:
        lines.append(command.stdout.readline())
    wire.cut()
    events.record(run, "message", {"message_id": "m", "text": "meanwhile"})
    time.sleep(1)
    wire.mend()
    while "meanwhile" not in lines[-1]:
        lines.append(command.stdout.readline())
    # Once more: the second break is as good as the first.
    wire.cut()
    end(run, "succeeded")
    wire.mend()
    # Not `communicate`: it reads past what `readline` has buffered already.
    found = [json.loads(line)["seq"] for line in [*lines, *command.stdout]]
    assert command.stderr is not None
    complaints = command.stderr.read()
    command.wait(30)
    run.refresh_from_db()
    assert found == list(range(1, run.last_seq + 1))
    assert command.returncode == 0
    assert complaints.count("connection to the server broke") == 2
    assert complaints.count("Connected again.") == 2


def test_a_stream_that_breaks_off_has_not_ended(monkeypatch):
    """Two documents, the second in two pieces, and then the server is gone between two chunks or in the middle of one."""
    for left in (b"", b"5\r\n{", b"ff\r\n{"):
        pieces = [b'{"n": 1}\n{"n"', b": 2}\n"]
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
        with answering(head + chunks + left) as url:
            monkeypatch.setenv("DEVAIPOD_URL", url)
            monkeypatch.setenv("DEVAIPOD_TOKEN", "x")
            stream = Client().stream("/runs/x/events")
            assert [next(stream), next(stream)] == [{"n": 1}, {"n": 2}]
            with pytest.raises(ServerGone):
                next(stream)
        with answering(head + chunks + b"0\r\n\r\n") as url:
            monkeypatch.setenv("DEVAIPOD_URL", url)
            assert len(list(Client().stream("/runs/x/events"))) == 2


@contextlib.contextmanager
def answering(answer: bytes):
    """A server that says this to whoever comes first, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            line, _ = listener.accept()
            with line:
                line.recv(65536)
                line.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10)


def test_what_came_between_the_streams_end_and_the_runs_is_not_lost(
    here, environment, operator, run, monkeypatch
):
    """A proxy on the way ends the answer as if it were whole, and the run ends before anybody asks."""
    events.record(run, "message", {"message_id": "m", "text": "word"})
    whole, asked = Client.stream, []

    def cut(self, path, **query):
        asked.append(query["after"])
        if len(asked) > 1:
            return whole(self, path, **query)
        first = whole(self, path, **{**query, "follow": False})
        documents = list(first)
        end(run, "succeeded")
        return iter(documents)

    monkeypatch.setattr(Client, "stream", cut)
    done = here("events", run.key, "--follow", "--json", env=environment(operator))
    run.refresh_from_db()
    rows = [json.loads(line)["seq"] for line in done.stdout.splitlines()]
    assert rows == list(range(1, run.last_seq + 1))
    assert len(asked) == 2


def test_an_ended_run_whose_events_are_not_all_there_ends(here, environment, operator, run):
    events.record(run, "message", {"message_id": "m", "text": "word"})
    end(run, "succeeded")
    RunEvent.objects.filter(run=run).delete()
    assert here("events", run.key, "--follow", env=environment(operator)).returncode == 0


def test_events_go_on_from_a_cursor(alice, run):
    for number in range(3):
        events.record(run, "message", {"message_id": "m", "text": f"word {number} \x1b[2J"})
    rows = [json.loads(line) for line in alice("events", run.key, "--json").stdout.splitlines()]
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
    later = alice("events", run.key, "--after", str(rows[-2]["seq"])).stdout
    assert len(later.splitlines()) == 1
    assert "word 2" in later
    assert "\x1b" not in later
    end(run, "failed")
    followed = alice("events", run.key, "--follow", "--json")
    assert followed.returncode == 0
    assert json.loads(followed.stdout.splitlines()[-1])["payload"]["to"] == "failed"


class Terminal:
    """A command in a terminal of its own, and a person at it."""

    def __init__(self, words: list[str], env: dict[str, str]) -> None:
        self.seen = ""
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            # A shell's background jobs ignore the signal, and so would this; a person's terminal does not.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.chdir(ROOT)
            os.execve(sys.executable, [sys.executable, "-m", "devaipod_web.cli.main", *words], env)

    def types(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def shows(self, words: str, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while words not in self.seen:
            assert time.monotonic() < deadline, self.seen
            if select.select([self._fd], [], [], 0.2)[0]:
                try:
                    self.seen += os.read(self._fd, 65536).decode(errors="replace")
                except OSError:
                    break
        assert words in self.seen, self.seen

    def ends(self) -> int:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if select.select([self._fd], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):
                    self.seen += os.read(self._fd, 65536).decode(errors="replace")
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                os.close(self._fd)
                return os.waitstatus_to_exitcode(status)
        raise AssertionError(self.seen)


@pytest.fixture
def terminal(environment, operator, project) -> Terminal:
    """`devaipod run` in a terminal, with its run at work and Ctrl-C just typed."""
    env = {**environment(operator), "NO_COLOR": "1"}
    made = Terminal(["run", "payments", "Retry"], env)
    made.shows("Run ")
    run = wait_for_run()
    events.record(run, "message", {"message_id": "m", "text": "at work"})
    made.shows("at work")
    made.types("\x03")
    made.shows("[d]etach")
    return made


def test_ctrl_c_asks_and_d_detaches(terminal):
    terminal.types("d\n")
    assert terminal.ends() == 130
    assert "the run goes on" in terminal.seen
    assert Run.objects.get().state == "queued"


def test_a_second_ctrl_c_detaches(terminal):
    terminal.types("\x03")
    assert terminal.ends() == 130
    assert Run.objects.get().state == "queued"


def test_s_stops_the_run_and_the_command_ends_with_it(terminal):
    terminal.types("s\n")
    assert terminal.ends() == 11
    assert Run.objects.get().state == "stopped"


def test_c_goes_on_where_it_was_and_nonsense_is_asked_again(terminal):
    terminal.types("x\n")
    time.sleep(0.3)
    terminal.types("c\n")
    run = Run.objects.get()
    events.record(run, "message", {"message_id": "n", "text": "further on"})
    terminal.shows("further on")
    end(run, "succeeded")
    assert terminal.ends() == 0
    assert terminal.seen.count("at work") == 1
