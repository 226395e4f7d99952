"""The cluster that KUBECONFIG names, as these tests need it: images in it, and an API server that pods reach."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from devaipod_web.host import podman_config
from tests.deploy.kubectl import ROOT, kubectl

LOAD = "DEVAIPOD_TEST_KUBE_LOAD"
ACCOUNT_DIR = "/var/run/secrets/kubernetes.io/serviceaccount"


class NoCluster(AssertionError):
    """The tests of this folder have no cluster; the message says what to set."""


def check() -> None:
    """Whether there is a cluster. Raises NoCluster."""
    if not os.environ.get("KUBECONFIG"):
        raise NoCluster("KUBECONFIG names no cluster: export it, then `make test-kube` again")
    kubectl("version", "--request-timeout=10s")


def get(kind: str, name: str = "", namespace: str = "") -> Any:
    """An object, or without a name the list of all, as JSON."""
    where = ["-n", namespace] if namespace else []
    found = json.loads(kubectl("get", kind, *([name] if name else []), *where, "-o", "json"))
    return found if name else found["items"]


def load(image: str) -> None:
    """Bring an image of the local store to the nodes, by the command that DEVAIPOD_TEST_KUBE_LOAD names. Does nothing when it is there."""
    if any(
        image in (one.get("names") or [])
        for node in get("nodes")
        for one in node["status"].get("images") or []
    ):
        return
    words = shlex.split(os.environ.get(LOAD, ""))
    assert words, (
        f"{LOAD} must be a command that brings an image's tar, its last word, to the nodes"
    )
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        tar = f"{folder}/image.tar"
        subprocess.run(
            ["podman", "save", "--quiet", "--format", "docker-archive", "-o", tar, image],
            check=True,
            timeout=300,
            env=podman_config.environment(),
        )
        subprocess.run([*words, tar], check=True, timeout=300, stdout=subprocess.DEVNULL)


def server() -> tuple[str, str]:
    """(host, port) of the API server as KUBECONFIG names it."""
    found = json.loads(kubectl("config", "view", "--minify", "-o", "json"))
    parts = urlsplit(found["clusters"][0]["cluster"]["server"])
    return parts.hostname or "", str(parts.port or 443)


def is_hidden_from_pods() -> bool:
    """Whether the API server stands on its host's loopback alone: Kubernetes then makes no endpoint of its Service."""
    found = kubectl("get", "endpoints", "kubernetes", "-n", "default", "--ignore-not-found").strip()
    return not found


@contextmanager
def reached_by_pods() -> Iterator[None]:
    """While it lasts pods reach the API server. Where they would not, this host, the cluster's node, takes the Service's address."""
    if not is_hidden_from_pods():
        yield
        return
    service = get("service", "kubernetes", "default")["spec"]
    address, port = service["clusterIP"], str(service["ports"][0]["port"])
    target, target_port = server()
    subprocess.run(
        ["ip", "address", "add", f"{address}/32", "dev", "lo"], capture_output=True, timeout=10
    )
    words = ["-m", "tests.deploy.forward", address, port, target, target_port]
    forward = subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    try:
        assert forward.stdout is not None
        assert forward.stdout.readline() == b"listening\n", f"{address}:{port} can't be had"
        yield
    finally:
        forward.kill()
        forward.wait()
        subprocess.run(
            ["ip", "address", "del", f"{address}/32", "dev", "lo"], capture_output=True, timeout=10
        )


class Service:
    """The address of a Service, where nothing in the cluster translates it: by the very rule of netfilter that kube-proxy would write."""

    def __init__(self, name: str, namespace: str) -> None:
        spec = get("service", name, namespace)["spec"]
        self._address = spec["clusterIP"]
        self._ports = [str(one["port"]) for one in spec["ports"]]
        self._target = ""

    def leads_to(self, pod: str) -> None:
        """Hand on what comes for the Service to this pod's address from now on; empty: nowhere. The sender's address stays."""
        if not is_hidden_from_pods():
            return
        for verb, target in (("-D", self._target), ("-A", pod)):
            for port in self._ports if target else ():
                where = ["-d", f"{self._address}/32", "-p", "tcp", "--dport", port]
                whither = ["-j", "DNAT", "--to-destination", f"{target}:{port}"]
                words = ["iptables", "-w", "-t", "nat", verb, "PREROUTING", *where, *whither]
                subprocess.run(words, check=True, capture_output=True, timeout=20)
        self._target = pod
        if pod:
            # Answers between two pods of one bridge pass it by otherwise, and nobody translates them back.
            route = subprocess.check_output(
                ["ip", "-o", "route", "get", pod], text=True, timeout=10
            )
            device = route.split(" dev ")[1].split()[0]
            Path(f"/sys/class/net/{device}/bridge/nf_call_iptables").write_text("1")


def authority() -> str:
    """The certificates that the API server shows, in PEM: where the cluster gives its pods none, they trust these."""
    done = subprocess.run(
        ["openssl", "s_client", "-showcerts", "-connect", ":".join(server())],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
    )
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    found = [one.partition(end)[0] for one in done.stdout.split(begin)[1:]]
    assert found, done.stderr
    return "".join(f"{begin}{one}{end}\n" for one in found)


def publishes_authority() -> bool:
    """Whether pods are given the certificate of the cluster's authority, as everywhere but in the smallest of clusters."""
    found = kubectl(
        "get", "configmap", "kube-root-ca.crt", "-n", "default", "--ignore-not-found", "-o", "json"
    )
    return bool(found.strip() and json.loads(found)["data"]["ca.crt"])


def has_default_storage() -> bool:
    """Whether a claim that names no storage class is served."""
    mark = "storageclass.kubernetes.io/is-default-class"
    return any(
        (one["metadata"].get("annotations") or {}).get(mark) == "true"
        for one in get("storageclasses")
    )


def folder_volume(path: Path, *, namespace: str, claim: str) -> dict[str, Any]:
    """A volume that is a folder of the node, for one claim alone: where the cluster has no storage."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{namespace}-{claim}"},
        "spec": {
            "capacity": {"storage": "20Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"namespace": namespace, "name": claim},
            "hostPath": {"path": str(path)},
        },
    }
