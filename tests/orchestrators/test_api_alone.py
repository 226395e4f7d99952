"""An orchestrator that knows the API's address, a token and a project's name: create, watch, destroy, with the standard library alone."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.installation import Installation

pytestmark = [pytest.mark.podman, pytest.mark.slow]

SCRIPT = "echo begun; echo made > made.txt; sleep 1; echo done; exit 0"


class Orchestrator:
    """What any program in any language would do; nothing of devaipod is imported."""

    def __init__(self, url: str, token: str) -> None:
        self.url, self.token = url, token

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        with self._open(method, path, body) as answer:
            return answer.status, json.load(answer)

    def lines(self, path: str) -> Iterator[dict[str, Any]]:
        """An NDJSON stream, line by line as it comes."""
        with self._open("GET", path) as answer:
            for line in answer:
                if line.strip():
                    yield json.loads(line)

    def _open(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={
                "Authorization": f"Bearer {self.token}",
                "Content-Type": "application/json",
                "Idempotency-Key": "ticket-41",
            },
        )
        return urllib.request.urlopen(request, timeout=60)


def test_a_pod_is_created_watched_and_destroyed_over_the_api_alone(place: Installation) -> None:
    client = Orchestrator(f"{place.url}/api/devaipod", place.token)
    body = {"project": "shop", "argv": ["sh", "-c", SCRIPT], "labels": {"ticket": "41"}}
    status, made = client.call("POST", "/pods", body)
    assert (status, made["pod"]) == (201, None)
    run = f"/runs/{made['key']}"

    # The same request again, as after a time-out, is the same pod.
    status, again = client.call("POST", "/pods", body)
    assert (status, again["key"]) == (201, made["key"])

    # Watch: the events come as they happen, and end with the run.
    states = [
        event["payload"]["to"]
        for event in client.lines(f"{run}/events?follow=true")
        if event["kind"] == "run.state"
    ]
    assert states == ["queued", "preparing", "starting", "running", "succeeded"]
    _, ended = client.call("GET", run)
    assert (ended["state"], ended["exit_code"]) == ("succeeded", 0)
    (pod,) = ended["pods"]
    said = [line["text"] for line in client.lines(f"/pods/{pod}/logs?follow=true")]
    assert said == ["begun", "done"]

    # What it made waits for a person.
    _, reviews = client.call("GET", "/reviews?state=open")
    (review,) = [row for row in reviews["results"] if row["run"] == made["key"]]
    assert (review["files"], review["commits"]) == (1, 1)
    with client._open("GET", f"/reviews/{review['key']}/diff") as answer:
        assert b"+made" in answer.read()

    # Destroy: repeated until it is gone, and once more.
    end = time.monotonic() + 60
    while client.call("DELETE", f"/pods/{pod}")[0] != 200:
        assert time.monotonic() < end
        time.sleep(0.3)
    assert client.call("DELETE", f"/pods/{pod}")[0] == 200
    label = f"label=io.devaipod.run={made['key']}"
    assert place.podman("ps", "-a", "-q", "--filter", label) == ""
    _, row = client.call("GET", f"/pods/{pod}")
    assert {part["name"] for part in row["diagnostics"]["containers"]} == {"agent", "sidecar"}


def test_a_pod_at_work_is_destroyed_with_its_work_staged(place: Installation) -> None:
    script = "trap 'echo saved > saved.txt; exit 0' TERM; echo up; while :; do sleep 0.1; done"
    made = place.api("POST", "/pods", {"project": "shop", "argv": ["sh", "-c", script]})
    run = place.wait_for_state(made["key"], "running", seconds=60)
    (pod,) = run["pods"]
    place.wait(lambda: place.api("GET", f"/pods/{pod}/logs"), 30, "the command to say that it is up")  # fmt: skip
    place.api("DELETE", f"/pods/{pod}")
    assert place.run(made["key"])["state"] == "stopped"
    place.wait(lambda: place.api("DELETE", f"/pods/{pod}")["removed_at"], 60, "the pod to go")
    ended = place.run(made["key"])
    assert (ended["changed_files"], ended["exit_code"]) == (1, 0)
