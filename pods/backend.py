"""The contract that every container backend keeps; `tests/pods/conformance.py` tests these sentences."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Protocol

from pods.spec import ImageInfo, LogLine, PodEvent, PodSpec, PodState, PullProgress


class ExecSession(Protocol):
    """A process in a running container, with its streams."""

    async def read(self) -> bytes:
        """The next output (both streams together); empty at the end."""
        ...

    async def write(self, data: bytes) -> None:
        """Send input; waits while the process takes none."""
        ...

    async def end_input(self) -> None:
        """Say that no more input comes: without a terminal the process reads its end of file."""
        ...

    async def resize(self, rows: int, columns: int) -> None:
        """Tell the terminal's size, in characters."""
        ...

    async def wait(self) -> int:
        """Wait for the end and return the exit code."""
        ...

    async def close(self) -> None:
        """Drop the connection at once, whatever is unsent; the process may go on. Safe to repeat."""
        ...


class ContainerBackend(Protocol):
    """Where pods live. Every method is called from one event loop, concurrently for different pods, never
    concurrently for the same pod except `pod`, `pods`, `logs`, `watch` and `exec`, which may overlap with anything.
    Any method may raise `BackendUnavailable`, and may then be repeated.

    `name` is the kind of backend. `counts_volumes`: `volume_usage` tells what is used; where it is False, what bounds a volume also
    ends the pod that outgrows it, and nobody need look.
    """

    name: str
    counts_volumes: bool

    async def image(self, reference: str) -> ImageInfo | None:
        """The image from the local store, or None. Never pulls. Where a cluster's nodes pull by themselves, what any image has."""
        ...

    async def pull(
        self, reference: str, progress: Callable[[PullProgress], None] | None = None
    ) -> ImageInfo:
        """Have the image in the local store. Safe to repeat. Raises `ImageMissing`, `PullRefused`."""
        ...

    async def create_pod(
        self, spec: PodSpec, progress: Callable[[PullProgress], None] | None = None
    ) -> PodState:
        """Make the pod, its volumes and containers, hand the new volumes to the agent's user, start the sidecar alone.

        Called by the supervisor, possibly again after a crash: a pod that is there (even half made) is completed, a
        volume that is there is neither emptied nor re-owned. On error, what a repeat could not complete is removed.
        A backend whose nodes pull by themselves tells `progress` what they do. Raises `PodRefused`, `ImageMissing`, `PullRefused`,
        `QuotaExceeded`, `StartFailed`.
        """
        ...

    async def start(self, pod: str, container: str) -> None:
        """Start one container of the pod. Starting what runs succeeds. Raises `PodNotFound`, `StartFailed`."""
        ...

    async def pod(self, name: str) -> PodState | None:
        """The pod now, or None when it is not there."""
        ...

    async def look(
        self, name: str, *, tail: int
    ) -> tuple[PodState, Mapping[str, Sequence[LogLine]]] | None:
        """The pod now and the last `tail` lines of each of its containers by name, or None when it is not there.

        What `pod` and `logs` say, asked for at once.
        """
        ...

    async def pods(self, labels: Mapping[str, str]) -> list[PodState]:
        """All pods that carry these labels."""
        ...

    async def check_health(self, pod: str, container: str) -> bool:
        """Run the health check of a running container once; `pod` shows its result. Called by the supervisor on a beat.

        Does nothing where the container has none, does not run, is gone, or where the backend runs checks by itself. False when
        the check did not end within 10 seconds.
        """
        ...

    def watch(self, labels: Mapping[str, str]) -> AsyncIterator[PodEvent]:
        """Changes from now on, until the iterator is closed. May miss events: readers also look on a beat."""
        ...

    def logs(
        self,
        pod: str,
        container: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: str = "",
    ) -> AsyncIterator[LogLine]:
        """A container's log, from just after the cursor `since`, or the last `tail` lines, or all of it.

        With `follow` it goes on until the container has exited and everything was read. Raises `PodNotFound`.
        """
        ...

    async def exec(
        self,
        pod: str,
        container: str,
        argv: Sequence[str],
        *,
        tty: bool = False,
        size: tuple[int, int] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> ExecSession:
        """Run a program in a running container. `size` is the terminal's from its first moment on, in rows and columns of characters.

        Raises `PodNotFound`, `StartFailed`."""
        ...

    async def stop(self, pod: str, *, grace_seconds: float = 10) -> None:
        """End all containers: agent first, then sidecar, each asked, then killed after the grace. Must not fail when the pod is
        stopped or gone."""
        ...

    async def destroy(self, pod: str) -> None:
        """Remove the pod and the volumes of kind `stdio`. Must not fail when it is gone."""
        ...

    async def volumes(self, labels: Mapping[str, str]) -> list[str]:
        """Names of the volumes that carry these labels."""
        ...

    async def remove_volume(self, name: str) -> None:
        """Remove a volume and what bounds it. Must not fail when it is gone."""
        ...

    async def volume_usage(self, name: str) -> tuple[int, int]:
        """Bytes and inodes used in a volume; where no hard bound is possible the supervisor measures with this.

        (0, 0) where `counts_volumes` is False.
        """
        ...

    async def tidy(self) -> None:
        """Remove what a killed process left behind that belongs to no pod. Called on a beat; safe to repeat."""
        ...

    def warning(self) -> tuple[str, str]:
        """What is amiss though it answers, and the next step, each a sentence; both empty when nothing is."""
        ...

    async def capacity(self) -> int | None:
        """How many pods of ours it takes at once, those that are there included; None: not known."""
        ...

    async def enforces_policies(self) -> bool | None:
        """Whether a pod is held to the network that it may reach; None: not known."""
        ...

    async def health(self) -> str:
        """The backend's version when it answers. Raises `BackendUnavailable` with what to do."""
        ...

    async def close(self) -> None:
        """Let go of connections and threads; safe to repeat."""
        ...
