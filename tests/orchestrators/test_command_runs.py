"""Runs of the profile `command` on real podman: what they find, how they end, and what becomes of them when something else dies."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.e2e.installation import ApiError, Installation

pytestmark = [pytest.mark.podman, pytest.mark.slow]

#: Says the status and the answer of what each of our variables names, from inside the pod.
LOOK = """
import json, os, urllib.error, urllib.request
def ask(url, body=None):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=20) as answer:
            return answer.status, answer.read(4000).decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read(4000).decode()
e = os.environ
chat = json.dumps({"model": e["OPENAI_MODEL"], "messages": [{"role": "user", "content": "hello"}]}).encode()
print(json.dumps({
    "models": ask(e["OPENAI_BASE_URL"] + "/models"),
    "chat": ask(e["OPENAI_BASE_URL"] + "/chat/completions", chat),
    "proxy": ask(e["LLMPROXY_URL"] + "/v1/models"),
    "anthropic": ask(e["ANTHROPIC_BASE_URL"] + "/v1/messages", b"{}"),
    "gator": ask(e["SERVICE_GATOR_URL"]),
    "gator_post": ask(e["SERVICE_GATOR_URL"], b"{}"),
    "forge": ask(e["FORGEJO_URL"] + "/repo.git/info/refs?service=git-upload-pack"),
    "forge_else": ask(e["FORGEJO_URL"] + "/other.git/info/refs"),
    "env": dict(e), "cwd": os.getcwd(), "uid": os.getuid(), "status": open("/proc/1/status").read(),
}))
"""


def create(place: Installation, *argv: str, **more: Any) -> str:
    made = place.api("POST", "/pods", {"project": "shop", "argv": list(argv), **more})
    return str(made["key"])


def output(place: Installation, key: str) -> list[str]:
    (*_, pod) = place.run(key)["pods"]
    return [line["text"] for line in place.api("GET", f"/pods/{pod}/logs")]


def wait_output(place: Installation, key: str, text: str) -> None:
    def said() -> bool:
        return bool(place.run(key)["pods"]) and text in output(place, key)

    place.wait(said, 60, f"{key} to say {text}")


def ended(place: Installation, key: str, seconds: float = 90) -> dict[str, Any]:
    states = ("succeeded", "failed", "stopped", "timed_out")
    return place.wait_for_state(key, *states, seconds=seconds)


def test_what_its_variables_name_is_answered_and_none_of_them_is_a_secret(
    place: Installation,
) -> None:
    env = {"MINE": "1", "HOME": "/x", "OPENAI_BASE_URL": "http://evil"}
    key = create(place, "python3", "-c", LOOK, env=env)
    assert ended(place, key)["state"] == "succeeded"
    found = json.loads("".join(output(place, key)))
    assert (found["models"][0], found["proxy"][0], found["chat"][0]) == (200, 200, 200)
    assert "choices" in json.loads(found["chat"][1])
    assert (found["forge"][0], found["forge_else"][0]) == (200, 404)
    assert found["anthropic"][0] == 200
    assert json.loads(found["anthropic"][1])["type"] == "message"
    for name in ("gator", "gator_post", "forge_else"):
        status, text = found[name]
        assert status == 404, name
        assert json.loads(text)["error"]["message"], name
    assert "No MCP server" in found["gator"][1]
    assert (found["cwd"], found["uid"]) == ("/workspaces/shop", 1000)
    seen = found["env"]
    assert (seen["MINE"], seen["HOME"]) == ("1", "/home/agent")
    for name, value in seen.items():
        if name.endswith("_URL"):
            assert value.startswith("http://127.0.0.1:8400/"), name
        assert "dvp_" not in value
    assert "CapEff:\t0000000000000000" in found["status"]


@pytest.mark.parametrize(
    ("argv", "more", "code", "said"),
    [
        (["sh", "-c", "echo why >&2; exit 2"], {}, 2, "The command ended with exit code 2. Its last words: why"),
        (["sh", "-c", "exit 42"], {}, 42, "The command ended with exit code 42."),
        (["sh", "-c", "kill -INT $$"], {}, 130, "exit code 130 by SIGINT"),
        (["no-such"], {}, None, "program `no-such` is not in image"),
        (["ls"], {"workdir": "no/such"}, None, "folder to begin in is not in the workspace"),
        (["ls"], {"image": "localhost/devaipod-no-such:1"}, None, "localhost/devaipod-no-such:1"),
    ],
)  # fmt: skip
def test_a_command_that_fails_says_how(
    place: Installation, argv: list[str], more: dict[str, Any], code: int | None, said: str
) -> None:
    run = ended(place, create(place, *argv, **more))
    assert (run["state"], run["exit_code"]) == ("failed", code)
    assert said in run["reason"]
    assert run["next_step"]


def test_a_command_begins_in_its_folder_and_what_it_leaves_is_reviewed(place: Installation) -> None:
    key = create(place, "sh", "-c", "mkdir -p a/b")
    assert ended(place, key)["review"] is None
    key = create(place, "sh", "-c", "pwd; echo 1 > one.txt", workdir="/tmp")
    assert ended(place, key)["review"] is None
    assert output(place, key) == ["/tmp"]
    key = create(place, "sh", "-c", "git checkout -q -b mine && echo 1 > one.txt")
    run = ended(place, key)
    place.wait(lambda: place.run(key)["review"], 20, "the review to be opened")
    assert place.run(key)["changed_files"] == 1
    assert run["reason"] == "The command ended with exit code 0 and its work is staged."


def test_a_server_killed_while_a_command_runs_finds_how_it_ended(place: Installation) -> None:
    key = create(place, "sh", "-c", "echo up; sleep 3; echo late > late.txt; echo over; exit 7")
    wait_output(place, key, "up")
    place.kill9()
    time.sleep(5)  # it ends meanwhile
    place.start()
    run = ended(place, key)
    assert (run["state"], run["exit_code"], run["attempts"]) == ("failed", 7, 1)
    assert "Its last words: up / over" in run["reason"]
    place.wait(lambda: place.run(key)["changed_files"] == 1, 20, "its work to be in review")
    events = place.events(key)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["kind"] for event in events].count("turn.ended") == 1
    assert output(place, key) == ["up", "over"]


def test_a_server_killed_before_the_command_began_runs_it_once(place: Installation) -> None:
    key = create(place, "sh", "-c", "echo once")
    place.wait_for_event(key, "run.step", seconds=30)
    place.kill9()
    place.start()
    run = ended(place, key)
    assert (run["state"], run["attempts"]) == ("succeeded", 1)
    assert output(place, key) == ["once"]


def test_a_lost_sidecar_begins_the_command_again_in_the_same_workspace(place: Installation) -> None:
    script = "echo go >> tries; echo up; [ $(wc -l < tries) = 2 ] || sleep 60"
    key = create(place, "sh", "-c", script)
    wait_output(place, key, "up")
    (pod,) = place.run(key)["pods"]
    place.podman("kill", f"{pod}-sidecar")
    run = ended(place, key)
    assert (run["state"], run["attempts"], run["exit_code"]) == ("succeeded", 2, 0)


def test_a_command_is_interrupted_and_its_own_exit_code_counts(place: Installation) -> None:
    key = create(place, "sh", "-c", "trap 'exit 130' INT; echo up; while :; do sleep 0.1; done")
    wait_output(place, key, "up")
    place.api("POST", f"/runs/{key}/cancel-turn")
    run = ended(place, key, seconds=30)
    assert (run["state"], run["exit_code"]) == ("failed", 130)


def test_a_command_beyond_its_wall_time_is_ended_and_staged(place: Installation) -> None:
    script = "echo half > half.txt; echo up; sleep 300"
    key = create(place, "sh", "-c", script, wall_seconds=30)
    run = ended(place, key, seconds=90)
    assert run["state"] == "timed_out"
    place.wait(lambda: place.run(key)["changed_files"] == 1, 40, "its work to be staged")


def test_a_command_takes_input_and_no_prompt(place: Installation) -> None:
    key = create(place, "sh", "-c", "echo up; read line; echo got $line", interactive=True)
    wait_output(place, key, "up")
    (pod,) = place.run(key)["pods"]
    tokens = [path.read_text() for path in (place.home / "pods" / pod / "token").iterdir()]
    shown = place.podman("inspect", f"{pod}-agent")
    assert len(tokens) == 2
    assert not any(token in shown for token in tokens)
    with pytest.raises(ApiError) as refused:
        place.api("POST", f"/runs/{key}/prompt", {"text": "hello"})
    assert refused.value.status == 409
    assert "takes no prompt" in refused.value.problem["detail"]
    place.api("POST", f"/runs/{key}/input", {"text": "hello\n"})
    assert ended(place, key)["state"] == "succeeded"
    assert output(place, key) == ["up", "got hello"]


def test_the_command_line_creates_follows_lists_and_removes(place: Installation) -> None:
    script = "echo hello; echo 1 > one.txt"
    said = place.devaipod("pod", "create", "shop", "-f", "-l", "who=cli", "--", "sh", "-c", script)
    assert said.splitlines() == ["hello"]
    (run,) = place.api("GET", "/runs?label=who=cli")["results"]
    assert run["state"] == "succeeded"
    pod = place.run(run["key"])["pods"][0]
    assert pod in place.devaipod("pod", "ls", "--all", "--json")
    assert place.devaipod("pod", "rm", run["key"]).strip() == pod
    assert pod not in place.devaipod("pod", "ls")
    review = place.wait(lambda: place.run(run["key"])["review"], 20, "the review to be opened")
    diff = place.devaipod("diff", review)
    assert diff.startswith("diff --git a/one.txt b/one.txt")
    key = place.devaipod("pod", "create", "shop", "--", "sleep", "60").strip()
    place.wait_for_state(key, "running")
    place.devaipod("pod", "stop", key, "--reason", "Enough.")
    assert "Enough." in place.run(key)["reason"]
