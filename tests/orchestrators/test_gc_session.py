"""The session provider as Gas City calls it: a process with argv and standard input, on a served installation and real podman.

The checks are those of Gas City's own conformance suite for providers (lifecycle, discovery, metadata, observation, signals).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.installation import ROOT, Installation

pytestmark = [pytest.mark.podman, pytest.mark.slow]

#: What Gas City itself gives an operation, and a start.
OPERATION_SECONDS, START_SECONDS = 30, 120
ECHO = "echo up; while read -r line; do echo got $line; done"


class City:
    """Calls the script and reads exit codes as Gas City does: 2 is success."""

    def __init__(self, place: Installation) -> None:
        self.place = place
        self.environment = {
            **place.environment,
            "DEVAIPOD_GC_PROJECT": "shop",
            "DEVAIPOD_URL": place.url,
            "DEVAIPOD_TOKEN": place.token,
        }

    def raw(self, *words: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        seconds = START_SECONDS if words[0] == "start" else OPERATION_SECONDS
        return subprocess.run(
            [sys.executable, "-m", "devaipod_web.cli.gc_session", *words],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=seconds,
            **({"stdin": subprocess.DEVNULL} if text is None else {"input": text}),
        )

    def do(self, *words: str, text: str | None = None) -> str:
        done = self.raw(*words, text=text)
        assert done.returncode in (0, 2), f"{words} ended with {done.returncode}: {done.stderr}"
        return done.stdout.rstrip("\n") if done.returncode == 0 else ""

    def start(self, name: str, **config: Any) -> None:
        self.do("start", name, text=json.dumps({"command": ECHO, **config}))

    def runs(self, name: str) -> bool:
        return self.do("is-running", name) == "true"

    def said(self, name: str, text: str) -> None:
        self.place.wait(lambda: text in self.do("peek", name, "50"), 30, f"{name} to say {text!r}")


@pytest.fixture(scope="module")
def city(place: Installation) -> City:
    return City(place)


@pytest.fixture(scope="module")
def shared(city: City) -> Iterator[str]:
    """One session for the checks that only look at it."""
    city.start("town-shared")
    yield "town-shared"
    city.do("stop", "town-shared")


# --- lifecycle ----------------------------------------------------------------------------------------------------


def test_a_start_makes_a_session_that_runs_and_a_stop_ends_it(city: City) -> None:
    assert not city.runs("town-one")
    city.start("town-one")
    assert city.runs("town-one")
    duplicate = city.raw("start", "town-one", text="{}")
    assert duplicate.returncode == 1
    assert "already exists" in duplicate.stderr
    assert city.runs("town-one")
    city.do("stop", "town-one")
    assert not city.runs("town-one")
    assert "town-one" not in city.do("list-running", "town-one").split("\n")
    assert city.do("process-alive", "town-one", text="sh\n") == "false"
    city.do("stop", "town-one")
    city.do("stop", "town-never-there")


def test_a_name_is_free_again_after_its_stop(city: City) -> None:
    for _ in range(2):
        city.start("town-again")
        city.do("stop", "town-again")


def test_sessions_start_at_once_and_a_name_only_once(city: City) -> None:
    names = ["town-a", "town-b", "town-same", "town-same"]

    def start(name: str) -> int:
        config = json.dumps({"command": ECHO})
        return city.raw("start", name, text=config).returncode

    with ThreadPoolExecutor(4) as pool:
        codes = list(pool.map(start, names))
    assert codes[:2] == [0, 0]
    assert sorted(codes[2:]) == [0, 1]
    for name in {*names}:
        assert city.runs(name)
        city.do("stop", name)


def test_a_command_that_dies_at_once_is_no_session_and_says_why(city: City) -> None:
    done = city.raw("start", "town-dead", text=json.dumps({"command": "echo oh; exit 3"}))
    if done.returncode == 0:  # it was running for a moment
        city.place.wait(lambda: not city.runs("town-dead"), 20, "the session to be dead")
    else:
        assert "exit code 3" in done.stderr
    assert city.do("peek", "town-dead", "5") == "oh"
    assert not city.runs("town-dead")


def test_a_start_that_is_given_up_is_taken_back(city: City) -> None:
    script = subprocess.Popen(
        [sys.executable, "-m", "devaipod_web.cli.gc_session", "start", "town-cancelled"],
        env=city.environment,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert script.stdin is not None
    script.stdin.write(json.dumps({"command": ECHO}))
    script.stdin.close()
    found = city.place.wait(
        lambda: city.place.api("GET", "/runs?label=gc.session=town-cancelled")["results"],
        20,
        "the run to be there",
    )
    script.terminate()
    code = script.wait(10)
    if code == 0:
        pytest.fail("the start was over before it could be given up")
    assert code == 143
    assert city.place.run(found[0]["key"])["state"] == "stopped"
    assert not city.runs("town-cancelled")


def test_the_configuration_reaches_the_session(city: City) -> None:
    city.start(
        "town-config",
        command="echo $GC_AGENT ${PATH_OF_CITY:-none} [$HOME] [${GH_TOKEN:-}] $(cat made/it) $(cat set); read x",
        env={"GC_AGENT": "mayor", "HOME": "/home/host", "PATH": "/nowhere", "GH_TOKEN": "x"},
        work_dir="/home/host/town",
        pre_start=["mkdir -p made && echo one > made/it", "exit 9"],
        session_setup=["echo two > set"],
    )
    city.said("town-config", "mayor none [/home/agent] [] one two")
    city.said("town-config", "a pre_start ended with 9")
    city.do("stop", "town-config")


# --- discovery ----------------------------------------------------------------------------------------------------


def test_sessions_are_listed_by_prefix(city: City, shared: str) -> None:
    city.start("village-two")
    everything = city.do("list-running", "").split("\n")
    assert {shared, "village-two"} <= set(everything)
    assert city.do("list-running", "village-") == "village-two"
    assert city.do("list-running", "nobody") == ""
    city.do("stop", "village-two")
    assert city.do("list-running", "village-") == ""


# --- metadata -----------------------------------------------------------------------------------------------------


def test_metadata_makes_the_round_trip(city: City, shared: str) -> None:
    assert city.do("get-meta", shared, "key") == ""
    city.do("set-meta", shared, "key", text="v1")
    city.do("set-meta", shared, "key", text='v2 "quoted" ü')
    city.do("set-meta", shared, "other:key", text="kept")
    assert city.do("get-meta", shared, "key") == 'v2 "quoted" ü'
    city.do("remove-meta", shared, "key")
    assert city.do("get-meta", shared, "key") == ""
    assert city.do("get-meta", shared, "other:key") == "kept"
    city.do("remove-meta", shared, "never-set")


# --- observation and signals ----------------------------------------------------------------------------------------


def test_a_nudge_is_read_and_peeked_and_the_scrollback_cleared(city: City, shared: str) -> None:
    city.do("nudge", shared, text="hello there")
    city.said(shared, "got hello there")
    assert city.do("peek", shared, "1") == "got hello there"
    city.do("clear-scrollback", shared)
    assert city.do("peek", shared, "50") == ""
    city.do("nudge", shared, text="again")
    city.said(shared, "got again")
    assert "hello" not in city.do("peek", shared, "50")


def test_the_last_activity_is_a_moment_that_goes_on(city: City, shared: str) -> None:
    first = city.do("get-last-activity", shared)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", first)
    time.sleep(1.1)
    city.do("nudge", shared, text="tick")
    city.place.wait(lambda: city.do("get-last-activity", shared) > first, 15, "activity")
    assert city.do("get-last-activity", "town-never-there") == ""


def test_an_interrupt_is_sigint_and_best_effort(city: City) -> None:
    command = "trap 'echo caught; exit 130' INT; echo up; while :; do sleep 0.1; done"
    city.start("town-int", command=command)
    city.said("town-int", "up")
    city.do("interrupt", "town-int")
    city.said("town-int", "caught")
    city.place.wait(lambda: not city.runs("town-int"), 20, "the session to end")
    for words in (("interrupt", "town-int"), ("interrupt", "town-never-there")):
        assert city.raw(*words).returncode == 0
    for name in ("town-int", "town-never-there"):
        assert city.raw("nudge", name, text="hello").returncode == 0


def test_a_session_of_one_of_our_agents_takes_prompts_and_outlives_its_turns(city: City) -> None:
    city.start("town-agent", command="opencode 'Explain the retries.'")
    assert city.runs("town-agent")
    (run,) = city.place.api("GET", "/runs?label=gc.session=town-agent")["results"]
    assert run["agent"] == "opencode"
    city.place.wait_for_state(run["key"], "succeeded", seconds=120)
    assert city.runs("town-agent")
    assert "town-agent" in city.do("list-running", "")
    assert "Explain the retries." in city.do("peek", "town-agent", "100")
    city.do("nudge", "town-agent", text="And the time-outs?")
    city.place.wait_for_event(run["key"], "turn.ended", turn=2, seconds=120)
    city.do("stop", "town-agent")
    assert not city.runs("town-agent")


# --- the protocol ---------------------------------------------------------------------------------------------------


def test_what_is_not_done_is_said_to_be_unknown(city: City, shared: str) -> None:
    for words in (
        ("copy-to", shared, "/etc/hosts", "hosts"),
        ("send-keys", shared, "Enter"),
        ("check-image", "localhost/x:1"),
        ("is-attached", shared),
        ("exec", shared),
        ("provision", shared),
        ("sing", shared),
    ):
        assert city.raw(*words).returncode == 2, words
    assert json.loads(city.do("protocol")) == {"version": 0, "capabilities": ["report-activity"]}


def test_what_goes_wrong_is_never_taken_for_an_unknown_operation(city: City, shared: str) -> None:
    for words, text in (
        (("is-running",), None),
        (("set-meta", shared), "x"),
        (("set-meta", "town-never-there", "key"), "x"),
        (("set-meta", shared, 'a"b'), "x"),
        (("start", "town-junk"), "[1"),
        (("start", "town-junk"), "[1]"),
        (("start", "two\nlines"), "{}"),
        (("attach", "town-never-there"), None),
    ):
        done = city.raw(*words, text=text)
        assert done.returncode == 1, words
        assert done.stderr.strip(), words
        assert "Traceback" not in done.stderr


def test_without_a_project_or_a_server_there_is_a_sentence(city: City) -> None:
    kept = dict(city.environment)
    try:
        del city.environment["DEVAIPOD_GC_PROJECT"]
        assert "DEVAIPOD_GC_PROJECT" in city.raw("is-running", "x").stderr
        city.environment.update(DEVAIPOD_GC_PROJECT="shop", DEVAIPOD_URL="http://127.0.0.1:9")
        done = city.raw("is-running", "x")
        assert done.returncode == 1
        assert "does not answer" in done.stderr
    finally:
        city.environment.clear()
        city.environment.update(kept)


def test_the_verb_of_the_command_is_the_same(city: City, shared: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "devaipod_web.cli.main", "gc-session", "is-running", shared],
        env=city.environment, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "true\n")
