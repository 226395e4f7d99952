"""Runs that stand still and go on, the whole way: a real server, real podman, the real OpenCode with the scripted demo."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agents.image import scripted_image
from tests.e2e.installation import ApiError, Installation, installed, make_upstream
from tests.webhooks.receiver import receiving, until

pytestmark = [pytest.mark.podman, pytest.mark.slow]


@pytest.fixture(scope="module")
def place() -> Iterator[Installation]:
    folder = Path(tempfile.mkdtemp(prefix="devaipod-pause-"))
    with installed(
        folder / "home",
        DEVAIPOD_ALLOWED_PRIVATE_NETWORKS="127.0.0.0/8",
        DEVAIPOD_MAX_RUNS="2",
    ) as made:
        for name, image in (("Shop", ""), ("Scripted", scripted_image())):
            upstream = make_upstream(folder / "repositories" / name.lower())
            made.api(
                "POST",
                "/projects",
                {
                    "name": name,
                    "upstream_url": str(upstream),
                    "image": image,
                    "permission_policy": "allow",
                },
            )
        yield made
    shutil.rmtree(folder, ignore_errors=True)


def launch(place: Installation, task: str, project: str = "shop", **more: Any) -> str:
    run = place.api("POST", "/runs", {"project": project, "task": task, **more})
    key: str = run["key"]
    return key


def paused(place: Installation, key: str) -> dict[str, Any]:
    """The run, when it is paused and its turn has ended and is staged."""
    run = place.wait_for_state(key, "paused", seconds=90)
    place.wait_for_event(key, "work.staged", seconds=60)
    return run


def let_its_time_pass(place: Installation, key: str) -> None:
    """As if DEVAIPOD_PAUSED_KEEP_WARM_SECONDS had gone by."""
    place.python(
        "import django, os\n"
        "os.environ['DJANGO_SETTINGS_MODULE'] = 'devaipod_web.settings'\n"
        "django.setup()\n"
        "from django.utils import timezone\n"
        "from devaipod_web.runs.models import Run\n"
        f"Run.objects.filter(key={key!r}).update(keep_warm_until=timezone.now())"
    )


def incident_of(place: Installation, key: str) -> dict[str, Any]:
    (found,) = place.api("GET", f"/incidents?run={key}&state=open&level=hard")["results"]
    incident: dict[str, Any] = found
    return incident


def sessions(place: Installation, key: str) -> list[dict[str, Any]]:
    return [e["payload"] for e in place.events(key) if e["kind"] == "session.started"]


def check_whole(place: Installation, key: str) -> None:
    """It succeeded with a review, in one session, every event once and in order."""
    run = place.run(key)
    events = place.events(key)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert {each["session_id"] for each in sessions(place, key)} == {run["session_id"]}
    assert not any(each["context_lost"] for each in sessions(place, key)), place.story(key)
    assert not any(e["payload"].get("to") == "failed" for e in events if e["kind"] == "run.state")
    place.wait(lambda: place.run(key)["review"], 30, f"the review of:\n{place.story(key)}")


def test_a_hard_limit_pauses_and_a_manager_lets_it_go_on_in_the_same_session(place: Installation):
    with receiving() as receiver:
        hook = place.api(
            "POST",
            "/webhooks",
            {"name": "Ops", "url": receiver.url, "events": ["budget.exceeded", "run.state"]},
        )
        receiver.secrets.append(hook["secret"])
        key = launch(place, "Say how to install it.", budget_requests=2)
        run = paused(place, key)
        (told,) = until(
            lambda: [
                one
                for one in receiver.got
                if one.kind == "budget.exceeded" and one.payload["data"]["run"]["key"] == key
            ],
            30,
            "budget.exceeded",
        )
        assert receiver.refused == []
        place.api("DELETE", f"/webhooks/{hook['key']}")
    incident = incident_of(place, key)
    assert run["incident"] == incident["key"]
    assert told.payload["data"]["reason"] == run["reason"] == incident["message"]
    assert (run["pause_cause"], run["finding_code"]) == ("budget", "budget-used-up")
    assert "2 requests of 2 requests are spent" in run["reason"]
    assert [f["code"] for f in place.handle(key).diagnostics()["findings"]] == ["budget-used-up"]
    with pytest.raises(ApiError) as refusal:
        place.api("POST", f"/runs/{key}/resume", {})
    assert incident["key"] in refusal.value.problem["detail"]

    place.api("POST", f"/incidents/{incident['key']}/resolve", {"how": "extend", "amount": "30"})
    ended = place.wait_for_state(key, "succeeded", seconds=120)
    assert (ended["attempts"], ended["session_id"]) == (1, run["session_id"])
    assert len(sessions(place, key)) == 1
    said = [e["payload"]["text"] for e in place.events(key) if e["kind"] == "prompt"]
    assert said[1].endswith("once by 30 requests. Go on where you stopped.")
    check_whole(place, key)


def test_with_its_pod_gone_it_gets_a_new_one_and_goes_on_in_the_same_session(place: Installation):
    key = launch(place, "Say how to test it.", budget_requests=2)
    run = paused(place, key)
    (pod,) = run["pods"]
    let_its_time_pass(place, key)
    place.wait(lambda: place.api("GET", f"/pods/{pod}")["removed_at"], 90, "the pod to go")
    run = place.run(key)
    assert (run["state"], run["deadline_at"]) == ("paused", None)
    findings = place.handle(key).diagnostics()["findings"]
    assert [found["code"] for found in findings] == ["budget-used-up"]
    incident = incident_of(place, key)
    place.api("POST", f"/incidents/{incident['key']}/resolve", {"how": "raise", "amount": "40"})
    ended = place.wait_for_state(key, "succeeded", seconds=120)
    assert ended["attempts"] == 2
    assert [each["how"] for each in sessions(place, key)][1] in ("resumed", "loaded")
    check_whole(place, key)


def test_a_person_pauses_and_resumes_on_the_command_line_and_nothing_is_spent(place: Installation):
    key = launch(place, "Mend the greeting.\ndemo: sleep 30")
    place.wait_for_event(key, "tool_call.update", status="in_progress", seconds=60)
    said = place.devaipod("pause", key, "--reason", "Let me look.")
    assert "paused" in said
    run = paused(place, key)
    assert run["reason"].endswith("Let me look.")
    time.sleep(2.5)  # what was under way is written within a second or so
    spent = place.run(key)["tokens_in"]
    time.sleep(2.5)
    assert place.run(key)["tokens_in"] == spent
    with pytest.raises(ApiError) as refusal:
        place.api("POST", f"/runs/{key}/prompt", {"text": "Go on."})
    assert refusal.value.status == 409
    said = place.devaipod("resume", key, "--text", "Mend it without sleeping.", timeout=180)
    assert "succeeded" in said
    check_whole(place, key)


@pytest.mark.parametrize("moment", ["being paused", "paused", "resuming"])
def test_a_server_that_is_killed_finds_the_run_where_it_was(place: Installation, moment: str):
    key = launch(place, f"Explain the greeting, {moment}.\ndemo: sleep 20")
    place.wait_for_event(key, "tool_call.update", status="in_progress", seconds=60)
    session = place.run(key)["session_id"]
    place.api("POST", f"/runs/{key}/pause", {})
    if moment == "being paused":
        place.kill9()
        place.start()
    paused(place, key)
    if moment == "paused":
        place.kill9()
        place.start()
        assert place.run(key)["state"] == "paused"
    place.api("POST", f"/runs/{key}/resume", {"text": "Explain it shortly."})
    if moment == "resuming":
        place.kill9()
        place.start()
    ended = place.wait_for_state(key, "succeeded", seconds=120)
    assert (ended["session_id"], ended["attempts"]) == (session, 1)
    check_whole(place, key)


def test_an_agent_that_ignores_its_cancel_spends_nothing_and_loses_its_pod(place: Installation):
    # It never looks whether it was cancelled.
    key = launch(place, "write a.txt half\n" + "call\nsleep 0.5\n" * 200, project="scripted")
    place.wait_for_event(key, "tool_call", seconds=60)
    place.api("POST", f"/runs/{key}/pause", {})
    refused = place.wait_for_event(key, "model.refused", seconds=30, code="run-paused")
    assert "The run is paused" in refused["payload"]["message"]
    run = paused(place, key)
    time.sleep(3)  # until what was settled before is written
    spent = place.run(key)["tokens_in"]
    (pod,) = run["pods"]
    place.wait(lambda: place.api("GET", f"/pods/{pod}")["removed_at"], 90, "the pod to go")
    run = place.run(key)
    assert (run["state"], run["tokens_in"]) == ("paused", spent)
    place.api("POST", f"/runs/{key}/resume", {"text": "write b.txt the rest"})
    ended = place.wait_for_state(key, "succeeded", seconds=120)
    assert ended["attempts"] == 2
    place.wait(lambda: place.run(key)["changed_files"] == 2, 30, "both files to be staged")
    check_whole(place, key)


@pytest.mark.parametrize("manner", ["call", "need"])
def test_however_an_agent_takes_the_refusal_its_run_is_paused(place: Installation, manner: str):
    """It ends its turn in good order (`call`), or answers the prompt with an error (`need`)."""
    key = launch(place, f"write a.txt x\ncall\n{manner}", project="scripted", budget_requests=1)
    run = paused(place, key)
    assert run["pause_cause"] == "budget"
    incident = incident_of(place, key)
    place.api("POST", f"/incidents/{incident['key']}/resolve", {"how": "extend", "amount": "5"})
    ended = place.wait_for_state(key, "succeeded", seconds=120)
    # An agent whose error comes before its cancel takes no further prompt: its pod goes, and the run gets a new one.
    assert ended["attempts"] in ((1,) if manner == "call" else (1, 2))
    check_whole(place, key)
