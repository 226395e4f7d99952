"""Remove what nobody owns: pods and FIFO volumes that carry our installation's label and belong to no live attempt."""

from __future__ import annotations

import re
from datetime import timedelta

import structlog
from django.utils import timezone

from devaipod_web import db
from devaipod_web.runs.supervisor import records
from pods.backend import ContainerBackend
from pods.spec import LABEL_INSTALLATION

log = structlog.get_logger("devaipod.supervisor.sweep")

#: A pod younger than this may be one whose row is just being written by another process.
MIN_AGE = timedelta(seconds=60)


async def sweep(backend: ContainerBackend, installation: str) -> list[str]:
    """Destroy the pods of this installation that no row answers for, and leftover FIFO volumes; returns their names."""
    labels = {LABEL_INSTALLATION: installation}
    known = await db.read(records.known_pods)
    removed = []
    now = timezone.now()
    for pod in await backend.pods(labels):
        if pod.name in known:
            continue
        if pod.created_at is not None and now - pod.created_at < MIN_AGE:
            known.add(pod.name)
            continue
        log.warning("sweep.pod", pod=pod.name)
        await backend.destroy(pod.name)
        removed.append(pod.name)
    stdio = re.compile(rf"devaipod-{installation}-([a-z2-7]+)-(\d+)-stdio")
    for volume in await backend.volumes(labels):
        found = stdio.fullmatch(volume)
        if found is None:
            continue
        if any(name.endswith(f"-{found[1]}-{found[2]}") for name in known):
            continue
        log.warning("sweep.volume", volume=volume)
        await backend.remove_volume(volume)
        removed.append(volume)
    return removed
