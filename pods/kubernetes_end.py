"""The end of a pod: each container asked in its turn, the deaf ones ended by the kubelet, the pod kept until it is looked at.

The API has no call that ends a container and keeps its pod. Asking is a signal from inside; what does not listen is ended by the one
thing of a running pod that may be changed to its end: its deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import Any

from pods import kubernetes_exec
from pods.errors import BackendError, PodNotFound, PodRefused
from pods.kubernetes_client import KubeClient
from pods.kubernetes_documents import ANNOTATION_STOPPED, PREPARE, STOP_SECONDS
from pods.kubernetes_state import OVER, is_deleted, pod_state, statuses
from pods.kubernetes_watch import Document, Watch
from pods.spec import SIDECAR, Phase

#: To the kubelet's own end of a pod beyond the containers' grace.
SETTLE_SECONDS = 20.0
#: A node that does not confirm the end for so long is taken to be lost.
DELETE_SECONDS = 45.0
ASK_SECONDS = 5.0
FORGET_SECONDS = 10.0
_ASK = ("sh", "-c", "kill -TERM 1")


class Ender:
    """Ends pods of one cluster."""

    def __init__(self, client: KubeClient, watch: Watch) -> None:
        self._client, self._watch = client, watch

    async def stop(self, pod: str, *, grace_seconds: float) -> None:
        """End all containers, the sidecar last. Nothing to do for a pod that is gone or has ended."""
        document = await self._watch.pod(pod)
        if document is None or _has_ended(document):
            return
        for name in sorted(pod_state(document).containers, key=lambda one: (one == SIDECAR, one)):
            await self._ask(pod, name, grace_seconds)
        document = await self._watch.pod(pod)
        if document is None or _has_ended(document):
            return
        await self._force(pod)

    async def destroy(self, pod: str) -> None:
        """Remove the pod and what it owns, and wait until it is gone.

        A kubelet takes ten seconds more to clear away what has ended (1.20): nobody waits for that.
        """
        try:
            await self._delete(pod, grace=1)
            await self._watch.until(
                pod,
                # Nothing starts any more in a pod that is to be deleted.
                lambda now: now is None or (is_deleted(now) and not _runs(now)),
                seconds=DELETE_SECONDS,
            )
            if await self._watch.pod(pod) is None:
                return
        except PodNotFound:
            await self._forgotten(pod)
            return
        except TimeoutError:
            pass  # its node does not answer: the object goes, whatever became of the processes
        with contextlib.suppress(PodNotFound):
            await self._delete(pod, grace=0)
        await self._forgotten(pod)

    async def _forgotten(self, pod: str) -> None:
        """Wait until the watch, too, has heard that the pod is gone."""
        with contextlib.suppress(TimeoutError):
            await self._watch.until(pod, lambda now: now is None, seconds=FORGET_SECONDS)

    async def _delete(self, pod: str, *, grace: int) -> None:
        params = {"gracePeriodSeconds": grace, "propagationPolicy": "Background"}
        await self._client.json("DELETE", f"{self._client.pods}/{pod}", params=params)

    async def _ask(self, pod: str, name: str, grace_seconds: float) -> None:
        """Have a container's first process asked to end, and give it its time."""
        document = await self._watch.pod(pod)
        place = running_place(document, name) if document is not None else ""
        if not place:
            return
        with contextlib.suppress(BackendError, OSError, TimeoutError):
            async with asyncio.timeout(ASK_SECONDS):
                session = await kubernetes_exec.start(
                    self._client, pod, place, _ASK, tty=True, size=None, env=None
                )
                try:
                    while await session.read():
                        pass
                finally:
                    await session.close()
        with contextlib.suppress(TimeoutError):
            await self._watch.until(
                pod,
                lambda now: now is None or not running_place(now, name),
                seconds=max(1.0, grace_seconds),
            )

    async def _force(self, pod: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        change: dict[str, Any] = {
            "metadata": {"annotations": {ANNOTATION_STOPPED: now}},
            "spec": {"activeDeadlineSeconds": 1},
        }
        # PodRefused: it is set already, by an earlier try.
        with contextlib.suppress(PodNotFound, PodRefused):
            await self._client.json(
                "PATCH",
                f"{self._client.pods}/{pod}",
                body=change,
                content_type="application/merge-patch+json",
            )
        with contextlib.suppress(TimeoutError):
            await self._watch.until(
                pod,
                lambda found: found is None or _has_ended(found),
                seconds=STOP_SECONDS + SETTLE_SECONDS,
            )


def _runs(document: Document) -> bool:
    """Whether a container of the pod runs now. One that the cluster has ended as a whole is left as it was last seen (1.20)."""
    if (document.get("status") or {}).get("phase") in OVER:
        return False
    return any("running" in (one.get("state") or {}) for one in statuses(document).values())


def _has_ended(document: Document) -> bool:
    """Whether nothing of the pod runs, nor will."""
    if _runs(document):
        return False
    if (document.get("status") or {}).get("phase") in OVER:
        return True
    # The pod's own phase comes a moment after its containers'.
    phases = [one.phase for one in pod_state(document).containers.values()]
    return all(phase is Phase.EXITED for phase in phases)


def running_place(document: Document, name: str) -> str:
    """The container that runs now for this name: itself, or for the sidecar its beginning; empty when neither does."""
    found = statuses(document)
    names: tuple[str, ...] = (name, PREPARE) if name == SIDECAR else (name,)
    for one in names:
        if "running" in ((found.get(one) or {}).get("state") or {}):
            return one
    return ""
