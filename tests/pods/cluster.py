"""The real cluster of the tests: the one that KUBECONFIG names, a namespace of our own in it, and this checkout's images on its node."""

from __future__ import annotations

import asyncio
import os
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from pods.errors import BackendError, PodNotFound
from pods.kubernetes_client import Conflict, KubeClient
from pods.kubernetes_cluster import Cluster
from tests.pods.services import AGENT_IMAGE, SIDECAR_IMAGE, need

LOAD_SECONDS = 300
GONE_SECONDS = 90
#: This host as pods of the cluster reach it.
HOST = os.environ.get("DEVAIPOD_TEST_KUBE_HOST", "10.88.7.1")
BRIDGE_SECONDS = 60


def kubeconfig() -> str:
    """The text of the kubeconfig; fails (never skips) without one."""
    named = os.environ.get("KUBECONFIG", "")
    need(named and Path(named).is_file(), "These tests need a cluster: KUBECONFIG names none.")
    return Path(named).read_text()


def cluster(namespace: str, *, installation: str = "test", **more: Any) -> Cluster:
    """A namespace of the cluster."""
    return Cluster("test", installation, namespace, kubeconfig(), **more)


def load(images: Sequence[str] = (AGENT_IMAGE, SIDECAR_IMAGE)) -> None:
    """Have images of podman's store on the cluster's node, by DEVAIPOD_TEST_KUBE_LOAD (a command that takes a docker-archive)."""
    command = os.environ.get("DEVAIPOD_TEST_KUBE_LOAD", "")
    if not command:
        return  # whoever runs the tests has loaded them, or the nodes pull them
    for image in images:
        ask = ["podman", "image", "inspect", "--format", "{{.Id}}", image]
        found = subprocess.run(ask, capture_output=True, text=True)
        need(found.returncode == 0, f"The image {image} is not here: run `make images` first.")
        # Loading takes ten seconds an image: once for each image's content on a host.
        done = Path(tempfile.gettempdir()) / f"devaipod-kube-loaded-{found.stdout.strip()[:16]}"
        started = _node_started()
        if done.exists() and done.read_text() == started:
            continue
        with tempfile.TemporaryDirectory() as folder:
            tar = f"{folder}/image.tar"
            save = ["podman", "save", "--quiet", "--format", "docker-archive", "-o", tar, image]
            subprocess.run(save, check=True, capture_output=True, timeout=LOAD_SECONDS)
            argv = [*shlex.split(command), tar]
            subprocess.run(argv, check=True, capture_output=True, timeout=LOAD_SECONDS)
        done.write_text(started)


def port_for_pods(image: str) -> int:
    """A free port at HOST. Where that is the bridge of a node on this host, it is there from the first pod on: one of this image is run."""
    with suppress(OSError), socket.create_server((HOST, 0)) as free:
        return int(free.getsockname()[1])
    name = f"first-{os.getpid()}"
    spec = {
        "restartPolicy": "Never",
        "containers": [
            {"name": "a", "image": image, "command": ["true"], "imagePullPolicy": "Never"}
        ],
    }
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    api("POST", "/api/v1/namespaces/default/pods", document)
    end = time.monotonic() + BRIDGE_SECONDS
    try:
        while True:
            try:
                with socket.create_server((HOST, 0)) as free:
                    return int(free.getsockname()[1])
            except OSError:
                if time.monotonic() > end:
                    raise
            time.sleep(0.2)
    finally:
        api("DELETE", f"/api/v1/namespaces/default/pods/{name}")


def _node_started() -> str:
    """Which cluster this is: a new one has none of the images."""
    return str(api("GET", "/api/v1/namespaces/kube-system")["metadata"]["uid"])


def api(method: str, path: str, body: Any = None, **more: Any) -> Any:
    """One question to the API server, from a test that is not of an event loop."""

    async def ask() -> Any:
        client = KubeClient(cluster("default"))
        try:
            return await client.json(method, path, body=body, **more)
        finally:
            await client.close()

    return asyncio.run(ask())


@contextmanager
def namespace(name: str) -> Iterator[str]:
    """A namespace of our own that is gone afterwards."""
    document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    _wait_gone(name, only_dying=True)
    with suppress(Conflict):
        api("POST", "/api/v1/namespaces", document)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        # The service account comes a moment later; a pod without it is refused.
        try:
            api("GET", f"/api/v1/namespaces/{name}/serviceaccounts/default")
            break
        except BackendError:
            time.sleep(0.1)
    try:
        yield name
    finally:
        api("DELETE", f"/api/v1/namespaces/{name}")


def _wait_gone(name: str, *, only_dying: bool) -> None:
    end = time.monotonic() + GONE_SECONDS
    while time.monotonic() < end:
        try:
            found = api("GET", f"/api/v1/namespaces/{name}")
        except PodNotFound:
            return
        if only_dying and not found["metadata"].get("deletionTimestamp"):
            return
        time.sleep(0.5)


def yaml_of(text: str) -> dict[str, Any]:
    """The document of a YAML text."""
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def as_yaml(document: dict[str, Any]) -> str:
    """A document as YAML."""
    return str(yaml.safe_dump(document))


def address_of(text: str) -> tuple[str, int]:
    """Host and port of the API server that a kubeconfig's first cluster names."""
    url = urlsplit(yaml_of(text)["clusters"][0]["cluster"]["server"])
    return str(url.hostname), url.port or 443


def at_port(text: str, port: int) -> str:
    """The same kubeconfig with the server at a port of this host, whose certificate nobody has signed."""
    document = yaml_of(text)
    inside = document["clusters"][0]["cluster"]
    inside["server"] = f"https://127.0.0.1:{port}"
    inside.pop("certificate-authority-data", None)
    inside["insecure-skip-tls-verify"] = True
    return as_yaml(document)
