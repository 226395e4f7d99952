"""A namespace of a real cluster, the sidecar's image in it, and a relay that is kept: what tests of the relay need."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import secrets
import shlex
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import yaml

from pods.errors import PodNotFound
from pods.kubernetes_client import KubeClient
from pods.kubernetes_cluster import Cluster
from pods.kubernetes_relay import Relay
from pods.sidecar.mux import Stream
from tests.deploy.kubectl import ROOT, rendered
from tests.pods.services import SIDECAR_IMAGE

_loaded: set[str] = set()


def kubeconfig() -> str:
    """The text of the kubeconfig that KUBECONFIG names; the test fails without one."""
    path = os.environ.get("KUBECONFIG", "")
    assert path, "KUBECONFIG names no cluster: `make test-kube` needs one"
    return Path(path).read_text()


def load(reference: str) -> None:
    """Have an image of podman's store on the cluster's nodes, by the command that DEVAIPOD_TEST_KUBE_LOAD names."""
    command = os.environ.get("DEVAIPOD_TEST_KUBE_LOAD", "")
    if not command or reference in _loaded:
        return  # The nodes pull it themselves.
    with tempfile.TemporaryDirectory() as folder:
        tar = f"{folder}/image.tar"
        save = ["podman", "save", "--format", "docker-archive", "-o", tar, reference]
        subprocess.run(save, check=True, capture_output=True)
        subprocess.run([*shlex.split(command), tar], check=True, capture_output=True)
    _loaded.add(reference)


def sidecar_image() -> str:
    """This checkout's image of the sidecar, on the nodes."""
    load(SIDECAR_IMAGE)
    return SIDECAR_IMAGE


@contextlib.asynccontextmanager
async def namespace(prefix: str = "devaipod-hybrid") -> AsyncIterator[KubeClient]:
    """A namespace of the test's own, and a client for it."""
    name = f"{prefix}-{secrets.token_hex(4)}"
    cluster = Cluster("test", f"test{secrets.token_hex(3)}", name, kubeconfig=kubeconfig())
    client = KubeClient(cluster)
    await client.json("POST", "/api/v1/namespaces", body={"metadata": {"name": name}})
    try:
        yield client
    finally:
        await client.json("DELETE", f"/api/v1/namespaces/{name}")
        await client.close()


@contextlib.asynccontextmanager
async def kept(relay: Relay) -> AsyncIterator[Relay]:
    """The relay while the block lasts."""
    task = asyncio.create_task(relay.run())
    try:
        yield relay
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def soon(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Wait until a condition is true and return what it returns."""
    end = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        found = condition()
        if found:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"waited {seconds} s for {what}")


async def echo(stream: Stream) -> None:
    """Send back what comes."""
    while data := await stream.read():
        await stream.write(data)
    await stream.end()


async def phase(client: KubeClient, name: str) -> str:
    """A pod's phase; empty when it is not there."""
    try:
        return str((await client.json("GET", f"{client.pods}/{name}"))["status"]["phase"])
    except PodNotFound:
        return ""


async def client_pod(client: KubeClient, image: str, program: str, name: str = "client") -> str:
    """Run a Python program in a pod of its own to its end and return what it printed."""
    body = {
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "containers": [{"name": "c", "image": image, "command": ["python3", "-c", program]}],
        },
    }
    await client.json("POST", client.pods, body=body)
    for _ in range(600):
        if await phase(client, name) in ("Succeeded", "Failed"):
            break
        await asyncio.sleep(0.2)
    async with client.stream(f"{client.pods}/{name}/log", params={}) as answer:
        said = (await answer.read()).decode()
    await client.json("DELETE", f"{client.pods}/{name}", body={"gracePeriodSeconds": 0})
    return said


async def account_kubeconfig(client: KubeClient) -> str:
    """Apply deploy/hybrid to the client's namespace and return its account's kubeconfig, as docs/run/hybrid.md has one made."""
    for document in rendered(ROOT / "deploy" / "hybrid"):
        await _apply(client, document)
    for _ in range(100):
        secret = await client.json("GET", f"{client.of('secrets')}/control-plane-token")
        if secret.get("data", {}).get("token"):
            break
        await asyncio.sleep(0.1)
    token = base64.b64decode(secret["data"]["token"]).decode()
    document = yaml.safe_load(client.cluster.kubeconfig)
    for user in document["users"]:
        user["user"] = {"token": token}
    return str(yaml.safe_dump(document))


async def _apply(client: KubeClient, document: dict[str, Any]) -> None:
    if document["kind"] == "Namespace" or document["metadata"]["name"] == "default":
        return  # They are there.
    version, namespace = document["apiVersion"], client.cluster.namespace
    document["metadata"]["namespace"] = namespace
    group = "api/v1" if version == "v1" else f"apis/{version}"
    plural = document["kind"].lower().removesuffix("y") + (
        "ies" if document["kind"].endswith("y") else "s"
    )
    for subject in document.get("subjects", []):
        subject["namespace"] = namespace
    await client.json("POST", f"/{group}/namespaces/{namespace}/{plural}", body=document)
