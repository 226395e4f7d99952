"""`ContainerBackend` on a namespace of a Kubernetes cluster (1.20 or later)."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from pods import kubernetes_exec
from pods.errors import BackendError, BackendUnavailable, PodNotFound, PodRefused, StartFailed
from pods.kubernetes_client import Conflict, KubeClient
from pods.kubernetes_cluster import Cluster
from pods.kubernetes_documents import (
    USER,
    claim_document,
    is_claimed,
    pod_document,
    secret_document,
)
from pods.kubernetes_end import Ender, running_place
from pods.kubernetes_helpers import Helpers, is_helper
from pods.kubernetes_logs import Logs
from pods.kubernetes_start import Starter, events
from pods.kubernetes_state import is_deleted, pod_state
from pods.kubernetes_watch import Document, Watch
from pods.podman_images import check_reference
from pods.spec import (
    LABEL_INSTALLATION,
    SIDECAR,
    ImageInfo,
    LogLine,
    Phase,
    PodEvent,
    PodSpec,
    PodState,
    PullProgress,
)

#: Whether the network is closed changes with the cluster alone; trying it makes two pods.
PROBED_SECONDS = 3600.0
GONE_SECONDS = 60.0
#: What a failing health check printed is asked for again where the first answer had nothing.
ASK_AGAIN_SECONDS = 30.0


@dataclass(frozen=True)
class _Said:
    """What failing health checks of a pod printed: at which version of it, and when that was asked (monotonic seconds)."""

    version: str
    at: float
    texts: dict[str, str]


class KubernetesBackend:
    """Pods of one installation in one namespace."""

    name = "kubernetes"
    counts_volumes = False

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._client = KubeClient(cluster)
        self._watch = Watch(self._client)
        self._starter = Starter(self._client, self._watch)
        self._ender = Ender(self._client, self._watch)
        self._logs = Logs(self._client, self._watch)
        self._helpers = Helpers(self._client, self._watch, self._starter, self._ender)
        self._probed: tuple[float, bool | None] | None = None
        self._said: dict[str, _Said] = {}

    # --- the cluster --------------------------------------------------------------------------------------

    @property
    def calls(self) -> Mapping[str, int]:
        """Requests to the API server so far, by verb and kind of object."""
        return self._client.calls

    async def health(self) -> str:
        """The cluster's version, when we may list pods in the namespace."""
        version = await self._client.json("GET", "/version")
        await self._client.json("GET", self._client.pods, params={"limit": 1})
        return str(version.get("gitVersion", ""))

    def warning(self) -> tuple[str, str]:
        """Whether a node lately refused to follow logs: they come late then, and cost more requests."""
        return self._logs.warning()

    async def capacity(self) -> int | None:
        """How many pods the namespace's quotas leave us, those that we have included; None without a quota."""
        try:
            found = await self._client.json("GET", self._client.of("resourcequotas"))
        except BackendError:
            return None
        ours = len(await self._watch.all())
        rooms = []
        for quota in found.get("items") or ():
            status = quota.get("status") or {}
            for key in ("pods", "count/pods"):
                if key in (status.get("hard") or {}):
                    used = int((status.get("used") or {}).get(key, 0))
                    rooms.append(max(0, int(status["hard"][key]) - used + ours))
        return min(rooms, default=None)

    async def enforces_policies(self) -> bool | None:
        """Whether one of our pods is kept from another: tried with two pods, at most once an hour. None before the first run."""
        if self._probed is not None and time.monotonic() - self._probed[0] < PROBED_SECONDS:
            return self._probed[1]
        image = self.cluster.probe_image or self._sidecar_image()
        if not image:
            return None
        try:
            is_closed = await self._helpers.is_closed(image)
        except BackendUnavailable:
            raise
        except (BackendError, TimeoutError):
            is_closed = None
        self._probed = (time.monotonic(), is_closed)
        return is_closed

    def _sidecar_image(self) -> str:
        """The image of a sidecar that is there; empty when there is none."""
        for document in self._watch.documents.values():
            for one in (document.get("spec") or {}).get("containers") or ():
                if one.get("name") == SIDECAR:
                    return str(one.get("image", ""))
        return ""

    # --- images -------------------------------------------------------------------------------------------

    async def image(self, reference: str) -> ImageInfo | None:
        """What is known of any image here: a cluster's nodes pull by themselves and show nobody what is in it."""
        check_reference(reference)
        return ImageInfo(id=reference, size_bytes=0, user=USER, env={}, home="/home/agent")

    async def pull(
        self, reference: str, progress: Callable[[PullProgress], None] | None = None
    ) -> ImageInfo:
        """Have the image on one of the nodes, by a small pod of it."""
        check_reference(reference)
        await self._helpers.pull(reference, progress)
        return ImageInfo(id=reference, size_bytes=0, user=USER, env={}, home="/home/agent")

    # --- pods ---------------------------------------------------------------------------------------------

    async def create_pod(
        self, spec: PodSpec, progress: Callable[[PullProgress], None] | None = None
    ) -> PodState:
        """Make claims, pod and secret, and wait until the sidecar (its beginning) runs."""
        spec = replace(spec, gateway_map=self.cluster.gateway_map)
        document = pod_document(spec, aliases=await _aliases(spec.gateway))
        try:
            for volume in spec.volumes:
                if is_claimed(volume, spec):
                    await self._make_claim(claim_document(volume, spec))
            # The pod first: its secret is owned by it from its first moment, and no secret is ever left alone.
            made = await self._make(document)
            if spec.secrets:
                await self._make_secret(secret_document(spec, uid=made["metadata"]["uid"]))
            return await self._starter.wait(spec.name, SIDECAR, progress)
        except BackendUnavailable:
            raise
        except BackendError:
            with contextlib.suppress(BackendError):
                await self.destroy(spec.name)
            raise

    async def _make(self, document: Document) -> Document:
        name = document["metadata"]["name"]
        while True:
            try:
                made: Document = await self._client.json("POST", self._client.pods, body=document)
            except Conflict:
                there = await self._watch.ask(name)
                if there is None:
                    continue
                if is_deleted(there):
                    with contextlib.suppress(TimeoutError):
                        await self._watch.until(name, lambda now: now is None, seconds=GONE_SECONDS)
                    continue
                made = there
            except PodNotFound as error:
                raise PodRefused(
                    f"The namespace {self.cluster.namespace} is not there: {error.message}",
                    next_step="Make the namespace, or name another in the target.",
                ) from error
            self._watch.put(made)
            return made

    async def _make_claim(self, document: Document) -> None:
        """Have a claim; one of that name that is on its way out is waited for."""
        path = self._client.of("persistentvolumeclaims")
        end = time.monotonic() + GONE_SECONDS
        while True:
            try:
                await self._client.json("POST", path, body=document)
                return
            except Conflict as error:
                with contextlib.suppress(PodNotFound):
                    there = await self._client.json("GET", f"{path}/{document['metadata']['name']}")
                    if not is_deleted(there):
                        return
                if time.monotonic() > end:
                    raise StartFailed(
                        f"A claim is being removed and does not go: {error}"
                    ) from error
                await asyncio.sleep(0.5)

    async def _make_secret(self, document: Document) -> None:
        path, name = self._client.of("secrets"), document["metadata"]["name"]
        try:
            await self._client.json("POST", path, body=document)
        except Conflict:
            # Ours of an earlier try, or one of a pod of that name that is gone and that nobody has removed yet.
            with contextlib.suppress(PodNotFound):
                await self._client.json("DELETE", f"{path}/{name}")
            await self._client.json("POST", path, body=document)

    async def start(self, pod: str, container: str) -> None:
        """Wait until a container has started: the cluster starts them by itself, as soon as the workspace is there."""
        await self._starter.wait(pod, container)

    async def pod(self, name: str) -> PodState | None:
        """The pod now."""
        document = await self._watch.pod(name)
        return await self._state(document) if document is not None else None

    async def look(
        self, name: str, *, tail: int
    ) -> tuple[PodState, Mapping[str, Sequence[LogLine]]] | None:
        """The pod now, and the last lines of its containers."""
        state = await self.pod(name)
        if state is None:
            return None
        lines: dict[str, Sequence[LogLine]] = {}
        for container in state.containers:
            try:
                lines[container] = [one async for one in self.logs(name, container, tail=tail)]
            except BackendError:
                lines[container] = []
        return state, lines

    async def pods(self, labels: Mapping[str, str]) -> list[PodState]:
        """All pods that carry these labels."""
        if labels.get(LABEL_INSTALLATION) == self.cluster.installation:
            found = await self._watch.all()
        else:
            found = await self._watch.list(labels)
        return [
            await self._state(one) for one in found if _carries(one, labels) and not is_helper(one)
        ]

    async def _state(self, document: Document) -> PodState:
        state = pod_state(document)
        if not any(one.health == "unhealthy" for one in state.containers.values()):
            self._said.pop(state.id, None)
            return state
        return pod_state(document, said=await self._checks(document, state))

    async def _checks(self, document: Document, state: PodState) -> dict[str, str]:
        """What failing health checks printed: the kubelet says it in events. Asked once for each change of the pod."""
        version = str(document["metadata"].get("resourceVersion", ""))
        known = self._said.get(state.id)
        # An event may come after the change that it caused: an answer with nothing is asked for again.
        if (
            known is not None
            and known.version == version
            and (known.texts or time.monotonic() - known.at < ASK_AGAIN_SECONDS)
        ):
            return known.texts
        said: dict[str, str] = {}
        for event in await events(self._client, document):
            path = str((event.get("involvedObject") or {}).get("fieldPath", ""))
            if event.get("reason") == "Unhealthy" and path.startswith("spec.containers{"):
                text = str(event.get("message", "")).partition("probe failed:")[2]
                said[path[len("spec.containers{") : -1]] = text.strip()[:500]
        self._said[state.id] = _Said(version, time.monotonic(), said)
        return said

    async def check_health(self, pod: str, container: str) -> bool:
        """Nothing to do: kubelets run the checks."""
        return True

    async def watch(self, labels: Mapping[str, str]) -> AsyncIterator[PodEvent]:
        """Changes from now on."""
        async with contextlib.aclosing(self._watch.events()) as changes:
            async for event in changes:
                document = self._watch.documents.get(event.pod)
                if document is None or (_carries(document, labels) and not is_helper(document)):
                    yield event

    # --- what containers say and do -----------------------------------------------------------------------

    def logs(
        self,
        pod: str,
        container: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: str = "",
    ) -> AsyncIterator[LogLine]:
        """A container's log over the API server."""
        return self._logs.read(pod, container, follow=follow, tail=tail, since=since)

    async def exec(
        self,
        pod: str,
        container: str,
        argv: Sequence[str],
        *,
        tty: bool = False,
        size: tuple[int, int] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> kubernetes_exec.KubeExec:
        """Run a program in a running container."""
        document = await self._watch.pod(pod)
        if document is None:
            raise PodNotFound(f"There is no pod {pod}.")
        state = pod_state(document).containers.get(container)
        if state is None:
            raise PodNotFound(f"There is no container {container} of the pod {pod}.")
        place = running_place(document, container)
        if state.phase is not Phase.RUNNING or not place:
            raise StartFailed(f"The container {container} of the pod {pod} does not run.")
        return await kubernetes_exec.start(
            self._client, pod, place, argv, tty=tty, size=size, env=env
        )

    async def stop(self, pod: str, *, grace_seconds: float = 10) -> None:
        """End the agent, then what is beside it, then the sidecar; the pod stays to be looked at."""
        await self._ender.stop(pod, grace_seconds=grace_seconds)

    async def destroy(self, pod: str) -> None:
        """Remove the pod with its secret and every volume that is no claim."""
        await self._ender.destroy(pod)

    # --- volumes ------------------------------------------------------------------------------------------

    async def volumes(self, labels: Mapping[str, str]) -> list[str]:
        """Names of the claims that carry these labels."""
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        found = await self._client.json(
            "GET",
            self._client.of("persistentvolumeclaims"),
            params={"labelSelector": selector},
        )
        # One that is on its way out waits for its pod's node to let go of it.
        return [
            str(one["metadata"]["name"]) for one in found.get("items") or () if not is_deleted(one)
        ]

    async def remove_volume(self, name: str) -> None:
        """Remove a claim; what becomes of its disk is the storage class's word."""
        with contextlib.suppress(PodNotFound):
            path = f"{self._client.of('persistentvolumeclaims')}/{name}"
            await self._client.json("DELETE", path)

    async def volume_usage(self, name: str) -> tuple[int, int]:
        """Not counted: a disk that outgrows its size ends its pod."""
        return 0, 0

    async def tidy(self) -> None:
        """Remove helper pods that lost their maker."""
        await self._helpers.tidy()

    async def close(self) -> None:
        """End the watch and let go of the connections."""
        await self._watch.close()
        await self._client.close()


def _carries(document: Document, labels: Mapping[str, str]) -> bool:
    found: Mapping[str, Any] = (document.get("metadata") or {}).get("labels") or {}
    return labels.items() <= found.items()


async def _aliases(gateway: str) -> dict[str, str]:
    """The gateway's name and address: a pod asks no DNS. Empty where its base URL holds an address. Raises PodRefused."""
    host = urlsplit(gateway).hostname or ""
    if not host:
        return {}
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return {}
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, None, type=1)
    except OSError as error:
        raise PodRefused(
            f"The gateway's name {host} has no address here: {error}",
            next_step="Pods ask no DNS: name the gateway by an address, or by a name that is known here.",
        ) from error
    return {host: str(found[0][4][0])}
