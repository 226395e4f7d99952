"""`devaipod attach` as a person and as a script use it, in a real terminal and in pipes, against a real pod."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator

import pytest

from tests.e2e.attached import launched, shop
from tests.e2e.installation import ROOT, Installation

pytestmark = [pytest.mark.podman, pytest.mark.slow]


@pytest.fixture(scope="module")
def place() -> Iterator[Installation]:
    with shop() as made:
        yield made


@pytest.fixture(scope="module")
def run(place: Installation) -> tuple[str, str]:
    return launched(place)


class Seat:
    """A person at a terminal of `rows` × `columns`, in which `devaipod` was typed."""

    def __init__(self, place: Installation, *words: str, rows: int = 24, columns: int = 80) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "devaipod_web.cli.main", *words],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env={**place.environment, "TERM": "vt220"},
            cwd=ROOT,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self.said = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def types(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def until(self, words: bytes | re.Pattern, seconds: float = 30) -> None:
        pattern = words if isinstance(words, re.Pattern) else re.compile(re.escape(words))
        deadline = time.monotonic() + seconds
        while not pattern.search(self.said):
            assert time.monotonic() < deadline, self.said[-2000:]
            if select.select([self.master], [], [], 0.2)[0]:
                self.said += os.read(self.master, 65536)

    def ends(self) -> int:
        """The exit status; the terminal is as it was."""
        deadline = time.monotonic() + 20
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.said[-2000:]
            if select.select([self.master], [], [], 0.1)[0]:
                self.said += os.read(self.master, 65536)
        while select.select([self.master], [], [], 0)[0]:
            self.said += os.read(self.master, 65536)
        assert termios.tcgetattr(self.slave) == self.before
        os.close(self.master)
        os.close(self.slave)
        return int(self.process.returncode)


def piped(
    place: Installation, *words: str, data: bytes = b"", **environment: str
) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "devaipod_web.cli.main", "attach", *words],
        input=data,
        capture_output=True,
        timeout=60,
        env={**place.environment, **environment},
        cwd=ROOT,
    )


def test_a_shell_in_a_terminal_with_its_size_its_keys_and_its_status(place, run):
    seat = Seat(place, "attach", run[0], rows=31, columns=97)
    seat.until(b"$ ")
    seat.types(b"stty size; echo $TERM; pwd\r")
    seat.until(re.compile(rb"31 97\r\nvt220\r\n/workspaces/shop\r\n"))
    seat.resize(20, 60)
    time.sleep(0.5)
    seat.types(b"stty size\r")
    seat.until(b"20 60\r\n")
    seat.types(b"sleep 100\r")
    time.sleep(0.5)
    seat.types(b"\x03")  # the program there is interrupted, not the command here
    seat.types(b"echo stat''us $?\r")
    seat.until(b"status 130")
    seat.types(b"exit 7\r")
    assert seat.ends() == 7


def test_three_escapes_leave_a_program_that_answers_to_nothing(place, run):
    seat = Seat(place, "attach", run[1], "--", "sh", "-c", "trap '' INT HUP; echo deaf; sleep 1000")
    seat.until(b"deaf")
    for _ in range(3):
        seat.types(b"\x1d")
        time.sleep(0.1)
    assert seat.ends() == 130
    assert b"the program there is ended" in seat.said


def test_the_terminal_is_put_back_when_the_server_goes(place, run):
    seat = Seat(place, "attach", run[0])
    seat.until(b"$ ")
    place.kill9()
    try:
        assert seat.ends() == 1
        assert b"broke" in seat.said
    finally:
        place.start()


def test_a_pipe_passes_bytes_and_the_end_of_input_and_the_exit_status(place, run):
    data = os.urandom(3_000_000)
    done = piped(place, run[0], "--", "sh", "-c", "cat; exit 9", data=data)
    assert done.returncode == 9, done.stderr
    assert done.stdout == data
    assert done.stderr == b""
    assert piped(place, run[0], "--", "sh", "-c", "echo told >&2").stdout == b"told\n"


def test_a_reader_that_goes_ends_it_quietly(place, run):
    program = f"{sys.executable} -m devaipod_web.cli.main attach {run[0]} -- yes | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", program],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=40,
        env=place.environment,
        cwd=ROOT,
    )
    assert (done.stdout, done.stderr) == (b"y\n", b"")


def test_what_can_not_be_attached_to_is_one_sentence_and_a_next_step(place, run):
    tried = [
        (("aaaaaaaaaa",), {}, 4),
        (("devaipod-nothing-1",), {}, 4),
        ((run[1],), {"DEVAIPOD_URL": place.url, "DEVAIPOD_TOKEN": "dvp_wrong"}, 1),
        ((run[1],), {"DEVAIPOD_URL": "http://127.0.0.1:9", "DEVAIPOD_TOKEN": "dvp_x"}, 1),
    ]
    for words, environment, status in tried:
        done = piped(place, *words, **environment)
        said = done.stderr.decode()
        assert done.returncode == status, (words, said)
        assert said.startswith("devaipod: "), said
        assert "Traceback" not in said


def test_it_works_with_an_address_and_a_token(place, run):
    done = piped(
        place,
        run[1],
        "--",
        "pwd",
        DEVAIPOD_URL=place.url,
        DEVAIPOD_TOKEN=place.token,
        DEVAIPOD_HOME="/nonexistent",
    )
    assert (done.returncode, done.stdout) == (0, b"/workspaces/shop\n"), done.stderr


def test_a_run_whose_pod_has_ended_says_so(place):
    key, pod = launched(place)
    place.api("POST", f"/runs/{key}/stop", {})
    place.wait(lambda: place.api("GET", f"/pods/{pod}")["ended_at"], 60, "the pod's end")
    done = piped(place, key)
    assert done.returncode == 1
    assert done.stderr.decode().startswith("devaipod: The pod has ended.")
