"""Which cluster, which namespace of it, and how it is reached."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml

from pods.errors import PodRefused


@dataclass(frozen=True)
class Cluster:
    """A namespace of a cluster where this installation may make pods.

    `kubeconfig` is such a file's text; empty: the service account of the pod that we run in. `context` is one of its contexts;
    empty: its current one. `gateway` is the base URL of the gateway as pods reach it. `probe_image` is an image with Python
    (the sidecar's) by which `enforces_policies` tries the network.
    """

    name: str
    installation: str
    namespace: str
    kubeconfig: str = field(default="", repr=False)
    context: str = ""
    gateway: str = ""
    probe_image: str = ""


#: What in a kubeconfig names a program or a file of this host; the text came over the web and must not choose either.
_PROGRAMS = ("exec", "auth-provider")
_FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")


def read_kubeconfig(text: str) -> dict[str, Any]:
    """The document of a kubeconfig that carries everything itself. Raises PodRefused with what is wrong with it."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PodRefused(f"The kubeconfig is not YAML: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("clusters"), list):
        raise PodRefused("The kubeconfig names no cluster.")
    for kind in ("users", "clusters"):
        for entry in document.get(kind) or []:
            inside = entry.get(kind.removesuffix("s")) if isinstance(entry, dict) else None
            for key in inside or {}:
                if key in _PROGRAMS:
                    raise PodRefused(
                        f"The kubeconfig asks for a program of this host (`{key}`), which is refused.",
                        next_step="Use the token of a service account of the cluster.",
                    )
                if key in _FILES:
                    raise PodRefused(
                        f"The kubeconfig names a file of this host (`{key}`), which is refused.",
                        next_step="`kubectl config view --raw --flatten` writes what the files hold into the text.",
                    )
    return document
