"""Logs after their pods: page, API and CLI show the same lines of every attempt and container, whatever was killed in between."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Iterator

import pytest

from devaipod_web.templatetags.show import log_text
from tests.bench.browser import cookie
from tests.e2e.attached import launched, shop
from tests.e2e.installation import ApiError, Installation

pytestmark = [pytest.mark.podman, pytest.mark.slow]


@pytest.fixture(scope="module")
def place() -> Iterator[Installation]:
    with shop(DEVAIPOD_KEEP_WARM_SECONDS="0") as made:
        yield made


def segments(place: Installation, key: str, pod: str, container: str = "agent") -> list[str]:
    folder = place.home / "logs" / key / pod / container
    return sorted(path.name for path in folder.iterdir())


def wait_for_the_end(place: Installation, key: str, seconds: float = 120) -> None:
    """The run has ended, and podman has nothing of its pods any more."""
    place.wait_for_state(key, "succeeded", "failed", seconds=seconds)

    def is_gone() -> bool:
        return not place.podman(
            "ps", "-a", "--filter", f"label=io.devaipod.run={key}", "--format", "{{.Names}}"
        )

    place.wait(is_gone, 60, "the end of the pods")


def page_lines(place: Installation, key: str, pod: str, container: str) -> list[str]:
    """Every line of the log's page as it stands there, from its end back to its beginning."""
    session = cookie(place)
    base = f"{place.url}/runs/{key}/logs/?pod={pod}&container={container}"

    def get(address: str) -> str:
        request = urllib.request.Request(address, headers={"Cookie": session})
        with urllib.request.urlopen(request, timeout=30) as answer:
            text: str = answer.read().decode()
            return text

    first = get(base)
    assert ">ended<" in first
    found = re.findall(r'data-n="(\d+)"><time[^>]*>[^<]*</time><bdi>(.*?)</bdi>', first)
    lines = {int(number): text for number, text in found}
    while lines and min(lines) > 1:
        older = json.loads(get(f"{base}&before={min(lines)}"))
        assert older
        lines |= {line["n"]: str(log_text(line["text"])) for line in older}
    assert sorted(lines) == list(range(1, len(lines) + 1))
    return [lines[number] for number in sorted(lines)]


def whole(place: Installation, pod: str) -> list[str]:
    """The agent's lines, those that conmon cut at its buffer put together again."""
    records = place.api("GET", f"/pods/{pod}/logs")
    text = "".join(one["text"] + ("" if one["partial"] else "\n") for one in records)
    return text.splitlines()


def check_the_same_everywhere(place: Installation, key: str, attempts: int) -> dict[str, list[str]]:
    """Page, API and CLI agree on each log of the run; returns the agent's lines by pod."""
    pods = place.run(key)["pods"]
    assert len(pods) == attempts
    agents = {}
    for number, pod in enumerate(pods, 1):
        for container in ("agent", "sidecar"):
            names = segments(place, key, pod, container)
            assert all(name.endswith(".log.zst") for name in names), names
            lines = [
                line["text"] for line in place.api("GET", f"/pods/{pod}/logs?container={container}")
            ]
            assert page_lines(place, key, pod, container) == [str(log_text(one)) for one in lines]
            for words in (("--attempt", str(number)), ("--pod", pod)):
                run = () if words[0] == "--pod" else (key,)
                told = place.devaipod("logs", *run, *words, "-c", container, "--json")
                assert [json.loads(one)["text"] for one in told.splitlines()] == lines
            if container == "agent":
                assert names
                agents[pod] = whole(place, pod)
    return agents


def test_page_api_and_cli_show_the_same_of_every_attempt_and_container(place: Installation):
    key, _ = launched(place, "log 700 5000")
    wait_for_the_end(place, key)
    place.api("POST", f"/runs/{key}/prompt", {"text": "log 30 5000"})
    wait_for_the_end(place, key)
    first, second = check_the_same_everywhere(place, key, attempts=2).values()
    assert [line.split()[1] for line in first if line.startswith("line ")] == [
        str(n) for n in range(700)
    ]
    assert [line.split()[1] for line in second if line.startswith("line ")] == [
        str(n) for n in range(30)
    ]


@pytest.mark.parametrize("pause", [0.0, 0.4, 1.2, 2.5])
def test_a_server_killed_between_a_pods_end_and_its_archive_finishes_it_at_the_next_start(
    place: Installation, pause: float
):
    key, pod = launched(place, "log 20 100\nflood 4")
    place.wait_for_event(key, "turn.ended", seconds=90)
    time.sleep(pause)
    place.kill9()
    place.start()
    wait_for_the_end(place, key)
    place.wait(
        lambda: all(name.endswith(".zst") for name in segments(place, key, pod)), 30, "the archive"
    )
    (lines,) = check_the_same_everywhere(place, key, attempts=1).values()
    flood = [line for line in lines if "INFO worker" in line]
    last = next(line for line in lines if line.startswith("flood "))
    assert len(flood) == int(last.split()[1])
    assert [int(line.split()[0]) for line in flood] == list(range(len(flood)))


def test_a_container_that_was_taken_away_leaves_its_log_archived(place: Installation):
    key, pod = launched(place, "log 50 1000\nsleep 600")
    place.wait(
        lambda: any(
            line["text"].startswith("line 49 ") for line in place.api("GET", f"/pods/{pod}/logs")
        ),
        20,
        "the lines",
    )
    place.kill9()
    place.podman("pod", "rm", "-f", "-t", "0", pod)
    # As if its end had been written down, and the process killed before it compressed anything.
    place.python(
        "import os, django; os.environ['DJANGO_SETTINGS_MODULE'] = 'devaipod_web.settings'; django.setup()\n"
        "from django.utils import timezone\n"
        "from devaipod_web.runs.models import Run, RunPod\n"
        f"RunPod.objects.filter(name={pod!r}).update(ended_at=timezone.now(), removed_at=timezone.now())\n"
        f"Run.objects.filter(key={key!r}).update(state='failed', ended_at=timezone.now())\n"
    )
    assert any(name.endswith(".log") for name in segments(place, key, pod))
    place.start()
    place.wait(
        lambda: all(name.endswith(".zst") for name in segments(place, key, pod)), 30, "the archive"
    )
    (lines,) = check_the_same_everywhere(place, key, attempts=1).values()
    assert [line.split()[1] for line in lines if line.startswith("line ")] == [
        str(n) for n in range(50)
    ]


def test_a_log_as_a_file_is_plain_text_to_be_saved(place: Installation):
    key, pod = launched(place, "noise 0.2\nlongline 1")
    wait_for_the_end(place, key)
    request = urllib.request.Request(
        f"{place.url}/api/devaipod/pods/{pod}/logs?format=text",
        headers={"Authorization": f"Bearer {place.token}"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        text = answer.read().decode()
        headers = answer.headers
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert headers["Content-Disposition"] == f'attachment; filename="{pod}-agent.log"'
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "0123456789abcdef" * 62_500 in text.split("\n")
    assert "</script>" in text
    assert "noise ends" in text.split("\n")


def test_removed_logs_are_gone_and_say_why(place: Installation):
    key, pod = launched(place, "log 3 1000")
    wait_for_the_end(place, key)
    place.python(
        "import os, django; os.environ['DJANGO_SETTINGS_MODULE'] = 'devaipod_web.settings'; django.setup()\n"
        "from django.utils import timezone\n"
        "from devaipod_web.runs.models import Run\n"
        f"Run.objects.filter(key={key!r}).update(logs_pruned_at=timezone.now())\n"
    )
    with pytest.raises(ApiError) as gone:
        place.api("GET", f"/pods/{pod}/logs")
    assert gone.value.status == 410
    assert gone.value.problem["type"].endswith("logs-removed")
    assert place.devaipod("logs", key, check=False) == ""
