"""The pod of an attempt as a document: a pure function of what is known, compared whole by its tests.

Both containers run as the same uid:gid and see the same workspace; nothing else is shared but the loopback network. Tokens
and the way to the gateway are the sidecar's alone: files of this host on podman, a secret and an address on a cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pods.spec import (
    AGENT,
    LABEL_ATTEMPT,
    LABEL_INSTALLATION,
    LABEL_OWNER,
    LABEL_PROJECT,
    LABEL_RUN,
    SIDECAR,
    SOCKET_DIR,
    STATE_DIR,
    STDIO_DIR,
    TOKEN_DIR,
    ContainerSpec,
    Limits,
    Mount,
    Placement,
    PodSpec,
    VolumeKind,
    VolumeSpec,
)

MIB = 1024**2
GIB = 1024**3
HOME_BYTES = 2 * GIB
HOME_INODES = 200_000
#: The sidecar's own: outbox (bounded by itself) and a bare repository of the run's work.
STATE_BYTES = 2 * GIB
STATE_INODES = 200_000
STDIO_BYTES = 1 * MIB
AGENT_TMP_BYTES = 512 * MIB
SIDECAR_TMP_BYTES = 64 * MIB
SIDECAR_LIMITS = Limits(memory_bytes=512 * MIB, cpus=1.0, pids=128)
SIDECAR_ARGV = ("python3", "-m", "pods.sidecar")
PREPARE_ARGV = ("python3", "-m", "pods.sidecar.prepare")
SIDECAR_HEALTH_ARGV = ("python3", "-m", "pods.sidecar.health")
#: Holds the pod's namespaces and goes at once when it is asked to (`sleep infinity` would take the whole grace).
INFRA_ARGV = ("catatonit", "-P")
NAME_SLUG_LENGTH = 24
#: A cluster ends a pod by itself so long after the run's own time, pauses included: nobody was there to do it.
REAPER_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Facts:
    """What a pod follows from. Keys are public keys; `user` is uid:gid, `home` the agent's home in its image.

    On a cluster `gateway` is the gateway's base URL and `secrets` are the run's tokens ("control", "data"): no folder of this host is
    mounted there. `wall_seconds` is how long the run may take.
    """

    installation: str
    run: str
    attempt: int
    project: str
    slug: str
    owner: str
    image: str
    user: str
    home: str
    argv: tuple[str, ...]
    workspace: str
    sidecar_image: str
    token_dir: Path
    socket_dir: Path
    limits: Limits
    workspace_bytes: int
    workspace_inodes: int
    env: Mapping[str, str] = field(default_factory=dict)
    gateway: str = ""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    placement: Placement = field(default_factory=Placement)
    wall_seconds: int = 0

    @property
    def is_on_cluster(self) -> bool:
        """Whether the pod runs where no folder of this host can be mounted."""
        return bool(self.gateway)


def pod_name(slug: str, run: str, attempt: int) -> str:
    """`devaipod-<project slug, at most 24>-<run key>-<attempt>`, a DNS-1123 label."""
    short = slug.lower().replace("_", "-")[:NAME_SLUG_LENGTH].strip("-") or "project"
    return f"devaipod-{short}-{run}-{attempt}"


def volume_name(installation: str, run: str, kind: VolumeKind, attempt: int = 0) -> str:
    """The name of a run's volume; that of the FIFOs belongs to one attempt."""
    middle = f"{run}-{attempt}" if kind is VolumeKind.STDIO else run
    return f"devaipod-{installation}-{middle}-{kind}"


def labels(
    installation: str, run: str, attempt: int, *, project: str, owner: str
) -> dict[str, str]:
    """The `io.devaipod.*` labels of a pod, its containers and volumes."""
    return {
        LABEL_INSTALLATION: installation,
        LABEL_RUN: run,
        LABEL_ATTEMPT: str(attempt),
        LABEL_PROJECT: project,
        LABEL_OWNER: owner,
    }


def build(facts: Facts) -> PodSpec:
    """The pod of one attempt."""
    volumes = {
        kind: volume_name(facts.installation, facts.run, kind, facts.attempt) for kind in VolumeKind
    }
    return PodSpec(
        name=pod_name(facts.slug, facts.run, facts.attempt),
        labels=labels(
            facts.installation,
            facts.run,
            facts.attempt,
            project=facts.project,
            owner=facts.owner,
        ),
        agent=_agent(facts, volumes),
        sidecar=_sidecar(facts, volumes),
        volumes=(
            VolumeSpec(
                volumes[VolumeKind.WORKSPACE],
                VolumeKind.WORKSPACE,
                facts.workspace_bytes,
                facts.workspace_inodes,
            ),
            VolumeSpec(volumes[VolumeKind.HOME], VolumeKind.HOME, HOME_BYTES, HOME_INODES),
            VolumeSpec(volumes[VolumeKind.STATE], VolumeKind.STATE, STATE_BYTES, STATE_INODES),
            VolumeSpec(volumes[VolumeKind.STDIO], VolumeKind.STDIO, STDIO_BYTES),
        ),
        infra_image=facts.sidecar_image,
        infra_argv=INFRA_ARGV,
        placement=facts.placement,
        secrets=facts.secrets,
        gateway=facts.gateway,
        prepare=PREPARE_ARGV if facts.is_on_cluster else (),
        deadline_seconds=_deadline(facts),
    )


def _deadline(facts: Facts) -> int:
    """Seconds after which a cluster ends the pod by itself."""
    if not facts.is_on_cluster or not facts.wall_seconds:
        return 0
    return facts.wall_seconds + REAPER_SECONDS


def _agent(facts: Facts, volumes: Mapping[VolumeKind, str]) -> ContainerSpec:
    return ContainerSpec(
        name=AGENT,
        image=facts.image,
        argv=facts.argv,
        env={**facts.env, "HOME": facts.home},
        user=facts.user,
        workdir=facts.workspace,
        mounts=(
            Mount(facts.workspace, volume=volumes[VolumeKind.WORKSPACE]),
            Mount(STDIO_DIR, volume=volumes[VolumeKind.STDIO], read_only=True),
            Mount(facts.home, volume=volumes[VolumeKind.HOME]),
            Mount("/tmp", tmpfs_bytes=AGENT_TMP_BYTES),  # noqa: S108 - inside the container
        ),
        limits=facts.limits,
    )


def _sidecar(facts: Facts, volumes: Mapping[VolumeKind, str]) -> ContainerSpec:
    ours = (
        Mount(TOKEN_DIR, host_path=str(facts.token_dir), read_only=True),
        Mount(SOCKET_DIR, host_path=str(facts.socket_dir), read_only=True),
    )
    return ContainerSpec(
        name=SIDECAR,
        image=facts.sidecar_image,
        argv=SIDECAR_ARGV,
        user=facts.user,
        workdir=STATE_DIR,
        mounts=(
            Mount(facts.workspace, volume=volumes[VolumeKind.WORKSPACE]),
            Mount(STDIO_DIR, volume=volumes[VolumeKind.STDIO]),
            Mount(STATE_DIR, volume=volumes[VolumeKind.STATE]),
            *(() if facts.is_on_cluster else ours),
            Mount("/tmp", tmpfs_bytes=SIDECAR_TMP_BYTES),  # noqa: S108 - inside the container
        ),
        limits=SIDECAR_LIMITS,
        health_argv=SIDECAR_HEALTH_ARGV,
    )
