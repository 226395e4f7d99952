"""Web, gateway and supervisor as processes of their own, on PostgreSQL and Redis: as teams run them."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import servers
from tests.e2e.installation import ROOT, START_SECONDS, Installation, free_port
from tests.e2e.test_kill import check_whole, launch, pods_of

pytestmark = [pytest.mark.podman, pytest.mark.slow]

SERVICES = ("gateway", "supervisor", "web")


class Apart(Installation):
    """An installation whose three services are processes of their own."""

    def start(self) -> None:
        """Start all three and wait until the web service answers."""
        self.port = self.port or free_port()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for service in SERVICES:
            self.start_one(service)
        self.server = self.processes["web"]
        self.wait(self.answers, START_SECONDS, "the web service to answer")
        self.token = self.token or (self.home / "cli.token").read_text().strip()

    def start_one(self, service: str) -> None:
        """Start one service."""
        log = self.home / "log"
        log.mkdir(parents=True, exist_ok=True)
        port = ["--port", str(self.port)] if service == "web" else []
        self.processes[service] = subprocess.Popen(
            [sys.executable, "-m", "devaipod_web.cli.main", "serve", service, *port],
            env=self.environment,
            cwd=ROOT,
            stdout=(log / "serve.log").open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def answers_again(self) -> bool:
        """Whether the web service that runs now says that it is well."""
        self.server = self.processes["web"]
        return self.answers()

    def kill_one(self, service: str) -> None:
        """End one service as a power cut would."""
        os.killpg(self.processes[service].pid, signal.SIGKILL)
        self.processes[service].wait()

    def stop(self) -> None:
        """Ask each to end; one that does not within 30 s fails the test."""
        for process in getattr(self, "processes", {}).values():
            process.terminate()
        late = []
        for service, process in getattr(self, "processes", {}).items():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                late.append(service)
        self.server = None
        assert not late, f"{late} did not end on SIGTERM:\n{self.server_log()}"


@pytest.fixture(scope="module")
def place() -> Iterator[Apart]:
    folder = Path(tempfile.mkdtemp(prefix="devaipod-apart-"))
    with servers.postgresql() as database, servers.redis() as layer:
        made = Apart(folder / "home", DATABASE_URL=database, REDIS_URL=layer)
        made.setup()
        try:
            made.start()
            made.devaipod("demo", timeout=240)
            yield made
        finally:
            made.remove()
            shutil.rmtree(folder, ignore_errors=True)


def test_the_command_finds_the_web_service(place: Apart):
    assert place.devaipod("ps", "--all", "--json").count('"key"') >= 1


def test_what_one_process_stores_another_shows_before_its_next_beat(place: Apart):
    key = launch(place, "Say more.\ndemo: sleep 3")
    late: list[float] = []

    def follow() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", place.port, timeout=120)
        connection.request(
            "GET",
            f"/api/devaipod/runs/{key}/events?follow=true",
            headers={"Authorization": f"Bearer {place.token}"},
        )
        answer = connection.getresponse()
        began = time.time()
        for line in answer:
            if line.strip():
                seen, event = time.time(), json.loads(line)
                stored = _seconds(event["at"])
                if stored > began:
                    late.append(seen - stored)

    reader = threading.Thread(target=follow, daemon=True)
    reader.start()
    place.wait_for_state(key, "succeeded", seconds=120)
    reader.join(30)
    assert len(late) > 10
    # On the beat of two seconds alone the median would be one second.
    assert sorted(late)[len(late) // 2] < 0.5, late


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_killed_in_the_middle_of_a_run_is_only_missed_until_it_is_back(
    place: Apart, service: str
):
    key = launch(place, f"Explain {service}.\ndemo: sleep 5")
    place.wait_for_event(key, "tool_call", seconds=60)
    place.kill_one(service)
    time.sleep(2)
    place.start_one(service)
    place.wait(place.answers_again, START_SECONDS, "the web service to answer")
    run = place.wait_for_state(key, "succeeded", seconds=120)
    kinds = check_whole(place, key)
    assert run["attempts"] == 1
    assert kinds.count("turn.ended") == 1
    assert len(pods_of(place, key)) <= 1


def _seconds(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()
