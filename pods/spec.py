"""What a pod is, said once for every backend: plain dataclasses, no daemon, no Django."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal

LABEL_PREFIX = "io.devaipod."
LABEL_INSTALLATION = LABEL_PREFIX + "installation"
LABEL_RUN = LABEL_PREFIX + "run"
LABEL_ATTEMPT = LABEL_PREFIX + "attempt"
LABEL_PROJECT = LABEL_PREFIX + "project"
LABEL_OWNER = LABEL_PREFIX + "owner"

AGENT = "agent"
SIDECAR = "sidecar"

#: Where the sidecar's proxy listens inside the pod; the agent's only way out.
PROXY_PORT = 8400
#: Mount points that both sides of a pod must agree on.
STDIO_DIR = "/run/devaipod-stdio"
SOCKET_DIR = "/run/devaipod"
TOKEN_DIR = "/run/devaipod-token"
STATE_DIR = "/var/lib/devaipod"
WORKSPACES_DIR = "/workspaces"

#: Exit code of the agent's entry when its program is not in the image.
EXIT_AGENT_MISSING = 42


class VolumeKind(StrEnum):
    """How long a volume lives and what bounds it."""

    WORKSPACE = "workspace"  # bounded bytes and inodes, belongs to the run
    HOME = "home"  # the agent's home, bounded, belongs to the run
    STATE = "state"  # the sidecar's own, belongs to the run
    STDIO = "stdio"  # two FIFOs, belongs to the pod


@dataclass(frozen=True)
class VolumeSpec:
    """A named volume. `size_bytes` and `inodes` of 0 mean: no bound asked for."""

    name: str
    kind: VolumeKind
    size_bytes: int = 0
    inodes: int = 0


@dataclass(frozen=True)
class Mount:
    """One mount of a container: a volume of the pod by name, a host folder, or a tmpfs.

    Exactly one of `volume`, `host_path` and `tmpfs_bytes` is set. `target` is absolute.
    """

    target: str
    volume: str = ""
    host_path: str = ""
    tmpfs_bytes: int = 0
    read_only: bool = False


@dataclass(frozen=True)
class Limits:
    """Bounds on one container: bytes of memory, cores, processes, bytes of its log kept by the backend."""

    memory_bytes: int = 2 * 1024**3
    cpus: float = 2.0
    pids: int = 512
    log_bytes: int = 16 * 1024**2


@dataclass(frozen=True)
class ContainerSpec:
    """One container. `user` is `uid:gid`, or empty for the image's own (resolved before creation)."""

    name: str
    image: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    workdir: str = ""
    mounts: tuple[Mount, ...] = ()
    limits: Limits = field(default_factory=Limits)
    read_only_root: bool = True
    health_argv: tuple[str, ...] = ()


@dataclass(frozen=True)
class Placement:
    """Where on a cluster a pod may run and what it keeps its workspace on; one host's podman has no use for any of it.

    `tolerations` are Kubernetes' own objects. `storage_class` is the claim's where `workspace` is "pvc"; empty: the cluster's default.
    """

    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, str], ...] = ()
    runtime_class: str = ""
    image_pull_secrets: tuple[str, ...] = ()
    workspace: Literal["emptydir", "pvc"] = "emptydir"
    storage_class: str = ""


@dataclass(frozen=True)
class PodSpec:
    """A pod: an agent and its sidecar over one loopback network, and their volumes.

    `name` is a DNS-1123 label. `labels` are the `io.devaipod.*` keys, put on the pod and on each container.
    `infra_image` is the image whose `infra_argv` holds the pod's namespaces.

    The rest is for backends that reach no folder of this host. `secrets` are files (name: content) that the sidecar alone finds in
    `TOKEN_DIR`. `gateway` is the gateway's base URL as the pod reaches it; empty: its Unix socket is mounted. `prepare` is what the
    sidecar's container executes first and to its end where a backend starts both containers together: it makes the workspace.
    `deadline_seconds` is when the backend itself ends the pod; 0: never.
    """

    name: str
    labels: Mapping[str, str]
    agent: ContainerSpec
    sidecar: ContainerSpec
    volumes: tuple[VolumeSpec, ...] = ()
    extra: tuple[ContainerSpec, ...] = ()
    infra_image: str = ""
    infra_argv: tuple[str, ...] = ()
    placement: Placement = field(default_factory=Placement)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    gateway: str = ""
    prepare: tuple[str, ...] = ()
    deadline_seconds: int = 0


class Phase(StrEnum):
    """A container's state as any backend can say it."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class ContainerState:
    """What a container is doing now. `exit_code` is None until it exited. `started_at` is None before the start.

    `health` is empty without a health check, else `starting`, `healthy` or `unhealthy`; `health_said` is what the last check printed.
    """

    name: str
    id: str
    phase: Phase
    image: str
    exit_code: int | None = None
    oom_killed: bool = False
    health: str = ""
    health_said: str = ""
    error: str = ""
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True)
class Trouble:
    """What a backend itself says is wrong with a pod: a code of `pods.findings.CODES`, a sentence, and whose fault it is."""

    code: str
    message: str
    container: str = ""


@dataclass(frozen=True)
class PodState:
    """What a pod is doing now. `warnings` name guarantees that this host cannot give (say so on the run).

    `address` is the pod's own IP address where it has one, `node` the machine of a cluster that it is on.
    """

    name: str
    id: str
    labels: Mapping[str, str]
    created_at: datetime | None
    containers: Mapping[str, ContainerState]
    warnings: tuple[str, ...] = ()
    address: str = ""
    node: str = ""
    troubles: tuple[Trouble, ...] = ()

    @property
    def running(self) -> bool:
        """Whether any of the pod's containers runs."""
        return any(c.phase is Phase.RUNNING for c in self.containers.values())


@dataclass(frozen=True)
class PodEvent:
    """A pod or container changed; the reader asks `pod(name)` for what it is now."""

    pod: str
    container: str
    what: str
    at: datetime


@dataclass(frozen=True)
class LogLine:
    """One line of a container's log, without its newline.

    `partial` says that the line goes on in the next record. `cursor` is the backend's own, opaque: given back as
    `since` it resumes just after this line. `gap` says that the backend discarded lines before this one.
    """

    stream: Literal["stdout", "stderr"]
    at: datetime
    text: bytes
    cursor: str
    partial: bool = False
    gap: bool = False


@dataclass(frozen=True)
class PullProgress:
    """How far a pull is: a line to show and, where the registry says, a fraction from 0 to 1."""

    message: str
    fraction: float | None = None


@dataclass(frozen=True)
class ImageInfo:
    """What is needed of an image: its id, size in bytes, environment, the numeric uid:gid and the home of its user.

    `users` are the names in its passwd (at most 200), each with its uid:gid and home.
    """

    id: str
    size_bytes: int
    user: str
    env: Mapping[str, str]
    home: str = ""
    users: Mapping[str, tuple[str, str]] = field(default_factory=dict)
