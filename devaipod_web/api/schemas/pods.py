"""Schemas of pods (attempts of runs) and their logs."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from ninja import Schema

from devaipod_web.api.schemas.common import doc
from devaipod_web.runs import logs
from devaipod_web.runs.models import RunPod

WHEN = "2026-11-24T20:14:03.512Z"


class PodOut(Schema):
    """One attempt of a run."""

    name: str = doc("The pod's name, a DNS-1123 label.", "devaipod-payments-b7kq2mx4dz-1")
    run: str = doc("The key of its run.", "b7kq2mx4dz")
    project: str = doc("The short name of its project.", "payments")
    attempt: int = doc("Which attempt of the run it is, from 1.", 1)
    backend: str = doc("What made it: podman or kubernetes.", "podman")
    target: str | None = doc("The name of its target; null once that is removed.", "podman")
    image: str = doc("The image of its agent.", "localhost/devaipod-agent:dev")
    steps: dict[str, Any] = doc(
        "The steps of its start that are done, with the time of each.", {"pod": WHEN}
    )
    created_at: datetime = doc("When it was made, RFC 3339.", WHEN)
    connected_at: datetime | None = doc("When its sidecar first reached the gateway.", WHEN)
    agent_started_at: datetime | None = doc("When its agent's container started.", WHEN)
    ended_at: datetime | None = doc("When its tokens died, or null while it lives.", None)
    removed_at: datetime | None = doc("When the backend had nothing of it any more.", None)

    @staticmethod
    def resolve_target(obj: RunPod) -> str | None:
        return obj.target.name if obj.target is not None else None

    @staticmethod
    def resolve_run(obj: RunPod) -> str:
        return str(obj.run.key)

    @staticmethod
    def resolve_project(obj: RunPod) -> str:
        return str(obj.run.project.slug)


class PodDetail(PodOut):
    """One attempt with what was kept when it ended, and the containers that have logs."""

    diagnostics: dict[str, Any] = doc(
        "What was kept when the pod ended; empty before that.", {"reason": "kept warm"}
    )
    containers: list[str] = doc("The containers that have a log.", ["agent", "sidecar"])

    @staticmethod
    def resolve_containers(obj: RunPod) -> list[str]:
        return [container for pod, container in logs.containers(obj.run.key) if pod == obj.name]


class LogLineOut(Schema):
    """A record of a container's log: one line of the stream."""

    n: int = doc("Its number in the log from 1: the cursor.", 118)
    at: str = doc(
        "When it was written, RFC 3339 with nanoseconds where the backend has them.", WHEN
    )
    stream: str = doc("stdout, stderr, or the stream of a gap.", "stdout")
    text: str = doc(
        "The line, without its end. Comes from the container: show it, never execute it.",
        "listening on 127.0.0.1:8400",
    )
    partial: bool = doc("Whether the line goes on in the next record.", False)
    gap: bool = doc("Whether lines before it were discarded by the container's log limit.", False)


class ContainerDiagnosisOut(Schema):
    """A container of a diagnosis."""

    name: str = doc("The container's name.", "agent")
    state: str = doc("created, running, exited, unknown or gone.", "exited")
    exit_code: int | None = doc("Its exit code, once it has exited.", 42)
    oom_killed: bool = doc("Whether it was killed because it used too much memory.", False)
    health: str = doc("What its health check last said; empty without one.", "")
    health_said: str = doc("The health check's output.", "")
    error: str = doc("What the backend could not do with it.", "")
    started_at: datetime | None = doc("When it started, RFC 3339, or null.", WHEN)
    finished_at: datetime | None = doc("When it exited, or null.", WHEN)
    image: str = doc("Its image.", "localhost/devaipod-agent:dev")
    logs: list[str] = doc(
        "Its last 50 lines. They come from the container.", ["opencode: not found"]
    )


class FindingOut(Schema):
    """Something to know."""

    code: str = doc("What was found: stable.", "agent-missing")
    severity: Literal["error", "warning", "info"] = doc("How bad it is.", "error")
    message: str = doc(
        "The cause, in a sentence.", "The agent's program `opencode` is not in image X."
    )
    next_step: str = doc("What to do about it, or empty.", "Choose another image or agent.")
    container: str = doc("The container that it is about, or empty.", "agent")


class DiagnosisOut(Schema):
    """The diagnosis of a run's pod, alive or gone. Secrets are masked."""

    run: str = doc("The key of the run.", "b7kq2mx4dz")
    run_state: str = doc("Where the run is.", "failed")
    attempt: int | None = doc("Which attempt the pod is; null without a pod.", 1)
    name: str | None = doc("The pod's name, or null.", "devaipod-payments-b7kq2mx4dz-1")
    state: str | None = doc(
        "starting, running, degraded, exited, gone, or unknown when the backend does not answer.",
        "exited",
    )
    created_at: datetime | None = doc("When the pod was made.", WHEN)
    backend: str | None = doc("Where it runs.", "podman")
    containers: list[ContainerDiagnosisOut] = doc("Its containers.", [])
    findings: list[FindingOut] = doc("What was found, the worst first.", [])
