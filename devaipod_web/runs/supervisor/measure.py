"""What a run's volumes use on a host that cannot bound them; over its limit a run is ended."""

from __future__ import annotations

from devaipod_web.projects.models import Project
from devaipod_web.runs.supervisor.pod_spec import (
    HOME_BYTES,
    HOME_INODES,
    STATE_BYTES,
    STATE_INODES,
    volume_name,
)
from pods.backend import ContainerBackend
from pods.causes import volume_over
from pods.errors import QuotaExceeded
from pods.findings import Finding, of_backend
from pods.spec import VolumeKind


async def overrun(
    backend: ContainerBackend, *, installation: str, run: str, project: Project
) -> Finding | None:
    """The first of a run's volumes that is over its limit of bytes or files, or None. Raises BackendUnavailable."""
    for kind, limit, files in (
        (VolumeKind.WORKSPACE, project.workspace_bytes, project.workspace_inodes),
        (VolumeKind.HOME, HOME_BYTES, HOME_INODES),
        (VolumeKind.STATE, STATE_BYTES, STATE_INODES),
    ):
        try:
            used, inodes = await backend.volume_usage(volume_name(installation, run, kind))
        except QuotaExceeded as error:
            return of_backend(error)
        if used > limit or inodes > files:
            return volume_over(str(kind), used, inodes, most_bytes=limit, most_inodes=files)
    return None
