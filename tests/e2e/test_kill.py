"""The server is killed in the middle of a run, and podman's service too: the run finishes, nothing is lost, no second pod."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.installation import Installation, installed

pytestmark = [pytest.mark.podman, pytest.mark.slow]


@pytest.fixture(scope="module")
def place() -> Iterator[Installation]:
    folder = Path(tempfile.mkdtemp(prefix="devaipod-kill-"))
    with installed(folder / "home") as made:
        made.devaipod("demo", timeout=240)
        yield made
    shutil.rmtree(folder, ignore_errors=True)


def launch(place: Installation, task: str) -> str:
    answer = place.api("POST", "/runs", {"project": "sample", "task": task})
    key: str = answer["key"]
    return key


def check_whole(place: Installation, key: str) -> list[str]:
    """Every event once, in order, without a gap; returns their kinds."""
    events = place.events(key)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    return [event["kind"] for event in events]


def pods_of(place: Installation, key: str) -> list[str]:
    return place.podman(
        "pod", "ps", "--filter", f"label=io.devaipod.run={key}", "--format", "{{.Name}}"
    ).split()


def test_a_server_killed_while_the_agent_works_finds_the_run_finished(place: Installation):
    key = launch(place, "Explain the retries.\ndemo: sleep 6")
    place.wait_for_event(key, "tool_call", seconds=60)
    place.kill9()
    time.sleep(9)  # the agent goes on meanwhile
    assert len(pods_of(place, key)) == 1
    place.start()
    run = place.wait_for_state(key, "succeeded", seconds=90)
    kinds = check_whole(place, key)
    assert kinds.count("turn.ended") == 1
    assert kinds.count("work.staged") == 1
    assert run["attempts"] == 1
    assert place.api("GET", "/reviews?state=open")["results"]


def test_a_server_killed_while_the_pod_is_made_makes_no_second_one(place: Installation):
    key = launch(place, "Explain the retries again.")
    place.wait_for_event(key, "run.step", seconds=30)
    place.kill9()
    place.start()
    run = place.wait_for_state(key, "succeeded", seconds=120)
    assert run["attempts"] == 1
    kinds = check_whole(place, key)
    assert kinds.count("session.started") == 1
    assert len(pods_of(place, key)) <= 1


def test_podmans_service_goes_away_and_the_run_waits_for_it(place: Installation):
    pid = int((place.home / "podman" / "service.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    key = launch(place, "Explain the time-outs.")

    def waits() -> bool:
        return "podman" in (place.run(key).get("waits_for") or "")

    place.wait(waits, 60, "the run to say that it waits for podman")
    place.setup()
    place.wait_for_state(key, "succeeded", seconds=150)
    check_whole(place, key)
