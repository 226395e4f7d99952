"""From libpod's inspect documents to `PodState`: pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pods.spec import LABEL_PREFIX, ContainerState, Phase, PodState

PHASES = {
    "created": Phase.CREATED,
    "configured": Phase.CREATED,
    "initialized": Phase.CREATED,
    "running": Phase.RUNNING,
    "paused": Phase.RUNNING,
    "stopping": Phase.RUNNING,
    "exited": Phase.EXITED,
    "stopped": Phase.EXITED,
    "removing": Phase.EXITED,
}


def moment(text: str | None) -> datetime | None:
    """A time of podman's (nine digits of a second); None for its zero time."""
    if not text or text.startswith("0001-"):
        return None
    head, dot, rest = text.partition(".")
    if dot:
        digits = "".join(c for c in rest[:9] if c.isdigit())
        zone = rest[len(digits) :] or "+00:00"
        text = f"{head}.{digits[:6].ljust(6, '0')}{zone}"
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC)
    except ValueError:
        return None


def container_state(document: Mapping[str, Any], *, pod: str) -> ContainerState:
    """One container from its inspect document."""
    state = document.get("State") or {}
    phase = PHASES.get(str(state.get("Status", "")).lower(), Phase.UNKNOWN)
    ended = phase is Phase.EXITED
    started = moment(state.get("StartedAt"))
    finished = moment(state.get("FinishedAt")) if ended else None
    if started is not None and finished is not None:
        # podman stamps the start when its runtime returns: a short program has ended by then.
        started = min(started, finished)
    health = state.get("Health") or state.get("Healthcheck") or {}
    return ContainerState(
        name=str(document.get("Name", "")).removeprefix(f"{pod}-"),
        id=str(document.get("Id", "")),
        phase=phase,
        image=str(document.get("ImageName", "")),
        exit_code=int(state.get("ExitCode", 0)) if ended else None,
        oom_killed=bool(state.get("OOMKilled")),
        health=str(health.get("Status", "")),
        health_said=_last_output(health),
        error=str(state.get("Error", ""))[:1000],
        created_at=moment(document.get("Created")),
        started_at=started,
        finished_at=finished,
    )


def _last_output(health: Mapping[str, Any]) -> str:
    """What the last health check printed."""
    checks = health.get("Log") or [{}]
    return str(checks[-1].get("Output", ""))[:500]


def pod_state(
    document: Mapping[str, Any],
    containers: Sequence[Mapping[str, Any]],
    *,
    warnings: tuple[str, ...],
) -> PodState:
    """A pod from its inspect document and those of its containers, without the infra container."""
    name = str(document.get("Name", ""))
    states = [container_state(container, pod=name) for container in containers]
    labels = document.get("Labels") or {}
    return PodState(
        name=name,
        id=str(document.get("Id", "")),
        labels={k: v for k, v in labels.items() if k.startswith(LABEL_PREFIX)},
        created_at=moment(document.get("Created")),
        containers={state.name: state for state in states if state.name != "infra"},
        warnings=warnings,
    )
