"""What the conformance tests need of a backend: pods of the right form, and the end of everything that they made."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from pods.backend import ContainerBackend
from pods.spec import (
    AGENT,
    LABEL_ATTEMPT,
    LABEL_INSTALLATION,
    LABEL_RUN,
    SIDECAR,
    STATE_DIR,
    STDIO_DIR,
    TOKEN_DIR,
    ContainerSpec,
    Limits,
    LogLine,
    Mount,
    Phase,
    Placement,
    PodSpec,
    PodState,
    VolumeKind,
    VolumeSpec,
)
from tests.pods.services import AGENT_IMAGE, SIDECAR_IMAGE

MIB = 1024**2
WORKSPACE = "/workspaces/shop"
WORKSPACE_BYTES = 48 * MIB
WORKSPACE_INODES = 2000
TMP_BYTES = 16 * MIB
LIMITS = Limits(memory_bytes=128 * MIB, cpus=0.5, pids=64, log_bytes=16 * MIB)
#: Does nothing and ends at once on SIGTERM, as the product's programs do.
IDLE = "trap 'exit 0' TERM; sleep 1000 & wait"
#: Stands for the making of the workspace on a cluster: ends when it is told to.
OPEN = 'touch "$DEVAIPOD_STATE_DIR/open"'
GATE = (
    "trap 'exit 6' TERM; "
    'until [ -e "$DEVAIPOD_STATE_DIR/open" ]; do sleep 0.05; done; rm -f "$DEVAIPOD_STATE_DIR/open"'
)


@dataclass(frozen=True)
class Gives:
    """What a backend gives beyond the contract's words, or in its own way; the suite asserts exactly this.

    `bounded_volumes`: a volume is full at its size. `cgroup_limits`, `process_limit`: what a container is held to. `bounded_tmp`: so is
    its scratch folder. `namespaces`: those that the two containers share. `interfaces` of the pod's network. `kept`: kinds of volumes
    that outlive a pod. `users`: what is asked for, and the uid and gid that it becomes. `clock`: the grain of its times.
    `has_store`: images are looked into before a pod is made of them. `runs_checks`: health checks run by themselves.
    `knows_users`: the names of an image's users. `health_seconds`: the most until a failing check has its effect.
    `tells_streams`: a log's line says which stream it is of. `log_limit`: a container's log is bounded by its own limit.
    """

    bounded_volumes: bool = True
    cgroup_limits: bool = True
    process_limit: bool = True
    bounded_tmp: bool = True
    namespaces: frozenset[str] = frozenset({"net"})
    interfaces: frozenset[str] = frozenset({"lo"})
    kept: frozenset[VolumeKind] = frozenset(
        {VolumeKind.WORKSPACE, VolumeKind.HOME, VolumeKind.STATE}
    )
    lists_stdio: bool = True
    users: Mapping[str, tuple[str, str]] = field(
        default_factory=lambda: {"agent": ("1000", "1000"), "1234": ("1234", "0")}
    )
    clock: timedelta = timedelta()
    has_store: bool = True
    runs_checks: bool = False
    tells_streams: bool = True
    log_limit: bool = True
    knows_users: bool = True
    health_seconds: float = 60
    follow_seconds: float = 0.05


PODMAN = Gives()
ROOTLESS = Gives(bounded_volumes=False)
KUBERNETES = Gives(
    bounded_volumes=False,
    process_limit=False,
    bounded_tmp=False,
    namespaces=frozenset({"net", "ipc", "uts"}),
    interfaces=frozenset({"lo", "eth0"}),
    kept=frozenset(),
    lists_stdio=False,
    users={"agent": ("1000", "1000"), "1234": ("1234", "1234")},
    clock=timedelta(seconds=1),
    has_store=False,
    runs_checks=True,
    tells_streams=False,
    log_limit=False,
    knows_users=False,
    health_seconds=150,
)


@dataclass
class Kit:
    """A backend with what it gives, and pods of the product's form for it."""

    backend: ContainerBackend
    folder: Path
    gives: Gives
    installation: str = field(default_factory=lambda: f"t{secrets.token_hex(4)}")
    is_cluster: bool = False
    placement: Placement = field(default_factory=Placement)

    def spec(
        self,
        agent: str = IDLE,
        sidecar: str = IDLE,
        *,
        run: str = "",
        attempt: int = 1,
        user: str = "",
        limits: Limits = LIMITS,
    ) -> PodSpec:
        """A pod as the supervisor makes it, with shell scripts as programs."""
        run = run or secrets.token_hex(5)
        tokens = self.folder / f"tokens-{run}"
        tokens.mkdir(exist_ok=True)
        (tokens / "control").write_text(f"token-of-{run}")
        for path in (self.folder, tokens, tokens / "control"):
            path.chmod(0o755)

        def volume(kind: VolumeKind) -> str:
            middle = f"{run}-{attempt}" if kind is VolumeKind.STDIO else run
            return f"devaipod-{self.installation}-{middle}-{kind}"

        stdio, home, state = (
            volume(kind) for kind in (VolumeKind.STDIO, VolumeKind.HOME, VolumeKind.STATE)
        )
        workspace = Mount(WORKSPACE, volume=volume(VolumeKind.WORKSPACE))
        tmp = Mount("/tmp", tmpfs_bytes=TMP_BYTES)
        token = Mount(TOKEN_DIR, host_path=str(tokens), read_only=True)
        return PodSpec(
            name=f"devaipod-shop-{run}-{attempt}",
            labels={**self.labels(run), LABEL_ATTEMPT: str(attempt)},
            agent=ContainerSpec(
                name=AGENT,
                image=AGENT_IMAGE,
                argv=("sh", "-c", agent),
                env={"HOME": "/home/agent", "GREETING": "hello"},
                user=user,
                workdir=WORKSPACE,
                mounts=(
                    workspace,
                    Mount(STDIO_DIR, volume=stdio, read_only=True),
                    Mount("/home/agent", volume=home),
                    tmp,
                ),
                limits=limits,
            ),
            sidecar=ContainerSpec(
                name=SIDECAR,
                image=SIDECAR_IMAGE,
                argv=("sh", "-c", sidecar),
                user=user,
                workdir=STATE_DIR,
                mounts=(
                    workspace,
                    Mount(STDIO_DIR, volume=stdio),
                    Mount(STATE_DIR, volume=state),
                    *(() if self.is_cluster else (token,)),
                    tmp,
                ),
                limits=LIMITS,
            ),
            volumes=(
                VolumeSpec(
                    workspace.volume, VolumeKind.WORKSPACE, WORKSPACE_BYTES, WORKSPACE_INODES
                ),
                VolumeSpec(home, VolumeKind.HOME, 16 * MIB, 1000),
                VolumeSpec(state, VolumeKind.STATE, 16 * MIB, 1000),
                VolumeSpec(stdio, VolumeKind.STDIO),
            ),
            infra_image=SIDECAR_IMAGE,
            infra_argv=("catatonit", "-P"),
            placement=self.placement,
            secrets={"control": f"token-of-{run}"} if self.is_cluster else {},
            prepare=("sh", "-c", GATE) if self.is_cluster else (),
        )

    def listed(self, spec: PodSpec) -> set[str]:
        """Names of the pod's volumes that the backend lists while the pod is there."""
        kinds = self.gives.kept | ({VolumeKind.STDIO} if self.gives.lists_stdio else set())
        return {volume.name for volume in spec.volumes if volume.kind in kinds}

    def labels(self, run: str = "") -> dict[str, str]:
        """The labels of this test's pods, or of one run's."""
        labels = {LABEL_INSTALLATION: self.installation}
        return {**labels, LABEL_RUN: run} if run else labels

    async def up(self, spec: PodSpec) -> PodState:
        """Create the pod and start its agent."""
        await self.backend.create_pod(spec)
        await self.start(spec)
        state = await self.backend.pod(spec.name)
        assert state is not None
        return state

    async def start(self, spec: PodSpec) -> None:
        """Start the agent: on a cluster it starts by itself as soon as the workspace is there."""
        if self.is_cluster:
            state = await self.backend.pod(spec.name)
            assert state is not None
            if state.containers[AGENT].phase is Phase.CREATED and not state.containers[AGENT].error:
                await self.sh(spec, OPEN, container=SIDECAR)
        await self.backend.start(spec.name, AGENT)

    async def sh(self, spec: PodSpec, script: str, *, container: str = AGENT) -> tuple[int, str]:
        """Run a script in a container and return its exit code and output."""
        return await self.run(spec, ["sh", "-c", script], container=container)

    async def run(
        self, spec: PodSpec, argv: Sequence[str], *, container: str = AGENT
    ) -> tuple[int, str]:
        """Run a program in a container and return its exit code and output."""
        session = await self.backend.exec(spec.name, container, argv)
        try:
            said = b""
            while data := await asyncio.wait_for(session.read(), 30):
                said += data
            return await session.wait(), said.decode("utf-8", "replace")
        finally:
            await session.close()

    async def said(self, spec: PodSpec, container: str = AGENT, **how: object) -> list[LogLine]:
        """The container's log."""
        stream = self.backend.logs(spec.name, container, **how)  # type: ignore[arg-type]
        return [line async for line in stream]

    async def first(self, spec: PodSpec, lines: int, container: str = AGENT) -> list[bytes]:
        """The first lines of a container's log, waited for."""
        said: list[bytes] = []
        async with asyncio.timeout(20):
            while len(said) < lines:
                said = [line.text for line in await self.said(spec, container)]
                await asyncio.sleep(0.05)
        return said

    async def until_exited(
        self, spec: PodSpec, container: str = AGENT, seconds: float = 20
    ) -> PodState:
        """Wait until the container has exited."""
        async with asyncio.timeout(seconds):
            while True:
                state = await self.backend.pod(spec.name)
                assert state is not None
                if state.containers[container].phase is Phase.EXITED:
                    return state
                await asyncio.sleep(0.05)

    async def clear(self) -> None:
        """Remove every pod and volume that carries this kit's label."""
        pods = await self.backend.pods(self.labels())
        await asyncio.gather(*(self.backend.destroy(pod.name) for pod in pods))
        for volume in await self.backend.volumes(self.labels()):
            await self.backend.remove_volume(volume)


def with_agent(spec: PodSpec, **changes: object) -> PodSpec:
    """The same pod with another agent container."""
    return replace(spec, agent=replace(spec.agent, **changes))  # type: ignore[arg-type]
