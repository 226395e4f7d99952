"""What the supervisor asks of the backend when a pod ends: why it did, and what is kept of it."""

from __future__ import annotations

from typing import Any

from devaipod_web import db
from devaipod_web.runs import diagnosis
from devaipod_web.runs.models import RunPod
from pods import causes, diagnostics, reports
from pods.backend import ContainerBackend
from pods.findings import Finding
from pods.reports import ContainerReport, PodReport
from pods.spec import SIDECAR, ContainerState, Phase, PodState


async def keep(
    backend: ContainerBackend, pod: RunPod, state: PodState, *, lost: Finding | None = None
) -> dict[str, Any]:
    """What is kept of a pod that goes, as JSON: its containers, their last lines, and what was found. `lost`: why it was lost."""
    seen = await with_lines(backend, state)
    facts = await db.read(diagnosis.facts_of_pod, pod.pk)
    found = [lost] if lost is not None else []
    found += [one for one in diagnostics.diagnose(seen, facts) if not _is_covered(one, lost)]
    return PodReport(
        name=seen.name,
        backend=seen.backend,
        created_at=seen.created_at,
        containers=seen.containers,
        warnings=seen.warnings,
        findings=tuple(found),
    ).as_json()


def _is_covered(one: Finding, lost: Finding | None) -> bool:
    return lost is not None and one.code in diagnostics.COVERS[lost.code]


async def with_lines(backend: ContainerBackend, state: PodState) -> PodReport:
    """A pod's report with the last lines of each container."""
    lines = {
        name: await diagnosis.last_lines(backend, state.name, name) for name in state.containers
    }
    return reports.report(state, backend=backend.name, lines=lines)


async def why_lost(backend: ContainerBackend, name: str, state: PodState | None) -> str:
    """Why a pod was lost, as the end of a sentence."""
    sidecar: ContainerReport | None = None
    found = exited(state, SIDECAR)
    if found is not None:
        lines = await diagnosis.last_lines(backend, name, SIDECAR)
        sidecar = reports.container_report(found, lines)
    return causes.why_lost(
        sidecar, is_there=state is not None, troubles=state.troubles if state else ()
    )


def exited(pod: PodState | None, container: str) -> ContainerState | None:
    """The container's state when it has exited, else None."""
    state = pod.containers.get(container) if pod else None
    return state if state is not None and state.phase is Phase.EXITED else None
