"""Waiting for a pod's beginning: what the kubelet does becomes progress, and what will not end well becomes an error soon."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pods.errors import (
    BackendError,
    ImageMissing,
    PodNotFound,
    PullRefused,
    QuotaExceeded,
    StartFailed,
)
from pods.kubernetes_client import KubeClient
from pods.kubernetes_state import OVER, image_code, image_of, is_final, pod_state, statuses
from pods.kubernetes_watch import Document, Watch
from pods.spec import Phase, PodState, PullProgress, Trouble

#: From the pod's place on a node to its first container's start, images not counted.
START_SECONDS = 90.0
#: A scheduler may find room as soon as a node was added or a pod has ended; nobody waits longer than this without a word.
UNSCHEDULABLE_SECONDS = 30.0
#: A registry that fails in passing is tried again by the kubelet (after 10 s, 20 s, …).
PULL_RETRY_SECONDS = 45.0
PULL_SECONDS = 1200.0
#: Quiet for so long, the kubelet is asked what it does; and again after as long.
QUIET_SECONDS = 1.5
ASK_SECONDS = 3.0

Tell = Callable[[PullProgress], None]


class Starter:
    """Waits for containers of one cluster."""

    def __init__(self, client: KubeClient, watch: Watch) -> None:
        self._client, self._watch = client, watch

    async def wait(self, pod: str, container: str, tell: Tell | None = None) -> PodState:
        """Wait until a container has begun (it may have ended, too). Raises PodNotFound and what `refusal` finds."""
        begun = time.monotonic()
        said: set[str] = set()
        asked = begun - ASK_SECONDS
        pulling = False
        while True:
            document = await self._next(pod, container)
            if document is None:
                raise PodNotFound(f"The pod {pod} vanished while it was being started.")
            state = pod_state(document)
            found = state.containers.get(container)
            if found is None:
                raise PodNotFound(f"There is no container {container} of the pod {pod}.")
            if found.phase in (Phase.RUNNING, Phase.EXITED) and not state.troubles:
                return state
            waited = time.monotonic() - begun
            refused = refusal(document, state, container, waited=waited)
            if refused is not None:
                raise refused
            if found.phase in (Phase.RUNNING, Phase.EXITED):
                return state
            if waited > (PULL_SECONDS if pulling else START_SECONDS):
                raise StartFailed(
                    f"The container `{container}` did not start within {waited:.0f} s.",
                    next_step=f"`kubectl describe pod {pod}` says what its node waits for.",
                )
            if waited > QUIET_SECONDS and time.monotonic() - asked > ASK_SECONDS:
                asked = time.monotonic()
                pulling = await self._tell(document, said, tell)

    async def _next(self, pod: str, container: str) -> Document | None:
        """The pod when its container has begun, or something is wrong, or nothing has changed for a moment."""

        def is_news(document: Document | None) -> bool:
            if document is None:
                return True
            state = pod_state(document)
            found = state.containers.get(container)
            return found is None or found.phase in (Phase.RUNNING, Phase.EXITED)

        try:
            return await self._watch.until(pod, is_news, seconds=0.5)
        except TimeoutError:
            return await self._watch.pod(pod)

    async def _tell(self, document: Document, said: set[str], tell: Tell | None) -> bool:
        """Pass on what the kubelet and the scheduler say; whether an image is being pulled now."""
        pulling = False
        for event in await events(self._client, document):
            reason = event.get("reason")
            message = " ".join(str(event.get("message", "")).split())[:300]
            pulling = reason == "Pulling" or (pulling and reason not in ("Pulled", "Failed"))
            if message and message not in said:
                said.add(message)
                if tell is not None:
                    tell(PullProgress(message))
        return pulling


async def events(client: KubeClient, document: Document) -> list[dict[str, Any]]:
    """What the cluster's parts said of a pod, the oldest first; empty where we may not read it."""
    uid = document["metadata"]["uid"]
    params = {"fieldSelector": f"involvedObject.uid={uid}"}
    try:
        found = await client.json("GET", client.of("events"), params=params)
    except BackendError:
        return []
    items: list[dict[str, Any]] = found.get("items") or []
    return sorted(items, key=lambda one: str(one.get("lastTimestamp") or one.get("eventTime")))


def refusal(
    document: Document, state: PodState, container: str, *, waited: float
) -> BackendError | None:
    """Why waiting for a container is of no use; `waited` seconds so far. None: it may still come."""
    for trouble in state.troubles:
        error = _error(document, trouble, waited)
        if error is not None:
            return error
    found = state.containers[container]
    if found.phase is Phase.CREATED and (document.get("status") or {}).get("phase") in OVER:
        return StartFailed(f"The pod ended before its container `{container}` could start.")
    # A trouble that may pass is an error of its container, too.
    if not state.troubles and found.phase is Phase.CREATED and found.error:
        return StartFailed(f"The container `{container}` did not start: {found.error}")
    return None


def _error(document: Document, trouble: Trouble, waited: float) -> BackendError | None:
    if trouble.code in ("image-not-found", "pull-refused"):
        return _image_error(document, trouble, waited)
    if trouble.code == "quota-exceeded":
        if "No node" in trouble.message and waited < UNSCHEDULABLE_SECONDS:
            return None
        return QuotaExceeded(
            trouble.message,
            next_step="Wait for room, lower the project's limits, or add a node that its placement allows.",
        )
    if trouble.code == "start-failed":
        # A secret or a claim may come a moment later.
        return (
            StartFailed(trouble.message) if waited > 10 or "Config" not in trouble.message else None
        )
    return StartFailed(trouble.message)


def _image_error(document: Document, trouble: Trouble, waited: float) -> BackendError | None:
    for name, found in statuses(document).items():
        waiting = (found.get("state") or {}).get("waiting") or {}
        reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
        if not reason or image_of(document, name) not in trouble.message:
            continue
        if not is_final(reason, message) and waited < PULL_RETRY_SECONDS:
            return None
        if image_code(reason, message) == "pull-refused":
            return PullRefused(
                trouble.message,
                next_step="Check the image's name and the project's image pull secrets for its registry.",
            )
        return ImageMissing(
            trouble.message,
            next_step="Check the image's name, and that the cluster's nodes reach its registry.",
        )
    return None
