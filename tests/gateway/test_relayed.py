"""The gateway behind a real relay: sidecars dial the relay's port, and their tokens count from their pod's address alone."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from typing import Any

import aiohttp
import pytest
import uvicorn

from devaipod_web import db
from devaipod_web.gateway import relayed
from devaipod_web.gateway.app import application
from devaipod_web.gateway.origin import AtPort
from devaipod_web.gateway.relayed import Door, parse_peer
from devaipod_web.gateway.relays import FromRelay
from devaipod_web.parts import gateway_options
from devaipod_web.runs.models import RunPod
from devaipod_web.targets.models import Target
from pods.sidecar.mux import Kind, Mux
from pods.sidecar.protocol import PROTOCOL_VERSION
from tests.gateway.served import Pod
from tests.sidecar.pipes import Hand, pipe_pair
from tests.sidecar.relaying import HOST, Relay
from tests.sidecar.rig import until

pytestmark = pytest.mark.django_db(transaction=True)

MODELS = "/llm/v1/models"
HERE, ELSEWHERE = "127.0.0.3", "127.0.0.4"


@pytest.fixture
async def relay(tmp_path):
    relay = Relay(tmp_path)
    await relay.start()
    yield relay
    await relay.stop()


@pytest.fixture
def door(gateway):
    return Door(uvicorn.Config(AtPort(application), lifespan="off", **gateway_options()))


@contextlib.asynccontextmanager
async def from_address(source: str, relay: Relay):
    """A client whose connections come from this address."""
    connector = aiohttp.TCPConnector(local_addr=(source, 0))
    async with aiohttp.ClientSession(f"http://{HOST}:{relay.port}", connector=connector) as client:
        yield client


def set_address(pod: Pod, address: str) -> None:
    RunPod.objects.filter(pk=pod.row.pk).update(address=address)


async def asked(source: str, relay: Relay, headers: dict[str, str]) -> tuple[int, Any]:
    async with from_address(source, relay) as client, client.get(MODELS, headers=headers) as answer:
        return answer.status, await answer.json()


async def test_a_token_counts_through_the_relay_from_its_pods_address_alone(relay, door, pod):
    await relay.control(door.serve)
    await db.write(set_address, pod, HERE)
    status, body = await asked(HERE, relay, pod.bearer)
    assert (status, body["data"][0]["id"]) == (200, "scripted-demo")
    status, body = await asked(ELSEWHERE, relay, pod.bearer)
    assert status == 403
    assert "another pod" in body["error"]["message"]


async def test_the_same_address_in_another_cluster_is_another_pod(relay, gateway, pod):
    def placed(pod: Pod) -> tuple[int, int]:
        one, other = (Target.objects.create(name=n, kind="kubernetes") for n in ("one", "other"))
        RunPod.objects.filter(pk=pod.row.pk).update(address=HERE, target=one)
        return one.pk, other.pk

    one, other = await db.write(placed, pod)
    for target, status in ((one, 200), (other, 403)):
        config = uvicorn.Config(FromRelay(application, target), lifespan="off", **gateway_options())
        await relay.control(Door(config).serve)
        assert (await asked(HERE, relay, pod.bearer))[0] == status


@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
async def test_what_a_request_says_of_its_address_does_not_count(relay, door, pod, name):
    await relay.control(door.serve)
    await db.write(set_address, pod, HERE)
    value = f"for={HERE}" if name == "Forwarded" else HERE
    assert (await asked(ELSEWHERE, relay, {**pod.bearer, name: value}))[0] == 403


async def test_a_wrong_token_is_refused(relay, door, pod):
    await relay.control(door.serve)
    await db.write(set_address, pod, HERE)
    assert (await asked(HERE, relay, {"Authorization": "Bearer nonsense"}))[0] == 401
    assert (await asked(HERE, relay, {}))[0] == 401
    assert (await asked(HERE, relay, pod.control_bearer))[0] == 403


async def test_a_sidecar_is_welcomed_and_dials_again_after_the_forward_broke(relay, door, pod):
    await db.write(set_address, pod, HERE)
    for _ in range(2):
        control = await relay.control(door.serve)
        async with from_address(HERE, relay) as client:
            socket = await client.ws_connect("/sidecar", headers=pod.control_bearer)
            await socket.send_json({"type": "hello", "protocol": PROTOCOL_VERSION})
            assert (await socket.receive_json(timeout=10))["type"] == "welcome"
            control.cancel()
            ended = await socket.receive(timeout=10)
            assert ended.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
        await until(lambda: not door.connections, 5, "the gateway to see the end")


async def test_a_request_that_is_cut_in_the_middle_harms_nothing(relay, door, pod):
    await db.write(set_address, pod, HERE)
    control = await relay.control(door.serve)
    head = (
        "POST /llm/v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nContent-Length: 100000\r\n"
        f"Authorization: Bearer {pod.data}\r\n\r\n"
    )
    open_ones = []
    for _ in range(5):
        reader, writer = await asyncio.open_connection(HOST, relay.port, local_addr=(HERE, 0))
        writer.write(head.encode() + b"{" * 500)
        open_ones.append((reader, writer))
    await until(lambda: door.connections == 5, 5, "the requests")
    open_ones[0][1].transport.abort()  # a sidecar that goes
    await until(lambda: door.connections == 4, 5, "its end")
    control.cancel()  # and the forward
    await until(lambda: not door.connections, 5, "the end of all")
    await relay.control(door.serve)
    assert (await asked(HERE, relay, pod.bearer))[0] == 200


# --- The transport, with an application that shows it ---------------------------------------------------------


async def digests(scope, receive, send) -> None:
    """Answers with the body's SHA-256, or for GET with as many bytes as the path says."""
    assert scope["type"] == "http"
    start = {"type": "http.response.start", "status": 200, "headers": []}
    if scope["method"] == "GET":
        await send(start)
        for _ in range(int(scope["path"][1:]) // 1000):
            await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return
    digest, client = hashlib.sha256(), scope["client"]
    while True:
        message = await receive()
        digest.update(message.get("body", b""))
        if not message.get("more_body"):
            break
    await send(start)
    told = json.dumps({"sha": digest.hexdigest(), "client": client[0]})
    await send({"type": "http.response.body", "body": told.encode()})


@pytest.fixture
async def plain(relay):
    door = Door(uvicorn.Config(digests, lifespan="off", **gateway_options()))
    await relay.control(door.serve)
    return door


async def test_bodies_of_any_size_pass_both_ways_on_one_connection(relay, plain):
    body = bytes(range(256)) * 4096 * 20  # 20 MiB
    async with from_address(HERE, relay) as client:
        for _ in range(2):
            async with client.post("/", data=body) as answer:
                told = json.loads(await answer.text())
        assert told == {"sha": hashlib.sha256(body).hexdigest(), "client": HERE}
        async with client.get("/20000000") as answer:
            assert len(await answer.read()) == 20_000_000
        assert plain.connections == 1


async def test_a_sidecar_that_does_not_read_makes_its_answer_wait_and_nobody_elses(relay, plain):
    reader, writer = await asyncio.open_connection(HOST, relay.port, local_addr=(HERE, 0))
    writer.write(b"GET /50000000 HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.sleep(0.5)
    (transport,) = plain._open
    assert transport.get_write_buffer_size() < 1_000_000
    async with from_address(ELSEWHERE, relay) as client:
        for _ in range(10):
            async with asyncio.timeout(2), client.post("/", data=b"x" * 10_000) as answer:
                assert answer.status == 200
    size = 0
    async with asyncio.timeout(30):
        while size < 50_000_000:
            size += len(await reader.read(1 << 20))
    writer.close()


async def test_an_answer_with_connection_close_arrives_whole(relay, plain):
    reader, writer = await asyncio.open_connection(HOST, relay.port, local_addr=(HERE, 0))
    writer.write(b"GET /3000000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    async with asyncio.timeout(10):
        assert len(await reader.read()) > 3_000_000
    await until(lambda: not plain.connections, 5, "the end")


async def test_what_is_no_http_is_refused(relay, plain):
    reader, writer = await asyncio.open_connection(HOST, relay.port, local_addr=(HERE, 0))
    writer.write(b"\x16\x03\x01 hello\r\n\r\n")
    async with asyncio.timeout(5):
        assert (await reader.read()).startswith(b"HTTP/1.1 400")


async def test_who_sends_no_request_is_dropped_and_who_works_is_not(relay, plain, monkeypatch):
    monkeypatch.setattr(relayed, "HEAD_SECONDS", 0.3)
    idle, _ = await asyncio.open_connection(HOST, relay.port, local_addr=(HERE, 0))
    slow, dribbles = await asyncio.open_connection(HOST, relay.port, local_addr=(HERE, 0))
    dribbles.write(b"GET / HTTP/1.1\r\nX: ")
    works, writer = await asyncio.open_connection(HOST, relay.port, local_addr=(HERE, 0))
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n1")
    async with asyncio.timeout(5):
        for gone in (idle, slow):
            with contextlib.suppress(ConnectionError):
                assert await gone.read() == b""
    await asyncio.sleep(0.3)
    writer.write(b"2")
    async with asyncio.timeout(5):
        assert (await works.readline()).startswith(b"HTTP/1.1 200")


async def test_drain_lets_a_request_end_and_ends_the_idle(relay, plain):
    async with from_address(HERE, relay) as idle, from_address(ELSEWHERE, relay) as busy:
        async with idle.post("/", data=b"x"):
            pass
        got = await busy.get("/3000000")
        draining = asyncio.create_task(plain.drain(5))
        assert len(await got.read()) == 3_000_000
        await draining
        assert not plain.connections


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"nonsense",
        b"10.0.0.1",
        b"10.0.0.1 x",
        b"10.0.0.1 70000",
        b"\xff 1",
        b"10.0.0.1,10.0.0.2 1",
    ],
)
async def test_a_relay_that_names_no_address_is_refused(said):
    door = Door(uvicorn.Config(digests, lifespan="off", **gateway_options()))
    near, far = await pipe_pair()
    running = asyncio.create_task(Mux(near, accept=door.serve).run())
    hand = Hand(far)
    await hand.say(Kind.OPEN, 1, said)
    assert (await hand.hear()).kind is Kind.RESET
    running.cancel()


@pytest.mark.parametrize(
    ("said", "peer"),
    [
        ("10.1.2.3 80", ("10.1.2.3", 80)),
        ("fd00:0::1 65535", ("fd00::1", 65535)),
        ("fe80::1%eth0 1", ("fe80::1", 1)),
        ("10.1.2.3 80 90", None),
        ("10.1.2.3 ²", None),
    ],
)
def test_peers_are_read_as_addresses(said, peer):
    assert parse_peer(said) == peer
