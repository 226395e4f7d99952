"""Parts killed under a real installation, with an agent at work: it is said within seconds, and a restart mends it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.installation import ApiError, Installation, installed

pytestmark = [pytest.mark.podman, pytest.mark.slow]

#: "Within seconds": checks are 2 s apart, beats 3 s, and the machine may be busy.
SOON = 20.0


@pytest.fixture(scope="module")
def place() -> Iterator[Installation]:
    folder = Path(tempfile.mkdtemp(prefix="devaipod-parts-"))
    with installed(folder / "home", DEVAIPOD_KEEP_WARM_SECONDS="30") as made:
        made.devaipod("demo", timeout=240)
        yield made
    shutil.rmtree(folder, ignore_errors=True)


def health(place: Installation, name: str) -> str:
    found = {one["name"]: one for one in place.api("GET", "/services")}
    return str(found[name]["health"])


def soon(place: Installation, name: str, wanted: str) -> None:
    place.wait(lambda: health(place, name) == wanted, SOON, f"{name} to be {wanted}")


def status(place: Installation) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "devaipod_web.cli.main", "status"],
        env=place.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def launch(place: Installation, task: str) -> str:
    key: str = place.api("POST", "/runs", {"project": "sample", "task": task})["key"]
    return key


def test_podmans_service_is_killed_and_restarted_and_the_run_goes_on(place: Installation):
    key = launch(place, "Explain the retries.\ndemo: sleep 8")
    place.wait_for_event(key, "tool_call", seconds=60)
    os.kill(int((place.home / "podman" / "service.pid").read_text()), signal.SIGKILL)
    soon(place, "podman", "down")
    soon(place, "supervisor", "degraded")
    said = status(place)
    assert said.returncode == 1
    assert "down  podman's API service" in said.stdout
    assert "✓ ok" in place.devaipod("restart", "podman")
    soon(place, "supervisor", "ok")
    assert status(place).returncode == 0
    place.wait_for_state(key, "succeeded", seconds=120)


def test_gateway_and_supervisor_restart_under_a_run_and_nothing_is_lost(place: Installation):
    key = launch(place, "Explain the time-outs.\ndemo: sleep 10")
    place.wait_for_event(key, "tool_call", seconds=60)
    place.wait(lambda: sidecars(place) >= 1, SOON, "the sidecar to be seen")
    assert "✓ ok" in place.devaipod("restart", "gateway")
    place.wait(lambda: sidecars(place) >= 1, SOON, "the sidecar to dial again")
    assert "✓ ok" in place.devaipod("restart", "supervisor")
    run = place.wait_for_state(key, "succeeded", seconds=120)
    events = place.events(key)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    kinds = [event["kind"] for event in events]
    assert (kinds.count("turn.ended"), kinds.count("work.staged")) == (1, 1)
    assert run["attempts"] == 1


def sidecars(place: Installation) -> int:
    found = {one["name"]: one for one in place.api("GET", "/services")}
    return int(found["gateway"]["facts"].get("sidecars", 0))


def test_a_command_that_follows_a_run_outlives_the_servers_death(place: Installation):
    words = ["run", "sample", "Explain the queue.\ndemo: sleep 8", "--json"]
    command = subprocess.Popen(
        [sys.executable, "-m", "devaipod_web.cli.main", *words],
        env=place.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert command.stdout is not None
    lines: list[str] = []
    while not any('"tool_call"' in line for line in lines):
        lines.append(command.stdout.readline())
        assert lines[-1], "the command ended"
    place.kill9()
    time.sleep(1)
    place.start()
    # Not `communicate`: it reads past what `readline` has buffered already.
    events = [json.loads(line) for line in [*lines, *command.stdout]]
    assert command.stderr is not None
    complaints = command.stderr.read()
    command.wait(30)
    assert command.returncode == 0, complaints
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["payload"].get("to") == "succeeded" or "review" in events[-1]["kind"]
    assert "Connected again." in complaints


def test_a_gateway_without_its_socket_takes_new_runs_again_after_a_restart(place: Installation):
    place.python("from devaipod_web import home; home.gateway_socket().unlink()")
    soon(place, "gateway", "down")
    assert status(place).returncode == 1
    assert "✓ ok" in place.devaipod("restart", "gateway")
    place.wait_for_state(launch(place, "Explain the errors."), "succeeded", seconds=120)


def test_teardown_stages_what_runs_did_and_leaves_no_pod_and_setup_undoes_it(place: Installation):
    key = launch(place, "Explain it all.\ndemo: sleep 30")
    place.wait_for_event(key, "tool_call", seconds=60)
    said = place.devaipod("teardown", "--yes", timeout=300)
    assert "1 runs were stopped" in said or "No run is at work" in said
    assert place.run(key)["state"] == "stopped"
    label = json.loads((place.home / "installation.json").read_text())["id"]
    assert (
        place.podman("pod", "ps", "-q", "--filter", f"label=io.devaipod.installation={label}") == ""
    )
    # Again: nothing is left to do.
    assert "✓ ok  drain" in place.devaipod("teardown", "--yes")
    with pytest.raises(ApiError) as caught:
        launch(place, "One more")
    assert caught.value.status == 503
    assert "takes no new runs" in place.devaipod("status")
    answer = place.api("POST", "/setup")
    assert answer["ready"], answer
    assert {"step": "runs", "result": "done"}.items() <= answer["steps"][-1].items()
    assert place.api("POST", "/setup")["steps"][-1]["result"] == "ok"
    place.wait_for_state(launch(place, "One more"), "succeeded", seconds=120)
    actions = place.python(
        "import os; os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'devaipod_web.settings'); import django; django.setup()\n"
        "from devaipod_web.reviews.models import AuditEntry\n"
        "print(*AuditEntry.objects.values_list('action', flat=True))"
    )
    assert actions.count("installation.torn_down") == 1
    assert "installation.set_up" in actions
    assert "service.restarted" in actions


def test_setup_starts_what_is_down(place: Installation):
    os.kill(int((place.home / "podman" / "service.pid").read_text()), signal.SIGKILL)
    soon(place, "podman", "down")
    answer = place.api("POST", "/setup")
    assert answer["ready"], answer
    assert {one["step"]: one["result"] for one in answer["steps"]}["podman"] == "done"


def test_a_full_disk_of_the_staging_forge_is_said_and_over_when_there_is_room(place: Installation):
    staging, kept = place.home / "staging", place.home / "staging-kept"
    place.stop()
    staging.rename(kept)
    staging.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(staging)], check=True)
    try:
        place.start()
        soon(place, "staging", "degraded")
        filler = staging / "filler"
        filler.write_bytes(b"x" * (120 * 1024**2))
        soon(place, "staging", "down")
        found = next(one for one in place.api("GET", "/services") if one["name"] == "staging")
        assert "disk is full" in found["says"]
        assert "devaipod prune" in found["next_step"]
        filler.unlink()
        soon(place, "staging", "degraded")
    finally:
        place.stop()
        for _ in range(20):
            if subprocess.run(["umount", str(staging)], check=False).returncode == 0:
                break
            time.sleep(0.5)
        staging.rmdir()
        kept.rename(staging)
        place.start()
    soon(place, "staging", "ok")
