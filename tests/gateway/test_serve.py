"""`devaipod serve` as a process of its own, with a home of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import aiohttp
import pytest

#: A manager with a session; prints the cookie's header.
SIGN_IN = """
from importlib import import_module
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from devaipod_web.accounts.models import User
user = User.objects.create_superuser("mona")
store = import_module(settings.SESSION_ENGINE).SessionStore()
store[SESSION_KEY] = str(user.pk)
store[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
store[HASH_SESSION_KEY] = user.get_session_auth_hash()
store.save()
print(f"{settings.SESSION_COOKIE_NAME}={store.session_key}")
"""
ROOT = Path(__file__).resolve().parent.parent.parent


class Own:
    """A migrated home, and servers in it."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.environment = {
            **os.environ,
            "DEVAIPOD_HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(folder),
            "DEVAIPOD_LOG_FORMAT": "json",
        }
        for name in ("DJANGO_SETTINGS_MODULE", "DATABASE_URL", "REDIS_URL"):
            self.environment.pop(name, None)
        self.servers: list[subprocess.Popen[str]] = []

    def migrate(self) -> None:
        subprocess.run(
            [sys.executable, "manage.py", "migrate", "-v0"],
            cwd=ROOT,
            env=self.environment,
            check=True,
            capture_output=True,
        )

    def shell(self, code: str) -> str:
        done = subprocess.run(
            [sys.executable, "manage.py", "shell", "-v0", "-c", code],
            cwd=ROOT,
            env=self.environment,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip().splitlines()[-1]

    def serve(self, *words: str) -> subprocess.Popen[str]:
        server = subprocess.Popen(
            [sys.executable, "-m", "devaipod_web.serve", *words],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.servers.append(server)
        return server

    def up(self, *words: str) -> dict[str, Any]:
        server = self.serve(*words)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            assert server.poll() is None, server.communicate()
            try:
                card: dict[str, Any] = json.loads((self.home / "serve.json").read_text())
            except (OSError, ValueError):
                card = {}
            if card.get("pid") == server.pid:
                return card
            time.sleep(0.05)
        raise AssertionError("it did not come up")

    def refused(self, *words: str) -> str:
        out, err = self.serve(*words).communicate(timeout=30)
        assert self.servers[-1].returncode == 2, (out, err)
        return err


@pytest.fixture(scope="module")
def migrated():
    folder = Path(tempfile.mkdtemp(prefix="dps-"))
    own = Own(folder)
    own.migrate()
    yield own
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def own(migrated):
    yield migrated
    for server in migrated.servers:
        if server.poll() is None:
            server.terminate()
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                server.kill()
        for pipe in (server.stdout, server.stderr):
            if pipe:
                pipe.close()
    migrated.servers.clear()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return int(error.code)


@pytest.mark.slow
def test_it_serves_web_and_gateway_and_neither_serves_a_route_of_the_other(own):
    card = own.up("--port", str(free_port()))
    assert status_of(card["url"] + "/sidecar") == 404
    assert status_of(card["url"] + "/llm/v1/models") == 404
    (path,) = (own.home.parent).glob("devaipod-*/gateway.sock")
    assert oct(path.stat().st_mode & 0o777) == "0o666"

    async def ask(target: str) -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(f"GET {target} HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return answer.split(b"\r\n", 1)[0]

    assert b"401" in asyncio.run(ask("/llm/v1/models"))
    assert b"404" in asyncio.run(ask("/sign-in/"))


@pytest.mark.slow
def test_it_serves_the_gateway_on_a_port_too_when_it_is_told_to(own):
    port = free_port()
    own.environment["DEVAIPOD_GATEWAY_LISTEN"] = f"127.0.0.1:{port}"
    try:
        own.up("--port", str(free_port()))
        assert status_of(f"http://127.0.0.1:{port}/llm/v1/models") == 401
        assert status_of(f"http://127.0.0.1:{port}/sign-in/") == 404
        own.servers[-1].terminate()
        own.servers[-1].wait(15)
        with socket.create_server(("127.0.0.1", port)):
            said = own.refused("--port", str(free_port()))
        assert f"Port {port} of 127.0.0.1 cannot be used for the gateway" in said
    finally:
        del own.environment["DEVAIPOD_GATEWAY_LISTEN"]


@pytest.mark.slow
def test_a_page_of_another_origin_opens_no_socket(own):
    card = own.up("--port", str(free_port()))

    cookie = own.shell(SIGN_IN)

    async def dial(origin: str) -> str:
        headers = {"Origin": origin, "Cookie": cookie}
        async with aiohttp.ClientSession() as session:
            try:
                async with session.ws_connect(card["url"] + "/ws/wakes/", headers=headers):
                    return "open"
            except aiohttp.WSServerHandshakeError as error:
                return str(error.status)

    assert asyncio.run(dial(card["url"])) == "open"
    assert asyncio.run(dial("http://evil.example")) == "403"
    assert asyncio.run(dial("http://127.0.0.1:1")) == "403"


@pytest.mark.slow
def test_a_second_one_says_who_holds_the_installation(own):
    card = own.up("--port", str(free_port()))
    said = own.refused()
    assert str(card["pid"]) in said
    assert card["url"] in said


@pytest.mark.slow
def test_sigterm_ends_it_in_order_and_soon_and_takes_the_card_away(own):
    card = own.up("--port", str(free_port()))
    began = time.monotonic()
    os.kill(card["pid"], signal.SIGTERM)
    out, err = own.servers[-1].communicate(timeout=15)
    assert own.servers[-1].returncode == 0, err
    assert time.monotonic() - began < 10
    events = [json.loads(line)["event"] for line in err.splitlines() if line.startswith("{")]
    assert events.index("supervisor.stopped") < events.index("serve.down")
    assert not (own.home / "serve.json").exists()


@pytest.mark.slow
def test_after_a_kill_the_next_one_starts_at_once(own):
    own.up("--port", str(free_port()))
    own.servers[-1].kill()
    own.servers[-1].wait(5)
    assert (own.home / "serve.json").exists()
    card = own.up("--port", str(free_port()))
    assert status_of(card["url"] + "/sidecar") == 404


@pytest.mark.slow
def test_a_port_that_was_asked_for_and_is_taken_is_an_error(own):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = own.refused("--port", str(taken.getsockname()[1]))
    assert "--port" in said


@pytest.mark.slow
def test_without_a_port_the_next_free_one_is_said_aloud(own):
    taken = None
    with contextlib.suppress(OSError):  # somebody else has it: just as well
        taken = socket.create_server(("127.0.0.1", 8000))
    try:
        card = own.up()
    finally:
        if taken:
            taken.close()
    port = int(card["url"].rpartition(":")[2])
    assert port > 8000
    os.kill(card["pid"], signal.SIGTERM)
    out, _ = own.servers[-1].communicate(timeout=15)
    assert f"serving on {port}" in out


@pytest.mark.slow
def test_unapplied_migrations_name_the_command(tmp_path):
    fresh = Own(tmp_path)
    said = fresh.refused()
    assert "devaipod migrate" in said


@pytest.mark.slow
@pytest.mark.parametrize("service", ["web", "gateway", "supervisor"])
def test_a_single_service_refuses_sqlite(own, service):
    assert "DATABASE_URL" in own.refused(service)


@pytest.mark.slow
def test_a_socket_path_that_is_too_long_is_a_sentence(own, tmp_path):
    long = tmp_path / ("x" * 90)
    long.mkdir()
    before = own.environment
    own.environment = {**before, "XDG_RUNTIME_DIR": str(long)}
    try:
        assert "107" in own.refused("--port", str(free_port()))
    finally:
        own.environment = before
