"""Streams over a real socket: in order, once each, ended when the caller's right ends, and never in another's way."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.utils import timezone

from devaipod_web.accounts import services, tokens
from devaipod_web.accounts.permissions import Role
from devaipod_web.cli.client import Client, Refused
from devaipod_web.projects.models import Project
from devaipod_web.runs import events, wake
from devaipod_web.runs.log_writer import Writer
from devaipod_web.runs.models import Run, RunPod
from pods.spec import LogLine
from tests.live import serving

pytestmark = [pytest.mark.django_db(transaction=True)]


@pytest.fixture
def server(db):
    with serving() as url:
        yield url


@pytest.fixture
def alice(server, operator):
    row, text = tokens.create(operator, "tests")
    client = Client(server, text)
    client.row = row  # type: ignore[attr-defined]
    return client


class Reader(threading.Thread):
    """Reads a stream in a thread until it ends."""

    def __init__(self, client: Client, path: str, **query: Any) -> None:
        super().__init__(daemon=True)
        self.client, self.path, self.query = client, path, query
        self.rows: list[dict] = []
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            for row in self.client.stream(self.path, **self.query):
                self.rows.append(row)
        except Exception as error:
            self.error = error

    def wait_for(self, count: int, seconds: float = 5) -> None:
        deadline = time.monotonic() + seconds
        while len(self.rows) < count and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(self.rows) >= count, (self.rows, self.error)

    def ended(self, seconds: float = 6) -> bool:
        self.join(seconds)
        return not self.is_alive()


def message(run: Run, text: str) -> None:
    events.record(run, "message", {"message_id": "m", "text": text})


def test_a_follower_gets_what_is_there_and_what_comes_and_ends_with_the_run(alice, run):
    for number in range(3):
        message(run, f"before {number}")
    reader = Reader(alice, f"/runs/{run.key}/events", follow=True)
    reader.wait_for(3)
    for number in range(40):
        message(run, f"after {number}")
    reader.wait_for(43)
    Run.objects.filter(pk=run.pk).update(state="succeeded")
    message(run, "the last word")
    assert reader.ended()
    assert [row["seq"] for row in reader.rows] == list(range(1, 45))
    assert reader.rows[-1]["payload"]["text"] == "the last word"


def test_an_event_reaches_a_follower_within_a_quarter_of_a_second(alice, run):
    reader = Reader(alice, f"/runs/{run.key}/events", follow=True)
    time.sleep(0.3)
    began = time.monotonic()
    message(run, "now")
    reader.wait_for(1)
    assert time.monotonic() - began < 0.25
    Run.objects.update(state="stopped")
    events.record(run, "run.note", {"text": "end"})
    assert reader.ended()


def test_a_follower_is_cut_off_when_its_token_is_revoked(alice, run, operator):
    reader = Reader(alice, f"/runs/{run.key}/events", follow=True)
    message(run, "seen")
    reader.wait_for(1)
    tokens.revoke(alice.row, operator)
    assert reader.ended()
    message(run, "not seen")
    assert len(reader.rows) == 1
    with pytest.raises(Refused, match="revoked"):
        alice.get("/status")


def test_a_follower_is_cut_off_when_its_person_is_deactivated(alice, run, operator, manager):
    reader = Reader(alice, f"/runs/{run.key}/events", follow=True)
    message(run, "seen")
    reader.wait_for(1)
    services.deactivate(manager, operator)
    assert reader.ended()


def test_followers_do_not_stand_in_the_way_of_others(alice, run):
    readers = [Reader(alice, f"/runs/{run.key}/events", follow=True) for _ in range(20)]
    message(run, "for all")
    for reader in readers:
        reader.wait_for(1)
    began = time.monotonic()
    assert alice.get("/status")["user"] == "alice"
    assert time.monotonic() - began < 1
    Run.objects.update(state="stopped")
    events.record(run, "run.note", {"text": "end"})
    assert all(reader.ended() for reader in readers)


@pytest.fixture
def pod(run):
    return RunPod.objects.create(
        run=run,
        attempt=1,
        name=f"devaipod-payments-{run.key}-1",
        backend="podman",
        image="localhost/devaipod-agent:dev",
        control_digest="a" * 64,
        data_digest="b" * 64,
    )


def lines(*texts: str) -> list[LogLine]:
    return [
        LogLine("stdout", timezone.now(), text.encode(), cursor=str(i))
        for i, text in enumerate(texts)
    ]


def test_a_log_is_read_by_its_tail_and_followed_to_the_pods_end(alice, run, pod):
    writer = Writer(run.key, pod.name, "agent")
    writer.append(lines(*(f"line {n}" for n in range(10))))
    tail = list(alice.stream(f"/pods/{pod.name}/logs", tail=3))
    assert [row["text"] for row in tail] == ["line 7", "line 8", "line 9"]
    assert [row["n"] for row in alice.stream(f"/pods/{pod.name}/logs", after=8)] == [9, 10]
    reader = Reader(alice, f"/pods/{pod.name}/logs", follow=True, after=9)
    reader.wait_for(1)
    writer.append(lines("fresh \x1b[31mred"))
    reader.wait_for(2)
    assert reader.rows[-1]["text"] == "fresh \x1b[31mred"
    now = timezone.now()
    RunPod.objects.update(ended_at=now, removed_at=now)
    writer.close()
    assert reader.ended()


def test_a_pod_is_looked_up_among_rows_and_a_container_among_its_own(alice, run, pod):
    for path in (
        "/pods/other/logs",
        "/pods/..%2F..%2Fetc/logs",
        f"/pods/{pod.name}/logs?container=../x",
    ):
        with pytest.raises(Refused) as caught:
            list(alice.stream(path))
        assert caught.value.http_status == 404
    found = alice.get(f"/pods/{pod.name}")
    assert (found["run"], found["attempt"]) == (run.key, 1)
    assert [row["name"] for row in alice.pages("/pods", run=run.key)] == [pod.name]


def open_socket(client: Client, path: str) -> socket.socket:
    """The stream's answer as bytes, on a socket of one's own."""
    parts = urlsplit(client.url)
    found = socket.create_connection((parts.hostname, parts.port), timeout=10)
    found.sendall(
        f"GET /api/devaipod{path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Authorization: Bearer {client.bearer}\r\n\r\n".encode()
    )
    return found


def test_a_quiet_stream_sends_blank_lines_that_readers_skip(alice, run, monkeypatch):
    from devaipod_web.api import streams

    monkeypatch.setattr(streams, "BLANK_EVERY_SECONDS", 0.2)
    message(run, "before")
    stream = open_socket(alice, f"/runs/{run.key}/events?follow=true")
    received = b""
    while received.count(b"\r\n1\r\n\n\r\n") < 2:  # a chunk of one byte: a line's end
        part = stream.recv(4096)
        assert part, received
        received += part
    stream.close()
    reader = Reader(alice, f"/runs/{run.key}/events", follow=True)
    reader.wait_for(1)
    time.sleep(2.5)
    message(run, "after")
    reader.wait_for(2)
    assert [row["seq"] for row in reader.rows] == [1, 2]


def test_a_reader_that_goes_away_leaves_nothing_that_follows(alice, run):
    message(run, "before")
    before = len(wake._listeners.get(run.key, ()))
    streams = [open_socket(alice, f"/runs/{run.key}/events?follow=true") for _ in range(5)]
    for stream in streams:
        assert stream.recv(4096)
    deadline = time.monotonic() + 10
    while len(wake._listeners.get(run.key, ())) < before + 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(wake._listeners[run.key]) == before + 5
    for stream in streams:
        stream.close()
    while len(wake._listeners.get(run.key, ())) > before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(wake._listeners.get(run.key, ())) == before


def test_lines_that_the_log_limit_discarded_leave_a_gap_in_the_stream(alice, run, pod):
    writer = Writer(run.key, pod.name, "agent")
    writer.append(lines("first"))
    writer.append([LogLine("stdout", timezone.now(), b"third", cursor="9", gap=True)])
    rows = list(alice.stream(f"/pods/{pod.name}/logs"))
    assert [(row["n"], row["text"], row["gap"]) for row in rows] == [
        (1, "first", False),
        (2, "third", True),
    ]


def test_a_token_of_another_project_opens_no_stream(server, alice, run, pod, operator):
    other = Project.objects.create(slug="other", name="O", upstream_url="https://f.example/o.git")
    _, text = tokens.create(operator, "bound", project=other)
    for path in (f"/runs/{run.key}/events", f"/pods/{pod.name}/logs"):
        with pytest.raises(Refused) as caught:
            list(Client(server, text).stream(path))
        assert caught.value.http_status == 404


def test_a_viewer_may_follow(server, person, run):
    _, text = tokens.create(person("vera", Role.VIEWER), "tests")
    message(run, "hello")
    rows = list(Client(server, text).stream(f"/runs/{run.key}/events"))
    assert [row["payload"]["text"] for row in rows] == ["hello"]
