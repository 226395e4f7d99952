"""The relay on a real cluster: made, reached through the API server, and back after whatever breaks it."""

from __future__ import annotations

import asyncio
import copy
import hashlib
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
import yaml

from pods import kubernetes_relay, kubernetes_relay_documents
from pods.errors import BackendError
from pods.kubernetes_client import KubeClient
from pods.kubernetes_forward import open_forward
from pods.kubernetes_relay import Relay
from pods.sidecar import mux, relay_greeting
from pods.sidecar.mux import PipeBroken, Stream
from tests.pods.kube_relay_kit import (
    account_kubeconfig,
    client_pod,
    echo,
    kept,
    namespace,
    phase,
    sidecar_image,
    soon,
)

pytestmark = [pytest.mark.kube, pytest.mark.slow]

TOKEN = "a-token-of-the-test"
#: A pod that sends 50 MB and says how many came back, and their digest.
PROGRAM = """
import hashlib, socket, threading
line = socket.create_connection(("{address}", 8401), timeout=30)
print("from", line.getsockname()[0], flush=True)
block = bytes(range(256)) * 4096
threading.Thread(target=lambda: [line.sendall(block) for _ in range({blocks})] and line.shutdown(1)).start()
digest, size = hashlib.sha256(), 0
while part := line.recv(1 << 16):
    digest.update(part); size += len(part)
print("came", size, digest.hexdigest())
"""
BLOCK = bytes(range(256)) * 4096


@pytest.fixture
async def client():
    async with namespace() as client:
        yield client


def relay_of(client: KubeClient, accept=echo, *, token: str = TOKEN, image: str = "") -> Relay:
    return Relay(client, image=image or sidecar_image(), token=token, accept=accept)


async def connected(relay: Relay, opened: int = 1, seconds: float = 60) -> None:
    await soon(
        lambda: relay.state.connected and relay.state.opened >= opened,
        seconds,
        f"forward {opened}; {relay.state}",
    )


async def test_50_mb_of_a_pod_go_through_and_its_address_is_told(client):
    peers = []

    async def accept(stream: Stream) -> None:
        peers.append(stream.peer.partition(" ")[0])
        await echo(stream)

    async with kept(relay_of(client, accept)) as relay:
        await connected(relay)
        program = PROGRAM.format(address=relay.state.address, blocks=50)
        said = await client_pod(client, sidecar_image(), program)
    assert f"came {50 * len(BLOCK)} {hashlib.sha256(BLOCK * 50).hexdigest()}" in said
    assert f"from {peers[0]}\n" in said


async def test_a_forward_that_is_cut_is_opened_again_and_the_pod_stays(client):
    async with kept(relay_of(client)) as relay:
        await connected(relay)
        before = relay.state
        relay._mux.close()
        await connected(relay, 2, seconds=10)
        assert relay.state.pod_uid == before.pod_uid
        said = await client_pod(
            client, sidecar_image(), PROGRAM.format(address=relay.state.address, blocks=1)
        )
    assert f"came {len(BLOCK)}" in said


async def test_a_second_forward_of_the_process_takes_over_and_the_first_comes_back(client):
    async with kept(relay_of(client)) as relay:
        await connected(relay)
        pipe = await open_forward(client, relay.name, kubernetes_relay_documents.CONTROL_PORT)
        await relay_greeting.greet(pipe, TOKEN, kubernetes_relay.PROCESS)
        await connected(relay, 2, seconds=10)
        pipe.close()


async def test_a_relay_pod_that_is_deleted_is_made_anew(client):
    async with kept(relay_of(client)) as relay:
        await connected(relay)
        before = relay.state
        await client.json("DELETE", f"{client.pods}/{relay.name}", body={"gracePeriodSeconds": 0})
        await soon(lambda: not relay.state.connected, 20, "the end to be seen")
        await connected(relay, 2)
        assert relay.state.pod_uid != before.pod_uid
        said = await client_pod(
            client, sidecar_image(), PROGRAM.format(address=relay.state.address, blocks=1)
        )
    assert f"came {len(BLOCK)}" in said


async def test_a_relay_of_another_token_is_made_anew(client):
    async with kept(relay_of(client, token="old")) as relay:
        await connected(relay)
        before = relay.state.pod_uid
    async with kept(relay_of(client, token="new")) as relay:
        await connected(relay)
        assert relay.state.pod_uid != before


async def test_who_does_not_know_the_token_is_not_let_in(client):
    async with kept(relay_of(client)) as relay:
        await connected(relay)
        pipe = await open_forward(client, relay.name, kubernetes_relay_documents.CONTROL_PORT)
        with pytest.raises(relay_greeting.GreetingRefused, match="another token"):
            await relay_greeting.greet(pipe, "guessed", "other")
        pipe.close()
        await asyncio.sleep(0.5)
        assert relay.state.connected
        assert relay.state.opened == 1


async def test_pods_do_not_reach_the_port_of_the_control_plane(client):
    program = (
        "import socket\ntry:\n  socket.create_connection(('{address}', 8402), timeout=5); print('open')\n"
        "except OSError as error: print(error)"
    )
    async with kept(relay_of(client)) as relay:
        await connected(relay)
        said = await client_pod(
            client, sidecar_image(), program.format(address=relay.state.address)
        )
    assert "refused" in said


async def test_a_port_where_nobody_listens_is_told(client):
    async with kept(relay_of(client)) as relay:
        await connected(relay)
        pipe = await open_forward(client, relay.name, 9999)
        with pytest.raises(PipeBroken):
            if not await pipe.read():
                raise PipeBroken("hung up")
        pipe.close()


async def test_an_image_that_is_nowhere_is_told_with_the_next_step(client):
    async with kept(relay_of(client, image="localhost/devaipod-nowhere:1")) as relay:
        await soon(lambda: "does not start" in relay.state.says, 60, "the trouble")
        assert "DEVAIPOD_SIDECAR_IMAGE" in relay.state.next_step


async def test_it_is_removed(client):
    relay = relay_of(client)
    async with kept(relay):
        await connected(relay)
    await relay.remove()
    assert await phase(client, relay.name) == ""
    await relay.remove()


class Line:
    """The line between a laptop and the API server: it can be cut, and it can fall silent."""

    def __init__(self, client: KubeClient) -> None:
        self._kubeconfig = yaml.safe_load(client.cluster.kubeconfig)
        server = urlsplit(self._kubeconfig["clusters"][0]["cluster"]["server"])
        self._host, self._port = server.hostname, server.port or 443
        self._server: asyncio.Server | None = None
        self._ends: list[asyncio.StreamWriter] = []
        self._flows = asyncio.Event()
        self._flows.set()
        self.port = 0

    async def up(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def down(self) -> None:
        """Cut what there is, and refuse what comes."""
        self._server.close()
        for end in self._ends:
            end.transport.abort()
        self._ends.clear()

    def freeze(self) -> None:
        """Bring nothing more and tell nobody, as a network that is gone; new connections hang as well."""
        self._flows.clear()

    def thaw(self) -> None:
        self._flows.set()

    def client(self, client: KubeClient) -> KubeClient:
        """A client that reaches the API server over this line."""
        document = copy.deepcopy(self._kubeconfig)
        for one in document["clusters"]:
            one["cluster"]["server"] = f"https://127.0.0.1:{self.port}"
        return KubeClient(replace(client.cluster, kubeconfig=yaml.safe_dump(document)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._host, self._port)
        self._ends += [writer, back]
        await asyncio.gather(
            self._pump(reader, back), self._pump(there, writer), return_exceptions=True
        )

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            await self._flows.wait()
            writer.write(data)
            await writer.drain()
        writer.close()


@pytest.fixture
async def line(client):
    line = Line(client)
    await line.up()
    yield line
    line.down()


async def test_a_line_that_is_cut_for_a_while_is_said_and_the_forward_comes_back(client, line):
    away = line.client(client)
    async with kept(relay_of(away)) as relay:
        await connected(relay)
        for times in (2, 3):
            line.down()
            await soon(lambda: not relay.state.connected, 10, "the end to be seen")
            await soon(lambda: "does not answer" in relay.state.says, 20, "the words")
            await line.up()
            await connected(relay, times, seconds=30)
    await away.close()


async def test_a_line_that_falls_silent_is_noticed_and_a_new_forward_takes_over(
    client, line, monkeypatch
):
    monkeypatch.setattr(mux, "PING_SECONDS", 0.5)
    monkeypatch.setattr(mux, "SILENCE_SECONDS", 2.0)
    away = line.client(client)
    async with kept(relay_of(away)) as relay:
        await connected(relay)
        await asyncio.sleep(3)
        assert relay.state.opened == 1
        line.freeze()
        await soon(lambda: not relay.state.connected, 10, "the silence to be noticed")
        assert "nothing was heard" in relay.state.says
        line.thaw()
        await connected(relay, 2, seconds=40)
        said = await client_pod(
            client, sidecar_image(), PROGRAM.format(address=relay.state.address, blocks=1)
        )
    assert f"came {len(BLOCK)}" in said
    await away.close()


async def test_the_account_of_deploy_hybrid_may_do_all_of_it_and_nothing_elsewhere(client):
    account = KubeClient(replace(client.cluster, kubeconfig=await account_kubeconfig(client)))
    async with kept(relay_of(account)) as relay:
        await connected(relay)
        await client.json("DELETE", f"{client.pods}/{relay.name}", body={"gracePeriodSeconds": 0})
        await connected(relay, 2)
    await relay.remove()
    for path in ("/api/v1/pods", "/api/v1/namespaces/default/pods", client.of("secrets")):
        with pytest.raises(BackendError, match="forbidden"):
            await account.json("GET", path)
    await account.close()
