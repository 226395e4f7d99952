"""A whole installation of its own for a test: home, podman service, server process, API client. Nothing in it is faked."""

from __future__ import annotations

import atexit
import functools
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.harness import NotThere, RunHandle, wait_for_state

ROOT = Path(__file__).resolve().parent.parent.parent
START_SECONDS = 60


class ApiError(AssertionError):
    """The API answered with a problem document."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(f"{status}: {problem}")
        self.status = status
        self.problem = problem


class Installation:
    """One DEVAIPOD_HOME with its server. `environment` overrides settings, such as DEVAIPOD_KEEP_WARM_SECONDS."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.home = home
        self.server: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.token = ""
        self.environment = {
            **os.environ,
            "DEVAIPOD_HOME": str(home),
            "DEVAIPOD_LOCAL_REPOSITORY_ROOTS": str(home.parent),
            "DEVAIPOD_KEEP_WARM_SECONDS": "5",
            **environment,
        }
        self.environment.pop("DJANGO_SETTINGS_MODULE", None)

    def devaipod(self, *words: str, timeout: float = 120, check: bool = True) -> str:
        """Run the CLI in this installation and return its standard output."""
        return self.module("devaipod_web.cli.main", *words, timeout=timeout, check=check)

    def module(self, *words: str, timeout: float = 120, check: bool = True) -> str:
        """Run one of our modules in this installation's environment and return its standard output."""
        return self._call(["-m", *words], timeout=timeout, check=check)

    def python(self, program: str) -> str:
        """Run a few lines of Python in this installation's environment and return what they print."""
        return self._call(["-c", program], timeout=120, check=True)

    def podman(self, *words: str) -> str:
        """Run podman's own command with this installation's containers.conf and return what it prints."""
        conf = self.home / "podman" / "containers.conf"
        done = subprocess.run(
            ["podman", *words],
            env={**self.environment, **({"CONTAINERS_CONF": str(conf)} if conf.exists() else {})},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"podman {' '.join(words)}: {done.stderr}"
        return done.stdout.strip()

    def _call(self, words: list[str], *, timeout: float, check: bool) -> str:
        done = subprocess.run(
            [sys.executable, *words],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
        if check and done.returncode:
            raise AssertionError(
                f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
            )
        return done.stdout

    def setup(self) -> None:
        """Have podman's service listen, migrate, make the first user and their token. The images are there already."""
        self.python(
            "from devaipod_web.host import facts, podman_config, podman_service as service\n"
            "podman_config.write(facts.look()); service.ensure()"
        )
        database = self.home / "db.sqlite3"
        if "DATABASE_URL" not in self.environment and not database.exists():
            shutil.copyfile(migrated_database(), database)
        self.devaipod("migrate")

    def start(self) -> None:
        """Start `devaipod serve` and wait until it answers."""
        self.port = self.port or free_port()
        log = (self.home / "log").resolve()
        log.mkdir(parents=True, exist_ok=True)
        self.server = subprocess.Popen(
            [sys.executable, "-m", "devaipod_web.cli.main", "serve", "--port", str(self.port)],
            env=self.environment,
            cwd=ROOT,
            stdout=(log / "serve.log").open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.wait(self.answers, START_SECONDS, "the server to answer")
        if not self.token:
            self.token = (self.home / "cli.token").read_text().strip()

    def answers(self) -> bool:
        """Whether the server says that it is well."""
        assert self.server is not None
        if self.server.poll() is not None:
            raise AssertionError(
                f"the server ended with {self.server.returncode}:\n{self.server_log()}"
            )
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def kill9(self) -> None:
        """End the server as a power cut would."""
        assert self.server is not None
        os.killpg(self.server.pid, signal.SIGKILL)
        self.server.wait()
        self.server = None

    def stop(self) -> None:
        """Ask the server to end, and insist after 30 seconds."""
        if self.server is None:
            return
        self.server.terminate()
        try:
            self.server.wait(30)
        except subprocess.TimeoutExpired:
            self.kill9()
            raise AssertionError(
                f"the server did not end on SIGTERM:\n{self.server_log()}"
            ) from None
        self.server = None

    def remove(self) -> None:
        """Stop the server and take away every pod, volume and file of this installation."""
        try:
            self.stop()
        finally:
            self.module("devaipod_web.host", "clean", check=False)
            shutil.rmtree(self.home, ignore_errors=True)

    @property
    def url(self) -> str:
        """The web app's address."""
        return f"http://127.0.0.1:{self.port}"

    def server_log(self) -> str:
        """The end of the server's log."""
        path = self.home / "log" / "serve.log"
        return path.read_text(errors="replace")[-6000:] if path.exists() else ""

    def api(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Call the API with the first user's token. Raises ApiError with the problem document."""
        request = urllib.request.Request(
            f"{self.url}/api/devaipod{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self.token}",
                "Content-Type": "application/json",
                **{name.replace("_", "-"): value for name, value in headers.items()},
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            text = error.read()
            try:
                raise ApiError(error.code, json.loads(text)) from None
            except ValueError:
                raise ApiError(
                    error.code, {"detail": text.decode(errors="replace")[:500]}
                ) from None
        if "ndjson" in answer.headers.get("Content-Type", ""):
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        return json.loads(text) if text else None

    def run(self, key: str) -> dict[str, Any]:
        """A run as the API shows it."""
        answer: dict[str, Any] = self.api("GET", f"/runs/{key}")
        return answer

    def events(self, key: str) -> list[dict[str, Any]]:
        """All events of a run."""
        answer: list[dict[str, Any]] = self.api("GET", f"/runs/{key}/events")
        return answer

    def wait(self, condition: Callable[[], Any], seconds: float, what: str) -> Any:
        """Wait until `condition` returns something true and return it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            time.sleep(0.1)
        raise AssertionError(
            f"waited {seconds:.0f} s for {what}; the server's log ends:\n{self.server_log()}"
        )

    def handle(self, key: str) -> RunHandle:
        """A run for the harness."""
        return RunHandle(self.api, key)

    def wait_for_state(self, key: str, *states: str, seconds: float = 120) -> dict[str, Any]:
        """Wait until a run is in one of `states`; a failure has its diagnosis, its last events and the end of the server's log."""
        try:
            return wait_for_state(self.handle(key), *states, timeout=seconds)
        except NotThere as error:
            raise NotThere(
                f"{error}\n{self.story(key)}\nthe server's log ends:\n{self.server_log()[-2000:]}"
            ) from None

    def wait_for_event(
        self, key: str, kind: str, seconds: float = 90, every: float = 0.3, **payload: Any
    ) -> dict[str, Any]:
        """Wait for an event of this kind whose payload has these values, looking every `every` seconds."""

        def found() -> dict[str, Any] | None:
            return next(
                (
                    event
                    for event in self.events(key)
                    if event["kind"] == kind and payload.items() <= event["payload"].items()
                ),
                None,
            )

        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            event = found()
            if event is not None:
                return event
            time.sleep(every)
        raise AssertionError(
            f"run {key} had no {kind} {payload or ''} within {seconds:.0f} s:\n{self.story(key)}"
        )

    def story(self, key: str) -> str:
        """The end of what a run tells, for a failure's message."""
        run = self.run(key)
        said = [
            f"  {e['at']} {e['seq']} {e['kind']} {json.dumps(e['payload'])[:300]}"
            for e in self.events(key)[-25:]
        ]
        head = f"state {run['state']} ({run.get('reason')}), waits for {run.get('waits_for')!r}\n"
        return head + "\n".join(said)


@functools.cache
def migrated_database() -> Path:
    """A database with every migration applied and nobody in it, made once by this process: that takes longer than all else of a set-up."""
    folder = Path(tempfile.mkdtemp(prefix="devaipod-migrated-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    environment = {
        **os.environ,
        "DEVAIPOD_HOME": str(folder),
        "DJANGO_SETTINGS_MODULE": "devaipod_web.settings",
    }
    environment.pop("DATABASE_URL", None)
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "--verbosity", "0"],
        env=environment,
        cwd=ROOT,
        check=True,
        timeout=120,
    )
    return folder / "db.sqlite3"


def free_port() -> int:
    """A TCP port of the loopback address that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def git(*words: str, cwd: Path) -> str:
    """Run git for a test's own repositories and return its output."""
    done = subprocess.run(
        [
            "git",
            "-c",
            "user.name=Ada",
            "-c",
            "user.email=ada@example.org",
            "-c",
            "init.defaultBranch=main",
            *words,
        ],
        cwd=cwd,
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null"},
    )
    return done.stdout.strip()


def make_upstream(folder: Path, files: dict[str, str] | None = None) -> Path:
    """A bare repository with one commit on `main`, and return its path."""
    folder.mkdir(parents=True)
    work, bare = folder / "work", folder / "upstream.git"
    work.mkdir()
    git("init", "-q", cwd=work)
    for name, text in (
        files or {"README.md": "# Sample\n", "greet.py": "def greet():\n    return 'hi'\n"}
    ).items():
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    git("add", "-A", cwd=work)
    git("commit", "-qm", "First", cwd=work)
    git("clone", "-q", "--bare", str(work), str(bare), cwd=folder)
    return bare


@contextmanager
def installed(home: Path, **environment: str) -> Iterator[Installation]:
    """An installation that is set up and serving, and gone afterwards."""
    place = Installation(home, **environment)
    place.setup()
    try:
        place.start()
        yield place
    finally:
        place.remove()
