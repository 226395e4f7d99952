"""`ContainerBackend` on podman's API service, rootful and rootless."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pods import (
    podman_api_logs,
    podman_exec,
    podman_images,
    podman_logs,
    podman_look,
    podman_oom,
    podman_state,
    podman_volumes,
    podman_watch,
)
from pods.errors import (
    BackendError,
    BackendUnavailable,
    ImageMissing,
    PodNotFound,
    PodRefused,
    StartFailed,
)
from pods.podman_client import SLOW, PodmanClient
from pods.podman_documents import (
    LABEL_POD,
    container_document,
    container_name,
    pod_document,
    volume_document,
)
from pods.podman_images import (
    Tables,
    check_reference,
    home_of,
    numeric_user,
    users_of,
)
from pods.spec import (
    AGENT,
    SIDECAR,
    ContainerSpec,
    ImageInfo,
    LogLine,
    Phase,
    PodEvent,
    PodSpec,
    PodState,
    PullProgress,
    VolumeKind,
    VolumeSpec,
)

MAX_REMEMBERED = 1000
#: A health check that has not ended by then is given up; podman 4.3 does not end it by itself.
HEALTH_SECONDS = 10.0

NO_BOUND_ROOTLESS = "Rootless podman cannot bound the disk use of a volume: it is measured, and a run over its limit is stopped."
NO_LIMITS_CGROUPS_V1 = (
    "Rootless podman on cgroups v1 enforces no memory, CPU or process limit on this host."
)


class PodmanBackend:
    """Pods on one host's podman. `volumes_dir` holds the images that bound volumes; it needs root, like their mounting."""

    name = "podman"
    counts_volumes = True

    def __init__(self, socket: Path, *, installation: str, volumes_dir: Path) -> None:
        self._client = PodmanClient(socket)
        self._looker = podman_look.Looker(self._client)
        self._installation = installation
        self._volumes_dir = volumes_dir
        self._facts: tuple[bool, bool] | None = None
        self._images: dict[str, ImageInfo] = {}
        self._oom: dict[str, bool] = {}

    # --- the host ---------------------------------------------------------------------------------------

    async def health(self) -> str:
        """podman's version."""
        return await self._client.version()

    def warning(self) -> tuple[str, str]:
        """Nothing: what is amiss with podman is a part's of its own."""
        return "", ""

    async def capacity(self) -> int | None:
        """Not known: a host has no number of pods."""
        return None

    async def enforces_policies(self) -> bool | None:
        """True: a pod has no network but its loopback."""
        return True

    async def _host(self) -> tuple[bool, bool]:
        """Whether this podman is rootless, and whether its cgroups can hold limits."""
        if self._facts is None:
            host = (await self._client.get("/info"))["host"]
            rootless = bool(host["security"]["rootless"])
            limits = not rootless or host.get("cgroupVersion") == "v2"
            self._facts = (rootless, limits)
        return self._facts

    async def _warnings(self) -> tuple[str, ...]:
        rootless, limits = await self._host()
        found = [NO_BOUND_ROOTLESS] if rootless else []
        return (*found, *([] if limits else [NO_LIMITS_CGROUPS_V1]))

    # --- images -----------------------------------------------------------------------------------------

    async def image(self, reference: str) -> ImageInfo | None:
        """The image from the local store."""
        check_reference(reference)
        try:
            document = await self._client.get(f"/images/{reference}/json")
        except (PodNotFound, ImageMissing):
            return None
        known = self._images.get(document["Id"])
        if known is None:
            known = await self._client.run(self._describe, reference, document)
            self._images[document["Id"]] = known
        return known

    def _describe(self, reference: str, document: dict[str, Any]) -> ImageInfo:
        config = document.get("Config") or {}
        env = dict(pair.partition("=")[::2] for pair in config.get("Env") or [])
        tables = Tables(self._client, document["Id"])
        user = numeric_user(tables, str(document.get("User") or ""))
        return ImageInfo(
            id=document["Id"],
            size_bytes=int(document.get("Size", 0)),
            user=user,
            env=env,
            home=home_of(tables, user, env),
            users=users_of(tables),
        )

    async def pull(
        self, reference: str, progress: Callable[[PullProgress], None] | None = None
    ) -> ImageInfo:
        """Have the image in the local store."""
        present = await self.image(reference)
        if present is not None:
            return present
        loop = asyncio.get_running_loop()

        def tell(line: str) -> None:
            if progress is not None:
                loop.call_soon_threadsafe(progress, PullProgress(line))

        await self._client.run(podman_images.pull, self._client, reference, tell)
        found = await self.image(reference)
        if found is None:
            raise ImageMissing(f"The image {reference} was pulled and is not in the store.")
        return found

    # --- pods -------------------------------------------------------------------------------------------

    async def create_pod(
        self, spec: PodSpec, progress: Callable[[PullProgress], None] | None = None
    ) -> PodState:
        """Make the pod, volumes and containers, and start the sidecar alone. Images are there by then: `progress` hears nothing."""
        if spec.secrets or spec.gateway or spec.prepare:
            raise PodRefused("Podman mounts tokens and the gateway's socket from this host.")
        rootless, limits = await self._host()
        containers = [spec.sidecar, spec.agent, *spec.extra]
        users = await self._users(spec)
        if not rootless and users[AGENT].partition(":")[0] == "0":
            raise PodRefused(
                f"The image {spec.agent.image} runs as root, which is refused under rootful podman.",
                next_step="Set `remoteUser` in devcontainer.json to an ordinary user, or choose another image.",
            )
        try:
            for volume in spec.volumes:
                await self._make_volume(volume, spec, user=users[AGENT], rootless=rootless)
            if not await self._there("pods", spec.name):
                await self._client.post("/pods/create", pod_document(spec))
            for container in containers:
                name = container_name(spec.name, container.name)
                if not await self._there("containers", name):
                    document = container_document(
                        spec, container, user=users[container.name], limits=limits
                    )
                    await self._client.post("/containers/create", document)
            await self.start(spec.name, SIDECAR)
        except BackendUnavailable:
            raise
        except BackendError:
            with contextlib.suppress(BackendError):
                await self.destroy(spec.name)
            raise
        state = await self.pod(spec.name)
        if state is None:
            raise StartFailed(f"The pod {spec.name} vanished while it was being made.")
        return state

    async def _users(self, spec: PodSpec) -> dict[str, str]:
        """The numeric user of each container. What the sidecar shares with the agent is a user of the agent's image."""
        users = {AGENT: await self._user(spec.agent)}
        for container in (spec.sidecar, *spec.extra):
            same = container.user == spec.agent.user
            # Asked for in any case: an image that is missing is named before anything is made.
            resolved = await self._user(replace(container, user="") if same else container)
            users[container.name] = users[AGENT] if same else resolved
        return users

    async def _user(self, container: ContainerSpec) -> str:
        image = await self.image(container.image)
        if image is None:
            raise ImageMissing(
                f"The image {container.image} is not on this host.",
                next_step="Check its name, or let the run pull it.",
            )
        if not container.user:
            return image.user
        return await self._client.run(numeric_user, Tables(self._client, image.id), container.user)

    async def _make_volume(
        self, volume: VolumeSpec, spec: PodSpec, *, user: str, rootless: bool
    ) -> None:
        if await self._there("volumes", volume.name):
            return
        device = ""
        if not rootless and volume.size_bytes and volume.kind is not VolumeKind.STDIO:
            path = await self._client.run(
                podman_volumes.make_image, self._volumes_dir, volume, user=user
            )
            device = str(path)
        document = volume_document(volume, pod=spec, user=user, device=device)
        await self._client.post("/volumes/create", document)

    async def _there(self, kind: str, name: str) -> bool:
        try:
            await self._client.get(f"/{kind}/{name}/exists")
        except PodNotFound:
            return False
        return True

    async def start(self, pod: str, container: str) -> None:
        """Start one container of the pod, having handed it those of its bounded volumes that are new."""
        name = container_name(pod, container)
        new = await self._client.run(podman_volumes.not_handed_over, self._volumes_dir)
        if new:
            await self._hand_over(name, new)
        await self._client.post(f"/containers/{name}/start")

    async def _hand_over(self, name: str, new: set[str]) -> None:
        document = await self._client.get(f"/containers/{name}/json")
        mounts = [mount for mount in document["Mounts"] if mount.get("Name") in new]
        status = str(document["State"]["Status"])
        if not mounts or status == "running":
            return
        if status != "initialized":
            # Makes the mounts and the namespaces; no process of the image runs yet.
            await self._client.post(f"/containers/{name}/init")
        for mount in mounts:
            await self._client.run(
                podman_volumes.hand_over,
                self._volumes_dir,
                mount["Name"],
                mountpoint=Path(mount["Source"]),
                user=document["Config"]["User"],
            )

    async def pod(self, name: str) -> PodState | None:
        """The pod now."""
        try:
            document = await self._client.get(f"/pods/{name}/json")
        except PodNotFound:
            return None
        return await self._state(document)

    async def look(
        self, name: str, *, tail: int
    ) -> tuple[PodState, Mapping[str, Sequence[LogLine]]] | None:
        """The pod now, and the last lines of its containers."""
        found = await self._looker.look(name, tail)
        if found is None:
            return None
        document, seen = found
        state = await self._seen(document, [one.document for one in seen])
        tails = {one.document["Name"]: one.lines for one in seen}
        lines: dict[str, Sequence[LogLine]] = {}
        for container in state.containers:
            last = tails.get(container_name(name, container))
            if last is None:
                last = [line async for line in self.logs(name, container, tail=tail)]
            lines[container] = last
        return state, lines

    async def pods(self, labels: Mapping[str, str]) -> list[PodState]:
        """All pods that carry these labels."""
        found = await self._client.get("/pods/json", {"filters": _filters(labels)})
        names = [pod["Name"] for pod in found or [] if _carries(pod, labels)]
        states = await asyncio.gather(*(self.pod(name) for name in names))
        return [state for state in states if state is not None]

    async def _state(self, document: dict[str, Any]) -> PodState:
        infra = document.get("InfraContainerID")
        ids = [c["Id"] for c in document.get("Containers") or [] if c["Id"] != infra]
        found = await asyncio.gather(*(self._inspect(identity) for identity in ids))
        return await self._seen(document, [one for one in found if one is not None])

    async def _seen(self, document: dict[str, Any], there: list[dict[str, Any]]) -> PodState:
        await asyncio.gather(*(self._look_for_oom(one) for one in there))
        return podman_state.pod_state(document, there, warnings=await self._warnings())

    async def _look_for_oom(self, document: dict[str, Any]) -> None:
        """Correct `OOMKilled` where podman missed it; asked once a container, since the kernel's log forgets."""
        state, identity = document["State"], document["Id"]
        if state.get("OOMKilled") or state.get("ExitCode") != podman_oom.KILLED:
            return
        if identity not in self._oom:
            if len(self._oom) >= MAX_REMEMBERED:
                self._oom.clear()
            self._oom[identity] = await self._client.run(podman_oom.killed_for_memory, identity)
        state["OOMKilled"] = self._oom[identity]

    async def _inspect(self, identity: str) -> dict[str, Any] | None:
        try:
            document: dict[str, Any] = await self._client.get(f"/containers/{identity}/json")
        except PodNotFound:
            return None
        return document

    async def check_health(self, pod: str, container: str) -> bool:
        """Run a health check once: podman leaves that to systemd, which need not be there."""
        path = f"/containers/{container_name(pod, container)}/healthcheck"
        try:
            await self._client.run(self._client.call, "GET", path, timeout=HEALTH_SECONDS)
        except BackendUnavailable as error:
            if not isinstance(error.__cause__, SLOW):
                raise
            return False
        except BackendError:
            return True  # gone, not running, or without a check (409)
        return True

    def watch(self, labels: Mapping[str, str]) -> AsyncIterator[PodEvent]:
        """Changes from now on. One connection, made again with back-off when podman goes away."""
        return podman_watch.watch(self._client.socket, labels)

    # --- what containers say and do ---------------------------------------------------------------------

    async def logs(
        self,
        pod: str,
        container: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: str = "",
    ) -> AsyncIterator[LogLine]:
        """A container's log from its file on this host, or over the API where we may not read that."""
        name = container_name(pod, container)
        document = await self._client.get(f"/containers/{name}/json")
        path = Path(document["HostConfig"]["LogConfig"]["Path"])
        if not await self._client.run(podman_api_logs.readable, path):
            async for line in podman_api_logs.follow(
                self._client.socket, name, since=since, tail=tail, on=follow
            ):
                yield line
            return
        if tail is not None and not since:
            since = await self._client.run(_tail, path, tail)

        async def ended() -> bool:
            try:
                now = await self._inspect(name)
            except BackendUnavailable:
                return False
            if now is None:
                return True
            phase = podman_state.container_state(now, pod=pod).phase
            return phase is Phase.EXITED

        async for line in podman_logs.follow(path, since=since, on=follow, ended=ended):
            yield line

    async def exec(
        self,
        pod: str,
        container: str,
        argv: Sequence[str],
        *,
        tty: bool = False,
        size: tuple[int, int] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> podman_exec.PodmanExec:
        """Run a program in a running container."""
        body = {
            "AttachStdin": True,
            "AttachStdout": True,
            "AttachStderr": True,
            "Tty": tty,
            "Cmd": list(argv),
            "Env": [f"{key}={value}" for key, value in (env or {}).items()],
        }
        name = container_name(pod, container)
        created = await self._client.post(f"/containers/{name}/exec", body)
        return await podman_exec.start(self._client, created["Id"], tty=tty, size=size)

    async def stop(self, pod: str, *, grace_seconds: float = 10) -> None:
        """End the agent, then the sidecar, then what is left."""
        with contextlib.suppress(PodNotFound):
            document = await self._client.get(f"/pods/{pod}/json")
            infra = document.get("InfraContainerID")
            names = [c["Name"] for c in document.get("Containers") or [] if c["Id"] != infra]
            last = container_name(pod, SIDECAR)
            for name in sorted(names, key=lambda name: (name == last, name)):
                with contextlib.suppress(PodNotFound):
                    await self._client.post(
                        f"/containers/{name}/stop",
                        params={"timeout": max(1, round(grace_seconds)), "ignore": "true"},
                        timeout=grace_seconds + 30,
                    )
            await self._client.post(f"/pods/{pod}/stop", params={"t": 1}, timeout=60)

    async def destroy(self, pod: str) -> None:
        """Remove the pod and its FIFOs."""
        with contextlib.suppress(PodNotFound):
            if await self._there("pods", pod):
                # Removing by force asks first and waits for each container's grace.
                with contextlib.suppress(BackendError):
                    await self._client.post(f"/pods/{pod}/kill", params={"signal": "KILL"})
                await self._client.delete(f"/pods/{pod}", {"force": "true"})
        for name in await self.volumes({LABEL_POD: pod}):
            await self.remove_volume(name)

    # --- volumes ----------------------------------------------------------------------------------------

    async def volumes(self, labels: Mapping[str, str]) -> list[str]:
        """Names of the volumes that carry these labels."""
        found = await self._client.get("/volumes/json", {"filters": _filters(labels)})
        return [str(volume["Name"]) for volume in found or [] if _carries(volume, labels)]

    async def remove_volume(self, name: str) -> None:
        """Remove a volume and its image."""
        with contextlib.suppress(PodNotFound):
            await self._client.delete(f"/volumes/{name}", {"force": "true"})
        await self._client.run(podman_volumes.remove_image, self._volumes_dir, name)

    async def volume_usage(self, name: str) -> tuple[int, int]:
        """Bytes and inodes used in a volume."""
        document = await self._client.get(f"/volumes/{name}/json")
        mountpoint = Path(document["Mountpoint"])
        if (document.get("Options") or {}).get("device"):
            return await self._client.run(self._bounded_usage, name, mountpoint)
        rootless, _ = await self._host()
        if not rootless:
            return await self._client.run(podman_volumes.usage, mountpoint)
        owner = self._client.socket.stat().st_uid
        return await self._client.run(podman_volumes.mapped_usage, mountpoint, owner=owner)

    def _bounded_usage(self, name: str, mountpoint: Path) -> tuple[int, int]:
        image = podman_volumes.image_path(self._volumes_dir, name)
        if mountpoint.is_mount():
            return podman_volumes.mounted_usage(mountpoint, image.stat().st_size)
        return podman_volumes.image_usage(image)

    async def tidy(self) -> None:
        """Remove the containers that were made to look into an image and lost their maker."""
        await self._client.run(podman_images.remove_leftover_looks, self._client)

    async def close(self) -> None:
        """Let go of the threads."""
        await self._client.close()


def _carries(found: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a listed object has all of these labels. Podman 4.3 lists volumes that have any of them."""
    return labels.items() <= (found.get("Labels") or {}).items()


def _filters(labels: Mapping[str, str]) -> str:
    return json.dumps({"label": [f"{key}={value}" for key, value in labels.items()]})


def _tail(path: Path, lines: int) -> str:
    try:
        return podman_logs.tail_cursor(path, lines)
    except FileNotFoundError:
        return ""
