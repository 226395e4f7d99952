"""A pod as a diagnosis sees it: the same whether it lives or was kept when it went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pods.findings import Finding, from_json
from pods.spec import ContainerState, PodState, Trouble

#: Lines of each container's log that are kept and shown, and characters of a line.
KEPT_LINES = 50
KEPT_LINE_CHARACTERS = 500


@dataclass(frozen=True)
class ContainerReport:
    """A container as a diagnosis sees it, alive or kept. `state` is a word of `Phase`, or `gone`; `logs` are its last lines."""

    name: str
    state: str
    image: str = ""
    exit_code: int | None = None
    health: str = ""
    health_said: str = ""
    oom_killed: bool = False
    error: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    logs: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For API, page, and what is kept."""
        return {
            "name": self.name,
            "state": self.state,
            "exit_code": self.exit_code,
            "oom_killed": self.oom_killed,
            "health": self.health,
            "health_said": self.health_said,
            "error": self.error,
            "image": self.image,
            "started_at": _stamp(self.started_at),
            "finished_at": _stamp(self.finished_at),
            "logs": list(self.logs),
        }


@dataclass(frozen=True)
class PodReport:
    """A pod as a diagnosis sees it. `findings` are those that were made when it went; None: it is to be looked at now.

    `troubles` are the backend's own words about it.
    """

    name: str
    backend: str
    created_at: datetime | None
    containers: tuple[ContainerReport, ...] = ()
    warnings: tuple[str, ...] = ()
    findings: tuple[Finding, ...] | None = None
    troubles: tuple[Trouble, ...] = ()

    def container(self, name: str) -> ContainerReport | None:
        """The container of this name."""
        return next((one for one in self.containers if one.name == name), None)

    def as_json(self) -> dict[str, Any]:
        """What is kept of a pod when it goes."""
        return {
            "name": self.name,
            "backend": self.backend,
            "created_at": _stamp(self.created_at),
            "containers": [one.as_json() for one in self.containers],
            "warnings": list(self.warnings),
            "findings": [one.as_json() for one in self.findings or ()],
        }


def report(
    pod: PodState, *, backend: str, lines: Mapping[str, Sequence[str]] | None = None
) -> PodReport:
    """A living pod's report. `lines` are the last lines of its containers by name."""
    return PodReport(
        name=pod.name,
        backend=backend,
        created_at=pod.created_at,
        containers=tuple(
            container_report(state, (lines or {}).get(name, ()))
            for name, state in sorted(pod.containers.items())
        ),
        warnings=pod.warnings,
        troubles=pod.troubles,
    )


def container_report(state: ContainerState, lines: Sequence[str] = ()) -> ContainerReport:
    """A living container's report."""
    return ContainerReport(
        name=state.name,
        state=str(state.phase),
        image=state.image,
        exit_code=state.exit_code,
        health=state.health,
        health_said=state.health_said,
        oom_killed=state.oom_killed,
        error=state.error[:500],
        started_at=state.started_at,
        finished_at=state.finished_at,
        logs=tuple(lines),
    )


def from_kept(kept: Mapping[str, Any]) -> PodReport:
    """The report of a pod that is gone, out of what `PodReport.as_json` left of it."""
    known = kept.get("findings")
    return PodReport(
        name=str(kept.get("name", "")),
        backend=str(kept.get("backend", "")),
        created_at=_moment(kept.get("created_at")),
        containers=tuple(
            ContainerReport(
                name=str(one.get("name", "")),
                state=str(one.get("state", "")),
                image=str(one.get("image", "")),
                exit_code=one.get("exit_code"),
                health=str(one.get("health", "")),
                health_said=str(one.get("health_said", "")),
                oom_killed=bool(one.get("oom_killed")),
                error=str(one.get("error", "")),
                started_at=_moment(one.get("started_at")),
                finished_at=_moment(one.get("finished_at")),
                logs=tuple(str(line) for line in one.get("logs", ())),
            )
            for one in kept.get("containers", ())
        ),
        warnings=tuple(str(text) for text in kept.get("warnings", ())),
        # What was kept before there were findings is looked at now.
        findings=None
        if known is None
        else tuple(found for one in known if (found := from_json(one))),
    )


def _stamp(value: datetime | None) -> str | None:
    return value.isoformat() if value else None


def _moment(value: object) -> datetime | None:
    return datetime.fromisoformat(value) if isinstance(value, str) and value else None
