"""The pod of an attempt as a document: a pure function of what is known, compared whole by its tests.

Both containers run as the same uid:gid and see the same workspace; nothing else is shared but the loopback network. Tokens
and the gateway's socket are mounted into the sidecar alone.
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
SIDECAR_HEALTH_ARGV = ("python3", "-m", "pods.sidecar.health")
#: Holds the pod's namespaces and goes at once when it is asked to (`sleep infinity` would take the whole grace).
INFRA_ARGV = ("catatonit", "-P")
NAME_SLUG_LENGTH = 24


@dataclass(frozen=True)
class Facts:
    """What a pod follows from. Keys are public keys; `user` is uid:gid, `home` the agent's home in its image."""

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
    )


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
            Mount(TOKEN_DIR, host_path=str(facts.token_dir), read_only=True),
            Mount(SOCKET_DIR, host_path=str(facts.socket_dir), read_only=True),
            Mount("/tmp", tmpfs_bytes=SIDECAR_TMP_BYTES),  # noqa: S108 - inside the container
        ),
        limits=SIDECAR_LIMITS,
        health_argv=SIDECAR_HEALTH_ARGV,
    )
