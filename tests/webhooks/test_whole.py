"""The whole way: a real server, real pods, a scripted agent, and a receiver that hears of all that happens."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devaipod_web.webhooks.kinds import SUBSCRIBABLE, Kind, envelope
from tests.agents.image import scripted_image
from tests.e2e.installation import Installation, git, installed, make_upstream
from tests.webhooks.receiver import Received, Receiver, receiving, until

pytestmark = [pytest.mark.podman, pytest.mark.slow]

SECONDS = 150
TASK = """
ask Empty the cache
write NOTES.md what was found
commit Write down what was found
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Installation]:
    folder = Path(tempfile.mkdtemp(prefix="devaipod-webhooks-"))
    with installed(
        folder / "home",
        DEVAIPOD_ALLOWED_PRIVATE_NETWORKS="127.0.0.0/8",
        DEVAIPOD_MAX_RUNS="2",
        DEVAIPOD_LOG_LEVEL="INFO",
    ) as made:
        upstream = make_upstream(folder / "repositories" / "courier")
        made.api(
            "POST",
            "/projects",
            {
                "name": "Courier",
                "slug": "courier",
                "upstream_url": str(upstream),
                "image": scripted_image(),
                "permission_policy": "ask",
            },
        )
        yield made
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def receiver(place: Installation) -> Iterator[Receiver]:
    """Asks the installation for everything, by its API; the webhook is removed afterwards."""
    with receiving() as made:
        hook = place.api(
            "POST",
            "/webhooks",
            {"name": "Whole", "url": made.url, "events": [str(kind) for kind in SUBSCRIBABLE]},
        )
        made.secrets.append(hook["secret"])
        made.key = hook["key"]  # type: ignore[attr-defined]
        yield made
        place.api("DELETE", f"/webhooks/{hook['key']}")


def launch(place: Installation, task: str, **more: Any) -> str:
    run = place.api("POST", "/runs", {"project": "courier", "task": task, **more})
    key: str = run["key"]
    return key


def of(receiver: Receiver, run: str, kind: str) -> list[Received]:
    """What was received of a run and a kind, each `webhook-id` once, as it happened; all of it is of the kind's form."""
    seen = {
        one.id: one
        for one in receiver.got
        if one.kind == kind and one.payload["data"]["run"]["key"] == run
    }
    for one in seen.values():
        envelope(Kind(kind)).model_validate(one.payload)
    return sorted(seen.values(), key=lambda one: one.payload["timestamp"])


def states(receiver: Receiver, run: str) -> list[str]:
    return [one.payload["data"]["to"] for one in of(receiver, run, "run.state")]


def heard(receiver: Receiver, run: str, state: str) -> None:
    until(lambda: state in states(receiver, run), SECONDS, f"run {run} to be told {state}")


def test_an_orchestrator_drives_a_run_by_what_it_is_told(place: Installation, receiver: Receiver):
    key = launch(place, TASK)

    # It waits: what was sent is all that an answer needs.
    (waiting,) = until(lambda: of(receiver, key, "run.waiting"), SECONDS, "a permission")
    asked = waiting.payload["data"]["permission"]
    assert "Empty the cache" in asked["title"]
    assert asked["answer_url"] == f"{place.url}/api/devaipod/runs/{key}/permission"
    allow = next(option for option in asked["options"] if option["kind"] == "allow_once")
    place.api(
        "POST",
        asked["answer_url"].removeprefix(f"{place.url}/api/devaipod"),
        {"request": asked["key"], "option_id": allow["id"]},
    )

    # Every state, once each, in the order in which they happened.
    heard(receiver, key, "succeeded")
    assert states(receiver, key) == [
        "queued",
        "preparing",
        "starting",
        "running",
        "waiting",
        "running",
        "succeeded",
    ]
    (opened,) = until(lambda: of(receiver, key, "review.opened"), 20, "the review")
    review = opened.payload["data"]["review"]
    run = place.run(key)
    assert review["head"] == run["head_commit"]
    assert (review["files"], review["additions"], review["revision"]) == (1, 1, 1)

    # What is promoted by the address that was sent is told too.
    place.api(
        "POST",
        review["api_url"].removeprefix(f"{place.url}/api/devaipod") + "/promote",
        {"head": review["head"]},
    )
    (promoted,) = until(lambda: of(receiver, key, "review.promoted"), 20, "the promotion")
    data = promoted.payload["data"]
    assert data["review"]["head"] == review["head"]
    upstream = place.home.parent / "repositories" / "courier" / "upstream.git"
    assert git("rev-parse", data["branch"], cwd=upstream) == review["head"]
    assert receiver.refused == []


def test_every_way_in_which_a_run_ends_is_told(place: Installation, receiver: Receiver):
    failed = launch(place, "die 7")
    stopped = launch(place, "sleep 100")
    heard(receiver, stopped, "running")
    place.api("POST", f"/runs/{stopped}/stop", {"reason": "Enough."})
    late = launch(place, "sleep 100", wall_seconds=30)
    heard(receiver, failed, "failed")
    heard(receiver, stopped, "stopped")
    heard(receiver, late, "timed_out")
    last = of(receiver, failed, "run.state")[-1].payload["data"]
    assert "exit code 7" in last["reason"]
    assert last["next_step"]
    assert of(receiver, stopped, "run.state")[-1].payload["data"]["reason"].endswith("Enough.")


def test_a_server_that_is_killed_loses_nothing_and_sends_under_the_same_id(
    place: Installation, receiver: Receiver
):
    receiver.always = "hang"
    key = launch(place, "write a.txt a\nsleep 4")
    until(lambda: receiver.got, 30, "the first attempt")
    place.wait_for_event(key, "turn.started", seconds=SECONDS)
    under_way = receiver.got[0].id
    place.kill9()
    before = list(receiver.got)
    receiver.always = "200"
    receiver.release.set()
    place.start()
    heard(receiver, key, "succeeded")
    until(lambda: of(receiver, key, "review.opened"), 30, "the review")
    place.wait(
        lambda: all(row["state"] == "delivered" for row in deliveries(place, receiver)),
        30,
        "every delivery to be settled",
    )
    # What was under way when the server died came again, under its own id; the rest came once.
    after = [one.id for one in receiver.got[len(before) :]]
    assert under_way in after
    assert len(after) == len(set(after))
    assert sorted(row["key"] for row in deliveries(place, receiver)) == sorted(set(receiver.ids))
    assert states(receiver, key)[-1] == "succeeded"
    events = [event for event in place.events(key) if event["kind"] == "run.state"]
    assert sorted(states(receiver, key)) == sorted(event["payload"]["to"] for event in events)


def test_the_command_makes_tests_lists_and_removes_a_webhook(place: Installation):
    import json

    with receiving() as receiver:
        made = json.loads(
            place.devaipod(
                "webhook", "create", "Cli", receiver.url, "--event", "run.state", "--json"
            )
        )
        receiver.secrets.append(made["secret"])
        assert made["events"] == ["run.state"]
        assert "answered 200" in place.devaipod("webhook", "test", made["key"])
        assert receiver.kinds() == ["webhook.test"]
        receiver.always = "500"
        sent = json.loads(place.devaipod("webhook", "test", made["key"], "--json", check=False))
        assert [one["status"] for one in sent["attempts"]] == [500]
        table = place.devaipod("webhook", "deliveries", made["key"])
        assert "delivered" in table and "answered 500" in table
        rows = json.loads(place.devaipod("webhook", "deliveries", made["key"], "--json"))
        assert [row["kind"] for row in rows] == ["webhook.test"] * 2
        listed = place.devaipod("webhook", "ls")
        assert made["key"] in listed and "failing" in listed
        assert made["secret"] not in listed + table
        assert "is removed" in place.devaipod("webhook", "rm", made["key"])
        assert json.loads(place.devaipod("webhook", "ls", "--json")) == []


def deliveries(place: Installation, receiver: Receiver) -> list[dict[str, Any]]:
    key = receiver.key  # type: ignore[attr-defined]
    rows: list[dict[str, Any]] = place.api("GET", f"/webhooks/{key}/deliveries?page_size=100")[
        "results"
    ]
    return rows
