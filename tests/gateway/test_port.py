"""The gateway on its TCP port: a token counts from its pod's address alone. Real sockets from two addresses of this host."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from typing import Any

import aiohttp
import pytest

from devaipod_web import db
from devaipod_web.gateway import origin
from devaipod_web.gateway.origin import Origin, Verdict, judge
from devaipod_web.gateway.tokens import Caller, TokenKind
from devaipod_web.health.checks import listeners
from devaipod_web.parts import GatewayPort, PartFailed
from devaipod_web.runs.models import RunPod
from devaipod_web.runs.wake import wake
from pods.sidecar.protocol import PROTOCOL_VERSION
from tests.gateway.served import Pod

pytestmark = pytest.mark.django_db(transaction=True)

MODELS = "/llm/v1/models"
HERE, ELSEWHERE = "127.0.0.1", "127.0.0.2"


def free_port() -> int:
    with socket.create_server((HERE, 0)) as sock:
        return int(sock.getsockname()[1])


@pytest.fixture
async def port(gateway):
    """The part that `serve` runs, on every address of this host."""
    part = GatewayPort("0.0.0.0", free_port())  # noqa: S104
    await part.start()
    yield part
    await part.stop()


@contextlib.asynccontextmanager
async def from_address(source: str, port: GatewayPort):
    """A client whose connections come from this address."""
    connector = aiohttp.TCPConnector(local_addr=(source, 0))
    async with aiohttp.ClientSession(f"http://{HERE}:{port.port}", connector=connector) as client:
        yield client


def set_address(pod: Pod, address: str) -> None:
    RunPod.objects.filter(pk=pod.row.pk).update(address=address)
    wake(pod.row.run.key)


async def asked(source: str, port: GatewayPort, headers: dict[str, str]) -> tuple[int, Any]:
    async with from_address(source, port) as client, client.get(MODELS, headers=headers) as answer:
        return answer.status, await answer.json()


async def dialled(source: str, port: GatewayPort, pod: Pod) -> tuple[str, int | None, str]:
    """(first message's type, close code, reason) of a sidecar that says hello."""
    async with (
        from_address(source, port) as client,
        client.ws_connect("/sidecar", headers=pod.control_bearer) as ws,
    ):
        await ws.send_json({"type": "hello", "protocol": PROTOCOL_VERSION})
        said = await ws.receive(timeout=10)
        if said.type is aiohttp.WSMsgType.TEXT:
            return json.loads(said.data)["type"], None, ""
        return "", ws.close_code, str(said.extra)


async def test_a_token_counts_from_its_pods_address(port, pod):
    await db.write(set_address, pod, HERE)
    status, body = await asked(HERE, port, pod.bearer)
    assert (status, body["data"][0]["id"]) == (200, "scripted-demo")
    assert (await dialled(HERE, port, pod))[0] == "welcome"


async def test_a_token_does_not_count_from_another_address(port, pod):
    await db.write(set_address, pod, HERE)
    status, body = await asked(ELSEWHERE, port, pod.bearer)
    assert status == 403
    assert "another pod" in body["error"]["message"]
    kind, code, reason = await dialled(ELSEWHERE, port, pod)
    assert (kind, code) == ("", 4401)
    assert "another pod" in reason


async def test_what_a_request_says_of_its_address_does_not_count(port, pod):
    await db.write(set_address, pod, HERE)
    for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP"):
        value = f"for={HERE}" if name == "Forwarded" else HERE
        status, _ = await asked(ELSEWHERE, port, {**pod.bearer, name: value})
        assert status == 403, name


async def test_while_the_address_is_unknown_everybody_is_told_to_try_again(port, pod, monkeypatch):
    monkeypatch.setattr(origin, "ADDRESS_SECONDS", 0.2)
    status, body = await asked(HERE, port, pod.bearer)
    assert status == 503
    assert "try again" in body["error"]["message"]
    # 1013: the sidecar dials again after it, while a refused token ends it.
    kind, code, reason = await dialled(HERE, port, pod)
    assert (kind, code) == ("", 1013)
    assert "not known yet" in reason


async def test_a_sidecar_that_dials_before_its_address_is_known_is_served_when_it_comes(port, pod):
    dial = asyncio.create_task(dialled(HERE, port, pod))
    await asyncio.sleep(0.3)
    assert not dial.done()
    await db.write(set_address, pod, HERE)
    assert (await dial)[0] == "welcome"


async def test_on_its_own_socket_a_pod_needs_no_address(gateway, pod):
    async with gateway.http.get(MODELS, headers=pod.bearer) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("path", ["/", "/healthz", "/runs/", "/api/devaipod/status", "/sign-in/"])
async def test_nothing_of_the_web_app_is_on_the_port(port, pod, path):
    async with from_address(HERE, port) as client, client.get(path) as answer:
        assert answer.status == 404


async def test_a_port_that_is_taken_is_named(gateway):
    with socket.create_server((HERE, 0)) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(PartFailed, match=f"Port {number} .*DEVAIPOD_GATEWAY_LISTEN"):
            await GatewayPort(HERE, number).start()


async def test_it_listens_again_after_a_restart_and_its_service_is_well(port, pod):
    await db.write(set_address, pod, HERE)
    service = listeners.GatewayPort(port)
    assert (await service.check()).health == "ok"
    await service.restart()
    assert (await asked(HERE, port, pod.bearer))[0] == 200
    await port.stop()
    assert (await service.check()).health == "down"


@pytest.mark.parametrize(
    ("known", "source", "verdict"),
    [
        ("10.1.2.3", "10.1.2.3", Verdict.YES),
        ("10.1.2.3", "::ffff:10.1.2.3", Verdict.YES),
        ("fd00::1", "fd00:0::1", Verdict.YES),
        ("fd00::1", "fd00::2", Verdict.NO),
        ("10.1.2.3", "10.1.2.30", Verdict.NO),
        ("10.1.2.3", "", Verdict.NO),
        ("", "10.1.2.3", Verdict.NOT_YET),
        ("", "", Verdict.NOT_YET),
        ("unknown", "unknown", Verdict.NOT_YET),
    ],
)
def test_addresses_are_compared_as_addresses(known, source, verdict):
    caller = Caller(1, "p", "pod", 1, "r", "s", TokenKind.DATA, known)
    assert judge(Origin(address=source), caller) is verdict


def test_a_relay_says_which_pod_it_carries():
    caller = Caller(1, "p", "pod", 1, "r", "s", TokenKind.DATA, "10.1.2.3")
    assert judge(Origin(pod="pod"), caller) is Verdict.YES
    assert judge(Origin(pod="other", address="10.1.2.3"), caller) is Verdict.NO
