"""The sidecar's conversation with the gateway over the real socket, and what the database holds after it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time

import aiohttp
import pytest
from django.utils import timezone
from yarl import URL

from devaipod_web import db
from devaipod_web.gateway import sidecar
from devaipod_web.runs.models import Run, RunCommand, RunEvent, RunPod
from devaipod_web.runs.services.commands import enqueue
from devaipod_web.runs.services.launch import launch
from pods.sidecar.protocol import (
    CLOSE_REPLACED,
    CLOSE_TOKEN_REFUSED,
    CLOSE_VERSION,
    PROTOCOL_VERSION,
    CommandKind,
)
from tests.gateway.served import make_pod

pytestmark = pytest.mark.django_db(transaction=True)

HELLO = {
    "type": "hello",
    "protocol": PROTOCOL_VERSION,
    "pod": "",
    "last_source_seq": 0,
    "last_command": 0,
}


@contextlib.asynccontextmanager
async def dial(gateway, headers):
    async with gateway.http.ws_connect("/sidecar", headers=headers, max_msg_size=0) as socket:
        yield socket


async def greet(socket):
    await socket.send_json(HELLO)
    return await said(socket, "welcome")


async def said(socket, kind):
    """The next message of this kind; others are passed over."""
    while True:
        message = await asyncio.wait_for(socket.receive(), 10)
        assert message.type is aiohttp.WSMsgType.TEXT, (message, socket.close_code)
        value = json.loads(message.data)
        if value["type"] == kind:
            return value


async def closed(socket):
    while not socket.closed:
        await asyncio.wait_for(socket.receive(), 10)
    assert socket.close_code is not None
    return socket.close_code


def event(number: int, text: str = "hello", kind: str = "message") -> dict:
    return {
        "source_seq": number,
        "kind": kind,
        "v": 1,
        "at": timezone.now().isoformat(),
        "payload": {"message_id": "m", "text": text},
    }


async def test_the_welcome_tells_the_run_and_what_is_committed(gateway, pod):
    async with dial(gateway, pod.control_bearer) as socket:
        welcome = await greet(socket)
    assert welcome["protocol"] == PROTOCOL_VERSION
    assert welcome["acked"] == 0
    assert welcome["config"]["pod"] == pod.row.name
    assert welcome["config"]["remote"] == "/git/repo.git"
    row = await db.read(RunPod.objects.get, pk=pod.row.pk)
    assert row.connected_at is not None


@pytest.mark.parametrize("which", ["data", "none", "unknown"])
async def test_only_the_control_token_opens_the_socket(gateway, pod, which):
    headers = {"data": pod.bearer, "none": {}, "unknown": {"Authorization": "Bearer x"}}[which]
    async with dial(gateway, headers) as socket:
        assert await closed(socket) == CLOSE_TOKEN_REFUSED


async def test_another_path_is_no_socket(gateway, pod):
    connector = aiohttp.UnixConnector(path=str(gateway.path))
    async with aiohttp.ClientSession(connector=connector) as session:
        for path in ("/sidecar/", "//sidecar", "/egress", "/llm/v1/models", "/%73idecar"):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(
                    URL(f"ws://gateway{path}", encoded=True), headers=pod.control_bearer
                )
            assert refused.value.status == 403


async def test_a_version_that_is_not_spoken_is_told_so(gateway, pod):
    async with dial(gateway, pod.control_bearer) as socket:
        await socket.send_json({**HELLO, "protocol": 99})
        assert await closed(socket) == CLOSE_VERSION


async def test_events_are_acknowledged_once_committed_and_stored_once(gateway, pod):
    async with dial(gateway, pod.control_bearer) as socket:
        await greet(socket)
        await socket.send_json({"type": "events", "events": [event(1), event(2)]})
        assert (await said(socket, "ack"))["source_seq"] == 2
        assert await db.read(RunEvent.objects.filter(pod=pod.row).count) == 2
    async with dial(gateway, pod.control_bearer) as socket:
        assert (await greet(socket))["acked"] == 2
        await socket.send_json({"type": "events", "events": [event(1), event(2), event(3)]})
        assert (await said(socket, "ack"))["source_seq"] == 3
    stored = await db.read(
        lambda: list(RunEvent.objects.filter(pod=pod.row).values_list("source_seq", flat=True))
    )
    assert stored == [1, 2, 3]


async def test_a_gap_in_the_numbers_closes_the_connection_and_stores_nothing(gateway, pod):
    async with dial(gateway, pod.control_bearer) as socket:
        await greet(socket)
        await socket.send_json({"type": "events", "events": [event(1), event(3)]})
        assert await closed(socket) == 1008
    assert await db.read(RunEvent.objects.filter(pod=pod.row).count) == 0


NO_MESSAGES = [
    "not json",
    "[]",
    '{"type": "events"}',
    '{"type": "events", "events": [1]}',
    '{"type": "events", "events": [{"source_seq": true, "kind": "x", "payload": {}, "at": ""}]}',
    "[" * 100_000,
]


async def test_what_is_no_message_closes_the_connection(gateway, pod):
    for text in NO_MESSAGES:
        async with dial(gateway, pod.control_bearer) as socket:
            await greet(socket)
            await socket.send_str(text)
            assert await closed(socket) == 1008


async def test_a_new_connection_closes_the_old_one(gateway, pod):
    async with dial(gateway, pod.control_bearer) as old:
        await greet(old)
        async with dial(gateway, pod.control_bearer) as new:
            await greet(new)
            assert await closed(old) == CLOSE_REPLACED
            await new.send_json({"type": "events", "events": [event(1)]})
            assert (await said(new, "ack"))["source_seq"] == 1
            assert sidecar.connected_pods() == {pod.row.pk}


async def test_commands_come_in_order_at_once_and_again_after_a_reconnect(
    gateway, project, operator
):
    run = await db.write(launch, project, operator, task="Mend it")
    pod = await db.write(make_pod, run)
    async with dial(gateway, pod.control_bearer) as socket:
        await greet(socket)
        first = await said(socket, "command")
        assert first["kind"] == "prompt"
        assert first["payload"]["text"] == "Mend it"
        began = time.monotonic()
        await db.write(enqueue, run.pk, CommandKind.CANCEL, {})
        second = await said(socket, "command")
        assert time.monotonic() - began < 1, "a wake brings it, not the beat"
        assert second["number"] == first["number"] + 1
    async with dial(gateway, pod.control_bearer) as socket:
        await greet(socket)
        again = [await said(socket, "command"), await said(socket, "command")]
        assert [c["id"] for c in again] == [first["id"], second["id"]]
        applied = {**event(1), "kind": "command.applied", "payload": {"command": first["id"]}}
        await socket.send_json({"type": "events", "events": [applied]})
        await said(socket, "ack")
    state = await db.read(RunCommand.objects.values_list("state", flat=True).get, key=first["id"])
    assert state == "applied"


async def test_the_connection_ends_when_the_pods_tokens_die(gateway, pod):
    async with dial(gateway, pod.control_bearer) as socket:
        await greet(socket)
        await db.write(RunPod.objects.filter(pk=pod.row.pk).update, ended_at=timezone.now())
        assert await closed(socket) == CLOSE_TOKEN_REFUSED


async def test_a_ping_is_answered(gateway, pod):
    async with dial(gateway, pod.control_bearer) as socket:
        await greet(socket)
        await socket.send_json({"type": "ping"})
        await said(socket, "pong")


async def test_a_frame_of_eight_megabytes_passes_and_a_larger_one_does_not(gateway, pod):
    async with dial(gateway, pod.control_bearer) as socket:
        await greet(socket)
        await socket.send_json({"type": "events", "events": [event(1, "x" * 7_900_000)]})
        assert (await said(socket, "ack"))["source_seq"] == 1
        with contextlib.suppress(ConnectionError):  # it may be closed in the middle of the frame
            await socket.send_json({"type": "events", "events": [event(2, "x" * 8_400_000)]})
        assert await closed(socket) in (1009, 1006)
    assert await db.read(RunEvent.objects.filter(pod=pod.row).count) == 1


@pytest.mark.slow
async def test_one_runs_flood_delays_nobody_elses_event(gateway, pod, project, operator):
    def other_run() -> Run:
        return Run.objects.create(
            project=project, owner=operator, title="o", task="o", agent="x", wall_seconds=60
        )

    quiet = await db.write(make_pod, await db.write(other_run))
    async with (
        dial(gateway, pod.control_bearer) as loud_socket,
        dial(gateway, quiet.control_bearer) as quiet_socket,
    ):
        await greet(loud_socket)
        await greet(quiet_socket)
        total = 10_000
        frames = [
            {"type": "events", "events": [event(n) for n in range(start, start + 2000)]}
            for start in range(1, total + 1, 2000)
        ]

        async def flood() -> None:
            for frame in frames:
                await loud_socket.send_json(frame)

        flooding = asyncio.create_task(flood())
        waits = []
        for number in range(1, 11):
            began = time.monotonic()
            await quiet_socket.send_json({"type": "events", "events": [event(number)]})
            await said(quiet_socket, "ack")
            waits.append(time.monotonic() - began)
        await flooding
        while (await said(loud_socket, "ack"))["source_seq"] < total:
            pass
    assert sorted(waits)[len(waits) // 2] < 1.0
    assert await db.read(RunEvent.objects.filter(pod=pod.row).count) == total
