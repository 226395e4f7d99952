"""The relay on a real cluster: made, reached through the API server, and back after whatever breaks it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from dataclasses import replace
from typing import Any

import pytest
import yaml

from pods import kubernetes_relay, kubernetes_relay_documents
from pods.errors import BackendError
from pods.kubernetes_client import KubeClient
from pods.kubernetes_forward import open_forward
from pods.kubernetes_relay import Relay
from pods.sidecar import relay_greeting
from pods.sidecar.mux import PipeBroken, Stream
from tests.e2e.installation import ROOT
from tests.pods.kube_relay_kit import client_pod, echo, kept, namespace, phase, sidecar_image, soon

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


async def test_a_second_forward_takes_over_and_the_first_comes_back(client):
    async with kept(relay_of(client)) as relay:
        await connected(relay)
        pipe = await open_forward(client, relay.name, kubernetes_relay_documents.CONTROL_PORT)
        await relay_greeting.greet(pipe, TOKEN)
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
            await relay_greeting.greet(pipe, "guessed")
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


async def test_an_api_server_that_does_not_answer_is_told_and_tried_again(client, monkeypatch):
    monkeypatch.setattr(kubernetes_relay, "MOST_PAUSE_SECONDS", 1.0)
    away = KubeClient(client.cluster)
    async with kept(relay_of(away)) as relay:
        await connected(relay)
        # What a laptop's network does: the connection is gone, and the next ones are refused.
        api = await away._connected()
        host, api.configuration.host = api.configuration.host, "https://127.0.0.1:9"
        relay.renew()
        await soon(lambda: "does not answer" in relay.state.says, 20, "the words")
        assert relay.state.next_step
        api.configuration.host = host
        await connected(relay, 2, seconds=20)
    await away.close()


async def test_the_account_of_deploy_hybrid_may_do_all_of_it_and_nothing_elsewhere(client):
    namespace = client.cluster.namespace
    for document in documents_of("deploy/hybrid/access.yaml"):
        group = "api/v1" if document["apiVersion"] == "v1" else f"apis/{document['apiVersion']}"
        kind = {"ServiceAccount": "serviceaccounts", "Secret": "secrets"}.get(
            document["kind"], f"{document['kind'].lower()}s"
        )
        if document["metadata"]["name"] == "default":
            continue
        for subject in document.get("subjects", []):
            subject["namespace"] = namespace
        await client.json("POST", f"/{group}/namespaces/{namespace}/{kind}", body=document)
    account = await as_account(client, "control-plane-token")
    async with kept(relay_of(account)) as relay:
        await connected(relay)
        await client.json("DELETE", f"{client.pods}/{relay.name}", body={"gracePeriodSeconds": 0})
        await connected(relay, 2)
    await relay.remove()
    for path in ("/api/v1/pods", "/api/v1/namespaces/default/pods", client.of("secrets")):
        with pytest.raises(BackendError, match="forbidden"):
            await account.json("GET", path)
    await account.close()


def documents_of(path: str) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all((ROOT / path).read_text()) if one]


async def as_account(client: KubeClient, secret: str) -> KubeClient:
    """A client with the token of a service account, as whoever follows docs/run/hybrid.md has it."""
    for _ in range(100):
        found = await client.json("GET", f"{client.of('secrets')}/{secret}")
        if found.get("data", {}).get("token"):
            break
        await asyncio.sleep(0.1)
    token = base64.b64decode(found["data"]["token"]).decode()
    document = yaml.safe_load(client.cluster.kubeconfig)
    for user in document["users"]:
        user["user"] = {"token": token}
    return KubeClient(replace(client.cluster, kubeconfig=yaml.safe_dump(document)))
