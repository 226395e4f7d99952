"""A real PostgreSQL and a real Redis for a test: each in a folder of its own, on a port of its own, gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devaipod_web.host.facts import look
from tests.e2e.installation import free_port

START_SECONDS = 30
#: PostgreSQL refuses to run as root; Debian's package makes this user.
DATABASE_USER = "postgres"


@contextmanager
def postgresql() -> Iterator[str]:
    """A cluster with one empty database; gives its address for DATABASE_URL."""
    facts = look()
    if not facts.initdb:
        pytest.fail("PostgreSQL is not on this host: `make setup` installs it.", pytrace=False)
    programs = Path(facts.initdb).resolve().parent
    folder = Path(tempfile.mkdtemp(prefix="devaipod-postgresql-"))
    owner: dict[str, str] = {}
    if facts.root:
        user = pwd.getpwnam(DATABASE_USER)
        os.chown(folder, user.pw_uid, user.pw_gid)
        owner = {"user": DATABASE_USER, "group": DATABASE_USER}
    port = free_port()
    data = folder / "data"
    subprocess.run(
        [facts.initdb, "-D", data, "-U", "devaipod", "-A", "trust", "-E", "UTF8", "--no-sync"],
        check=True,
        capture_output=True,
        cwd="/",
        **owner,  # type: ignore[call-overload]
    )
    options = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": folder}
    words = [item for name, value in options.items() for item in ("-c", f"{name}={value}")]
    server = subprocess.Popen(
        [programs / "postgres", "-D", data, *words, "-c", "fsync=off"],
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **owner,  # type: ignore[call-overload]
    )
    try:
        ready: list[str | Path] = [
            programs / "pg_isready",
            "-h",
            "127.0.0.1",
            "-p",
            str(port),
            "-q",
        ]
        _wait(lambda: subprocess.run(ready).returncode == 0, server, "PostgreSQL")
        address = f"postgresql://devaipod@127.0.0.1:{port}"
        subprocess.run(
            [programs / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "devaipod", "runs"],
            check=True,
        )
        yield f"{address}/runs"
    finally:
        _end(server)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def redis() -> Iterator[str]:
    """A server that keeps nothing on disk; gives its address for REDIS_URL."""
    program = look().redis_server
    if not program:
        pytest.fail("Redis is not on this host: `make setup` installs it.", pytrace=False)
    port = free_port()
    server = subprocess.Popen(
        [program, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
    )
    try:
        _wait(lambda: _listens(port), server, "Redis")
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        _end(server)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait(is_ready, server: subprocess.Popen[bytes], what: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise AssertionError(f"{what} ended with {server.returncode}")
        if is_ready():
            return
        time.sleep(0.05)
    raise AssertionError(f"{what} did not listen within {START_SECONDS} s")


def _end(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(20)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
