"""What the conformance tests need of a backend: pods of the right form, and the end of everything that they made."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
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


@dataclass
class Kit:
    """A backend with what it can do: `bounded_volumes` and `cgroup_limits` say which guarantees this host gives."""

    backend: ContainerBackend
    folder: Path
    bounded_volumes: bool
    cgroup_limits: bool
    installation: str = field(default_factory=lambda: f"t{secrets.token_hex(4)}")

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
                    Mount(TOKEN_DIR, host_path=str(tokens), read_only=True),
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
        )

    def labels(self, run: str = "") -> dict[str, str]:
        """The labels of this test's pods, or of one run's."""
        labels = {LABEL_INSTALLATION: self.installation}
        return {**labels, LABEL_RUN: run} if run else labels

    async def up(self, spec: PodSpec) -> PodState:
        """Create the pod and start its agent."""
        await self.backend.create_pod(spec)
        await self.backend.start(spec.name, AGENT)
        state = await self.backend.pod(spec.name)
        assert state is not None
        return state

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
