"""Podman's API service: an own one for each installation, on a socket that only its user reaches."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from devaipod_web import home
from devaipod_web.host import podman_config
from devaipod_web.host.errors import ServiceFailed
from devaipod_web.host.process import alive

START_SECONDS = 20.0
STOP_SECONDS = 10.0


def log_path() -> Path:
    """What the service writes."""
    return home.podman_dir() / "service.log"


def _pid_path() -> Path:
    return home.podman_dir() / "service.pid"


def answers(path: Path, *, timeout: float = 5.0) -> bool:
    """Whether a podman API service answers at a socket: a real `/_ping`, since a socket file may be stale."""
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(timeout)
            line.connect(str(path))
            line.sendall(b"GET /_ping HTTP/1.0\r\nHost: d\r\n\r\n")
            return b" 200 " in line.recv(4096)
    except OSError:
        return False


def pid() -> int | None:
    """The id of the service that we started, while it runs."""
    number = _remembered()
    # The id may be another process's by now.
    return number if number in _service_processes(number) and alive(number) else None


def ensure() -> bool:
    """Start the service unless it answers already; returns whether it was started now.

    A service that `DEVAIPOD_PODMAN_SOCKET` names is never started here: it belongs to somebody else. Raises ServiceFailed
    with the last lines of its log.
    """
    path = home.podman_socket()
    if answers(path):
        return False
    if os.environ.get("DEVAIPOD_PODMAN_SOCKET"):
        raise ServiceFailed(
            f"No podman service answers at {path}, which DEVAIPOD_PODMAN_SOCKET names: start it, or unset the variable"
        )
    stop()
    path.unlink(missing_ok=True)
    home.podman_dir().mkdir(parents=True, exist_ok=True)
    with log_path().open("ab") as log:
        child = subprocess.Popen(
            ["podman", "system", "service", "--time=0", f"unix://{path}"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=podman_config.environment(),
            cwd="/",
            start_new_session=True,
        )
    _pid_path().write_text(str(child.pid))
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if answers(path, timeout=1):
            return True
        if child.poll() is not None:
            break
        time.sleep(0.05)
    raise ServiceFailed(
        f"podman's API service did not come up within {START_SECONDS:g} s. Its last lines ({log_path()}):\n{_tail()}\n"
        "`devaipod doctor` looks for the cause."
    )


def stop() -> bool:
    """End the service that we started, if it runs; pods go on without it. Returns whether it ran."""
    number = pid()
    processes = _service_processes(_remembered())
    if number is None and not processes:
        _pid_path().unlink(missing_ok=True)
        return False
    for process in processes:
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while any(alive(process) for process in processes):
        late = time.monotonic() > deadline
        for process in processes:
            if late:
                _signal(process, signal.SIGKILL)
            _reap(process)
        time.sleep(0.05)
    _pid_path().unlink(missing_ok=True)
    home.podman_socket().unlink(missing_ok=True)
    return True


def _remembered() -> int:
    try:
        return int(_pid_path().read_text())
    except (OSError, ValueError):
        return 0


def _service_processes(leader: int) -> list[int]:
    """Processes of the session that we started the service in, the service's own alone.

    Rootless podman starts itself again inside of a user namespace and leaves the first process waiting: ending only that
    one left the second serving for ever. What else is in the session (conmon on its way to its own) is none of ours.
    """
    if not leader:
        return []
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            session = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[3])
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except (OSError, IndexError, ValueError):
            continue
        if session == leader and b"system" in words and b"service" in words:
            found.append(int(entry.name))
    return found


def _signal(number: int, what: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(number, what)


def _reap(number: int) -> None:
    """Collect our own child, else it would stay a zombie while this process lives."""
    try:
        os.waitpid(number, os.WNOHANG)
    except ChildProcessError:
        return


def _tail() -> str:
    try:
        lines = log_path().read_text(errors="replace").splitlines()
    except OSError:
        return "(no log)"
    return "\n".join(lines[-12:])
