"""From a pod of the API server's to `PodState`: pure functions on raw JSON, which may lack anything.

An init container is shown as the container whose beginning it is: while `prepare` runs, the sidecar runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pods.kubernetes_documents import (
    ANNOTATION_STOPPED,
    HEALTH_PERIOD_SECONDS,
    HEALTH_RETRIES,
    HOME,
    LABEL_VOLUME,
    PREPARE,
)
from pods.spec import AGENT, LABEL_PREFIX, SIDECAR, ContainerState, Phase, PodState, Trouble

NO_PROCESS_LIMIT = "On a cluster the number of an agent's processes is bounded by the node (its kubelet's podPidsLimit), not by the project."

#: Reasons of a container that waits and will not start by waiting.
IMAGE_REASONS = frozenset(
    {
        *("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"),
        *("ImageInspectError", "RegistryUnavailable", "SignatureValidationFailed"),
    }
)
CREATE_REASONS = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
)
#: Reasons of a container that ended without having run (containerd's, docker's).
NEVER_RAN = frozenset({"StartError", "ContainerCannotRun", "CreateContainerError"})
#: Exit code of what was killed (128 + SIGKILL).
KILLED = 137
OVER = frozenset({"Failed", "Succeeded"})
#: A container's first checks do not count.
HEALTH_START = timedelta(seconds=HEALTH_PERIOD_SECONDS * HEALTH_RETRIES + 5)
_REFUSED = ("unauthorized", "denied", "forbidden", "authentication", "insufficient_scope", "403")
_MISSING = ("not found", "manifest unknown", "no such host", "no such image", "notfound", "404")
_DISK = ("ephemeral", "emptydir", "disk", "inode")


def moment(text: object) -> datetime | None:
    """A time of the API server's; None for none, and for the epoch that runtimes write for "never"."""
    if not isinstance(text, str) or not text or text.startswith(("0001-", "1970-")):
        return None
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC)
    except ValueError:
        return None


def pod_state(
    document: Mapping[str, Any],
    *,
    now: datetime | None = None,
    said: Mapping[str, str] | None = None,
) -> PodState:
    """A pod. `said` is what the last health check of a container printed, where that is known."""
    meta, spec = document.get("metadata") or {}, document.get("spec") or {}
    status = document.get("status") or {}
    now = now or datetime.now(UTC)
    labels = meta.get("labels") or {}
    troubles = tuple(_troubles(document))
    containers = {
        one["name"]: _shown(document, one, now, (said or {}).get(one["name"], ""))
        for one in spec.get("containers") or []
    }
    return PodState(
        name=str(meta.get("name", "")),
        id=str(meta.get("uid", "")),
        labels={
            k: v for k, v in labels.items() if k.startswith(LABEL_PREFIX) and k != LABEL_VOLUME
        },
        created_at=moment(meta.get("creationTimestamp")),
        containers=containers,
        warnings=(NO_PROCESS_LIMIT,),
        address=str(status.get("podIP") or ""),
        node=str(spec.get("nodeName") or ""),
        troubles=troubles,
    )


def statuses(document: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The status of each container by name, init containers among them."""
    status = document.get("status") or {}
    both = (
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    )
    return {str(one.get("name", "")): one for one in both}


def is_deleted(document: Mapping[str, Any]) -> bool:
    """Whether the pod is on its way out."""
    return bool((document.get("metadata") or {}).get("deletionTimestamp"))


def is_stopped(document: Mapping[str, Any]) -> bool:
    """Whether it was we who had the cluster end the pod."""
    return ANNOTATION_STOPPED in ((document.get("metadata") or {}).get("annotations") or {})


# --- containers ---------------------------------------------------------------------------------------------


def _shown(
    document: Mapping[str, Any], one: Mapping[str, Any], now: datetime, said: str
) -> ContainerState:
    """A container as it is shown: its own state, or that of its init container while that is at work or has failed."""
    name = str(one["name"])
    found = statuses(document)
    own = _state(name, one, found.get(name) or {}, now, said)
    if own.phase is Phase.CREATED and not own.error:
        if name == SIDECAR:
            own = _beginning(own, _state(PREPARE, one, found.get(PREPARE) or {}, now, ""))
        elif name == AGENT:
            own = _filling(own, _state(HOME, one, found.get(HOME) or {}, now, ""))
    status = document.get("status") or {}
    if status.get("phase") in OVER and own.phase is Phase.RUNNING:
        # An ended pod's containers are often left as they were last seen. What we ended so did not listen.
        code = KILLED if is_stopped(document) else None
        return replace(own, phase=Phase.EXITED, exit_code=code)
    if status.get("reason") == "NodeLost" and own.phase is Phase.RUNNING:
        return replace(own, phase=Phase.UNKNOWN)
    return own


def _beginning(own: ContainerState, prepare: ContainerState) -> ContainerState:
    """The sidecar before it starts: what `prepare` does. Between its good end and the sidecar's start nothing has ended."""
    if prepare.phase is Phase.EXITED and prepare.exit_code == 0:
        return replace(
            prepare,
            name=own.name,
            phase=Phase.RUNNING,
            exit_code=None,
            finished_at=None,
            health=own.health,
        )
    return replace(prepare, name=own.name, health=own.health)


def _filling(own: ContainerState, home: ContainerState) -> ContainerState:
    """The agent before it starts: not yet, unless its home can't be filled."""
    if home.phase is Phase.EXITED and home.exit_code != 0:
        said = home.error or f"its home could not be made (exit code {home.exit_code})"
        return replace(own, error=said)
    return replace(own, error=home.error)


def _state(
    name: str, one: Mapping[str, Any], status: Mapping[str, Any], now: datetime, said: str
) -> ContainerState:
    state = status.get("state") or {}
    made = ContainerState(
        name=name,
        id=str(status.get("containerID") or ""),
        phase=Phase.CREATED,
        image=str(one.get("image", "")),
        health="starting" if one.get("readinessProbe") else "",
    )
    if waiting := state.get("waiting"):
        return _waiting(made, waiting, status)
    if running := state.get("running"):
        started = moment(running.get("startedAt"))
        made = replace(made, phase=Phase.RUNNING, started_at=started, created_at=started)
        if one.get("readinessProbe"):
            health = _health(bool(status.get("ready")), started, now)
            made = replace(made, health=health, health_said=said if health == "unhealthy" else "")
        return made
    if ended := state.get("terminated"):
        return _ended(made, ended)
    return made


def _waiting(
    made: ContainerState, waiting: Mapping[str, Any], status: Mapping[str, Any]
) -> ContainerState:
    reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
    if reason == "CrashLoopBackOff":
        last = (status.get("lastState") or {}).get("terminated") or {}
        return replace(_ended(made, last), error=message[:1000])
    if reason in IMAGE_REASONS or reason in CREATE_REASONS:
        return replace(made, error=f"{reason}: {message}"[:1000])
    return made


def _ended(made: ContainerState, ended: Mapping[str, Any]) -> ContainerState:
    reason, message = str(ended.get("reason") or ""), str(ended.get("message") or "")
    if reason in NEVER_RAN:
        return replace(made, error=(message or reason)[:1000])
    started, finished = moment(ended.get("startedAt")), moment(ended.get("finishedAt"))
    code = ended.get("exitCode")
    return replace(
        made,
        phase=Phase.EXITED,
        exit_code=int(code) if code is not None else None,
        oom_killed=reason == "OOMKilled",
        error=message[:1000],
        created_at=started,
        started_at=started,
        finished_at=finished,
    )


def _health(is_ready: bool, started: datetime | None, now: datetime) -> str:
    if is_ready:
        return "healthy"
    return "starting" if started is None or now - started < HEALTH_START else "unhealthy"


# --- what is wrong ------------------------------------------------------------------------------------------


def _troubles(document: Mapping[str, Any]) -> Iterator[Trouble]:
    """What the cluster says is wrong, as codes of findings."""
    status = document.get("status") or {}
    pod = _of_pod(document, str(status.get("reason") or ""), str(status.get("message") or ""))
    if pod is not None:
        yield pod
    for one in status.get("conditions") or ():
        if one.get("type") == "PodScheduled" and one.get("reason") == "Unschedulable":
            yield Trouble(
                "quota-exceeded", f"No node of the cluster takes the pod: {one.get('message', '')}"
            )
    for name, found in statuses(document).items():
        waiting = (found.get("state") or {}).get("waiting") or {}
        trouble = _of_waiting(document, name, waiting)
        if trouble is not None:
            yield trouble


def _of_pod(document: Mapping[str, Any], reason: str, message: str) -> Trouble | None:
    """Why the pod as a whole ended or can't go on."""
    node = str((document.get("spec") or {}).get("nodeName") or "its node")
    if reason == "Evicted":
        if any(word in message.lower() for word in _DISK):
            return Trouble("disk-full", f"The cluster ended the pod: {message}", AGENT)
        return Trouble("pod-lost", f"The node {node} evicted the pod: {message}")
    if reason == "DeadlineExceeded":
        if is_stopped(document):
            return None
        return Trouble("timed-out", "The cluster ended the pod at its deadline.")
    if reason == "NodeLost":
        return Trouble("pod-lost", f"The node {node} does not answer: {message}")
    if reason.startswith("OutOf") or reason == "UnexpectedAdmissionError":
        return Trouble("quota-exceeded", f"The node {node} has no room for the pod: {message}")
    if reason and (document.get("status") or {}).get("phase") == "Failed":
        # Shutdown, Preempting, NodeAffinity, Terminated …: nothing that the run did.
        return Trouble("pod-lost", f"The cluster ended the pod ({reason}): {message}")
    return None


def _of_waiting(
    document: Mapping[str, Any], name: str, waiting: Mapping[str, Any]
) -> Trouble | None:
    reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
    container = {HOME: AGENT, PREPARE: SIDECAR}.get(name, name)
    if reason in IMAGE_REASONS:
        words = f"The image {image_of(document, name)} could not be had ({reason}): {message}"
        return Trouble(image_code(reason, message), words, container)
    if reason in CREATE_REASONS:
        words = f"The container `{container}` did not start ({reason}): {message}"
        return Trouble("start-failed", words, container)
    if reason == "CrashLoopBackOff":
        words = f"The container `{container}` ends again and again: {message}"
        return Trouble("container-exited", words, container)
    return None


def image_of(document: Mapping[str, Any], name: str) -> str:
    """The image that a container of the pod asks for."""
    spec = document.get("spec") or {}
    both = (*(spec.get("initContainers") or ()), *(spec.get("containers") or ()))
    return next((str(one.get("image", "")) for one in both if one.get("name") == name), "")


def image_code(reason: str, message: str) -> str:
    """Whether an image is missing or refused, by the kubelet's reason and the registry's words."""
    low = message.lower()
    if reason == "InvalidImageName" or any(word in low for word in _REFUSED):
        return "pull-refused"
    return "image-not-found"


def is_final(reason: str, message: str) -> bool:
    """Whether trying to pull again is of no use."""
    low = message.lower()
    if reason in ("InvalidImageName", "ErrImageNeverPull"):
        return True
    # A registry that is said to be on the node itself is not going to be there later.
    is_nowhere = "connection refused" in low and ("localhost" in low or "127.0.0.1" in low)
    return is_nowhere or any(word in low for word in (*_REFUSED, *_MISSING))
