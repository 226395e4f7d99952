"""Keeps a relay in a cluster and one port-forward to it, for as long as it runs.

A round: the relay's pod is there (made when it is not, made anew when it is of no use), a forward is opened and greeted, and the
streams of sidecars are carried until it breaks. Then the next round, after a pause that grows while nothing holds. What it found is
in `state`, in words.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pods import kubernetes_relay_documents as documents
from pods.errors import BackendError, BackendUnavailable, PodNotFound
from pods.kubernetes_client import Conflict, KubeClient
from pods.kubernetes_forward import open_forward
from pods.sidecar import relay_greeting
from pods.sidecar.mux import Mux, PipeBroken, Stream

#: This process, to the relay: several of one control plane may serve the gateway.
PROCESS = secrets.token_hex(8)
LEAST_PAUSE_SECONDS = 0.2
MOST_PAUSE_SECONDS = 10.0
#: A forward that held this long was well: the next pause is the least again.
HELD_SECONDS = 10.0
LOOK_SECONDS = 0.5
#: A relay's pod has this long to run, image pull included.
RUN_SECONDS = 180.0
#: A pod that runs, as its node said last, and that no forward has reached for so long is made anew: its node may be gone.
USELESS_SECONDS = 60.0
GONE_SECONDS = 30.0
#: The word of a kubelet for a container that will not start by itself, and what to do.
STEPS = {
    "ErrImagePull": "The cluster must be able to pull the sidecar's image: DEVAIPOD_SIDECAR_IMAGE names it.",
    "ImagePullBackOff": "The cluster must be able to pull the sidecar's image: DEVAIPOD_SIDECAR_IMAGE names it.",
    "ErrImageNeverPull": "Load the sidecar's image into the nodes: DEVAIPOD_SIDECAR_IMAGE names it.",
    "CrashLoopBackOff": "Read its log: `kubectl logs {pod}`.",
    "CreateContainerConfigError": "Read its events: `kubectl describe pod {pod}`.",
    "Unschedulable": "The cluster has no node with room for it: `kubectl describe pod {pod}` says why.",
}


@dataclass(frozen=True)
class RelayState:
    """How the forward is. `address` is the relay's own, empty while it has none; `opened` counts the forwards so far."""

    connected: bool = False
    address: str = ""
    pod_uid: str = ""
    says: str = "The relay has not been looked at yet."
    next_step: str = ""
    since: datetime | None = None
    opened: int = 0
    streams: int = 0


class RelayNotRunning(BackendError):
    """The relay's pod does not come up."""

    code = "relay-not-running"


class Relay:
    """One cluster's relay.

    `accept` serves each stream. `gateway` is what sidecars dial instead of the relay's own address: a Service before it. `changed` is
    told of each change of `state` that somebody could see.
    """

    def __init__(
        self,
        client: KubeClient,
        *,
        image: str,
        token: str,
        accept: Callable[[Stream], Awaitable[None]],
        gateway: str = "",
        changed: Callable[[RelayState], Awaitable[None]] | None = None,
    ) -> None:
        self._client = client
        self._image = image
        self._token = token
        self._accept = accept
        self._gateway = gateway
        self._published = ""
        self._changed = changed
        self._mux: Mux | None = None
        self._state = RelayState()
        self._useless_since: float | None = None
        self.name = documents.relay_name(client.cluster.installation)

    @property
    def state(self) -> RelayState:
        """What was found last."""
        return replace(self._state, streams=self._mux.streams if self._mux else 0)

    async def run(self) -> None:
        """Keep it until cancelled; the pod stays. Raises nothing else."""
        loop = asyncio.get_running_loop()
        pause = LEAST_PAUSE_SECONDS
        while True:
            began = loop.time()
            try:
                await self._round()
            except Exception as error:
                # Also what nobody thought of: a keeper that ended would be a target that waits for ever.
                if self._state.connected and loop.time() - began > HELD_SECONDS:
                    pause = LEAST_PAUSE_SECONDS
                await self._tell(error)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            pause = min(pause * 2, MOST_PAUSE_SECONDS)

    def renew(self) -> None:
        """Close the forward, which opens it again; nothing when there is none."""
        if self._mux is not None:
            self._mux.close()

    async def remove(self) -> None:
        """Take pod, Secret and ConfigMap away; safe to repeat."""
        await self._delete()
        for kind in ("secrets", "configmaps"):
            await self._gone_is_well("DELETE", f"{self._client.of(kind)}/{self.name}")

    # --- one round ----------------------------------------------------------------------------------------

    async def _round(self) -> None:
        pod = await self._running()
        address, uid = pod["status"]["podIP"], pod["metadata"]["uid"]
        pipe = await self._reach(pod)
        try:
            first = await relay_greeting.greet(pipe, self._token, PROCESS)
        except BaseException as error:
            pipe.close()
            if isinstance(error, relay_greeting.GreetingRefused):
                # Of an older version, or of another token: there is no other way to tell it.
                await self._delete()
                raise PipeBroken(f"{error}: it is made anew") from error
            self._is_useless(error)
            raise
        self._useless_since = None
        await self._publish(self._gateway or documents.url(address))
        mux = self._mux = Mux(pipe, accept=self._accept, first=first)
        try:
            await self._become(
                connected=True,
                address=address,
                pod_uid=uid,
                says=f"The forward to {self.name} ({address}) is open.",
                next_step="",
                opened=self._state.opened + 1,
            )
            await mux.run()
        finally:
            self._mux = None
            mux.close()

    async def _reach(self, pod: Mapping[str, Any]) -> Any:
        try:
            return await open_forward(self._client, self.name, documents.CONTROL_PORT)
        except BackendError as error:
            self._is_useless(error)
            if await self._is_lost():
                await self._delete()
            raise

    def _is_useless(self, error: BaseException) -> None:
        if isinstance(error, (BackendError, OSError, TimeoutError)) and self._useless_since is None:
            self._useless_since = asyncio.get_running_loop().time()

    async def _is_lost(self) -> bool:
        """Whether the pod was out of reach for long while the API server answers."""
        since = self._useless_since
        if since is None or asyncio.get_running_loop().time() - since < USELESS_SECONDS:
            return False
        self._useless_since = None
        return await self._look() is not None

    async def _running(self) -> Mapping[str, Any]:
        """The relay's pod when it runs and has an address. Raises RelayNotRunning with what keeps it."""
        deadline = asyncio.get_running_loop().time() + RUN_SECONDS
        while True:
            pod = await self._look()
            if pod is not None and self._is_of_no_use(pod):
                await self._delete()
                pod = None
            if pod is None:
                await self._make()
            elif _runs(pod):
                return pod
            else:
                await self._wait_for(pod, deadline)
            await asyncio.sleep(LOOK_SECONDS)

    async def _wait_for(self, pod: Mapping[str, Any], deadline: float) -> None:
        word, said = _trouble(pod)
        step = STEPS.get(word, "").format(pod=self.name)
        if step:
            await self._become(
                connected=False,
                says=f"The relay's pod {self.name} does not start: {word} {said}".strip()[:400]
                + ".",
                next_step=step,
            )
        if asyncio.get_running_loop().time() > deadline:
            raise RelayNotRunning(
                f"The relay's pod {self.name} did not run within {RUN_SECONDS:.0f} seconds ({word or 'no reason'}).",
                next_step=step or f"`kubectl describe pod {self.name}` says why.",
            )

    def _is_of_no_use(self, pod: Mapping[str, Any]) -> bool:
        meta, phase = pod["metadata"], pod.get("status", {}).get("phase")
        digest = (meta.get("annotations") or {}).get(documents.ANNOTATION_TOKEN)
        return (
            phase in ("Failed", "Succeeded")
            or "deletionTimestamp" in meta
            or digest != documents.token_digest(self._token)
        )

    # --- the API server -----------------------------------------------------------------------------------

    async def _look(self) -> Mapping[str, Any] | None:
        try:
            found: Mapping[str, Any] = await self._client.json(
                "GET", f"{self._client.pods}/{self.name}"
            )
        except PodNotFound:
            return None
        return found

    async def _make(self) -> None:
        installation = self._client.cluster.installation
        await self._put("secrets", documents.secret(installation, self._token))
        pod = documents.pod(installation, image=self._image, token=self._token)
        # One that is there is another control plane's of this installation, or on its way out: the next look tells.
        with contextlib.suppress(Conflict):
            await self._client.json("POST", self._client.pods, body=pod)

    async def _publish(self, base: str) -> None:
        """Tell the pods that are there already where the gateway is."""
        if base == self._published:
            return
        await self._put(
            "configmaps", documents.address_map(self._client.cluster.installation, base)
        )
        self._published = base

    async def _put(self, kind: str, document: Mapping[str, Any]) -> None:
        """Make an object, or give the one that is there what this one holds."""
        path = self._client.of(kind)
        try:
            await self._client.json("POST", path, body=document)
        except Conflict:
            held = {key: document[key] for key in ("data", "stringData") if key in document}
            await self._client.json(
                "PATCH",
                f"{path}/{self.name}",
                body=held,
                content_type="application/merge-patch+json",
            )

    async def _delete(self) -> None:
        """Delete the pod and wait until it is gone; of a node that is lost by force."""
        path = f"{self._client.pods}/{self.name}"
        await self._gone_is_well("DELETE", path)
        end = asyncio.get_running_loop().time() + GONE_SECONDS
        while await self._look() is not None:
            if asyncio.get_running_loop().time() > end:
                await self._gone_is_well("DELETE", path, body={"gracePeriodSeconds": 0})
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def _gone_is_well(self, method: str, path: str, body: Any = None) -> None:
        with contextlib.suppress(PodNotFound):
            await self._client.json(method, path, body=body)

    # --- telling ------------------------------------------------------------------------------------------

    async def _tell(self, error: Exception) -> None:
        said = getattr(error, "message", "") or str(error) or type(error).__name__
        if isinstance(error, BackendUnavailable | RelayNotRunning):
            says, step = said, error.next_step
        else:
            says = f"The forward to {self.name} broke: {said}."
            step = "It is opened again by itself; sidecars keep what they have to say meanwhile."
        await self._become(connected=False, says=says[:400], next_step=step)

    async def _become(self, **values: Any) -> None:
        state = replace(self._state, **values)
        if state == self._state:
            return
        if state.connected != self._state.connected or self._state.since is None:
            state = replace(state, since=datetime.now(UTC))
        self._state = state
        if self._changed is not None:
            await self._changed(state)


def _runs(pod: Mapping[str, Any]) -> bool:
    status = pod.get("status", {})
    statuses = status.get("containerStatuses") or []
    return bool(status.get("podIP")) and any("running" in one.get("state", {}) for one in statuses)


def _trouble(pod: Mapping[str, Any]) -> tuple[str, str]:
    """(word, words) for why a pod does not run; empty while it is on its way."""
    status = pod.get("status", {})
    for one in status.get("containerStatuses") or []:
        waiting = one.get("state", {}).get("waiting") or {}
        if waiting.get("reason") in STEPS:
            return waiting["reason"], str(waiting.get("message", ""))
    for condition in status.get("conditions") or []:
        if condition.get("reason") == "Unschedulable":
            return "Unschedulable", str(condition.get("message", ""))
    return "", ""
