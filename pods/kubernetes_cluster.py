"""Which cluster, which namespace of it, and how it is reached."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cluster:
    """A namespace of a cluster where this installation may make pods.

    `kubeconfig` is such a file's text; empty: the service account of the pod that we run in. `context` is one of its contexts;
    empty: its current one. `gateway` is the base URL of the gateway as pods reach it.
    """

    name: str
    installation: str
    namespace: str
    kubeconfig: str = field(default="", repr=False)
    context: str = ""
    gateway: str = ""
