"""The relay's documents: pure functions, compared whole by their tests and held against `restricted` like those of agents' pods."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from pods.sidecar.gateway import URL_FILE
from pods.sidecar.relay import CONTROL_PORT, MAX_PER_PEER, PORT
from pods.spec import LABEL_PREFIX

#: Not the installation's label: what carries that one and belongs to no run is swept away.
LABEL_RELAY = LABEL_PREFIX + "relay"
#: The token's digest: a relay with another token is made anew.
ANNOTATION_TOKEN = LABEL_PREFIX + "relay-token"
TOKEN_DIR = "/run/devaipod-relay"
#: `mux.MAX_STREAMS` full windows are 256 MiB; Python needs the rest.
MEMORY = "384Mi"
USER = 1000
NAME_LABEL = "app.kubernetes.io/name"
APP = "devaipod-relay"

__all__ = [
    "CONTROL_PORT",
    "LABEL_RELAY",
    "MAX_PER_PEER",
    "PORT",
    "pod",
    "relay_name",
    "secret",
    "url",
]


def relay_name(installation: str) -> str:
    """The name of the relay's pod, of its Secret and of the ConfigMap with its address, a DNS-1123 label."""
    plain = re.sub(r"[^a-z0-9-]", "-", installation.lower()).strip("-")
    return f"{APP}-{plain}"[:63].rstrip("-")


def labels(installation: str) -> dict[str, str]:
    """What a NetworkPolicy or a Service selects the relay by."""
    return {NAME_LABEL: APP, LABEL_RELAY: installation}


def token_digest(token: str) -> str:
    """What may be seen of a token."""
    return hashlib.sha256(f"relay {token}".encode()).hexdigest()[:32]


def secret(installation: str, token: str) -> dict[str, Any]:
    """The Secret that only the relay mounts."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": relay_name(installation), "labels": labels(installation)},
        "type": "Opaque",
        "stringData": {"token": token},
    }


def pod(installation: str, *, image: str, token: str) -> dict[str, Any]:
    """The relay's pod. The kubelet starts its container again when it ends; on another node it is made anew by us."""
    name = relay_name(installation)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": labels(installation),
            "annotations": {ANNOTATION_TOKEN: token_digest(token)},
        },
        "spec": {
            "restartPolicy": "Always",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 2,
            # It dials nobody, so it asks for no name.
            "dnsPolicy": "Default",
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "relay",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["python3", "-m", "pods.sidecar.relay"],
                    "env": [
                        {
                            "name": "DEVAIPOD_RELAY_HOST",
                            "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}},
                        },
                        {"name": "DEVAIPOD_RELAY_TOKEN_FILE", "value": f"{TOKEN_DIR}/token"},
                    ],
                    # Loopback's port is not named: nothing but the port-forward may find it.
                    "ports": [{"name": "gateway", "containerPort": PORT, "protocol": "TCP"}],
                    "resources": {
                        "requests": {"cpu": "20m", "memory": "48Mi"},
                        "limits": {"cpu": "1", "memory": MEMORY},
                    },
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [{"name": "token", "mountPath": TOKEN_DIR, "readOnly": True}],
                }
            ],
            "volumes": [{"name": "token", "secret": {"secretName": name, "defaultMode": 0o440}}],
        },
    }


def address_map(installation: str, base: str) -> dict[str, Any]:
    """The ConfigMap that every agent's sidecar mounts: where the gateway is now. The kubelet brings a change within about a minute."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": relay_name(installation), "labels": labels(installation)},
        "data": {URL_FILE: base},
    }


def url(address: str) -> str:
    """The base URL of the gateway for pods that dial the relay at this address; empty without one."""
    if not address:
        return ""
    return f"http://[{address}]:{PORT}" if ":" in address else f"http://{address}:{PORT}"
