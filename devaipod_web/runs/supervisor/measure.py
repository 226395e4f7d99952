"""What a run's volumes use on a host that cannot bound them; over its limit a run is ended."""

from __future__ import annotations

from dataclasses import dataclass

from devaipod_web.projects.models import Project
from devaipod_web.runs.supervisor.pod_spec import (
    GIB,
    HOME_BYTES,
    HOME_INODES,
    STATE_BYTES,
    STATE_INODES,
    volume_name,
)
from pods.backend import ContainerBackend
from pods.errors import QuotaExceeded
from pods.spec import VolumeKind

NEXT_STEP = "Raise the limits in the project's settings, or give the agent a smaller task."


@dataclass(frozen=True)
class Overrun:
    """A volume that outgrew its bound: why and what to do, in sentences."""

    reason: str
    next_step: str


async def overrun(
    backend: ContainerBackend, *, installation: str, run: str, project: Project
) -> Overrun | None:
    """The first of a run's volumes that is over its limit of bytes or files, or None. Raises BackendUnavailable."""
    for kind, limit, files in (
        (VolumeKind.WORKSPACE, project.workspace_bytes, project.workspace_inodes),
        (VolumeKind.HOME, HOME_BYTES, HOME_INODES),
        (VolumeKind.STATE, STATE_BYTES, STATE_INODES),
    ):
        try:
            used, inodes = await backend.volume_usage(volume_name(installation, run, kind))
        except QuotaExceeded as error:
            return Overrun(error.message, error.next_step)
        if used > limit or inodes > files:
            return Overrun(
                f"The {kind} volume uses {used / GIB:.1f} GiB and {inodes:,} files; it may use "
                f"{limit / GIB:.1f} GiB and {files:,}.",
                NEXT_STEP,
            )
    return None
