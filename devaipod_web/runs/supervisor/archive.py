"""Finish what a killed process left: logs of pods that are gone and were not compressed yet.

A pod's own end compresses its logs before the pod is removed (`Followers.finish`). What is left over is a pod that went in another
way, or a process that was killed in between.
"""

from __future__ import annotations

import asyncio

import structlog

from devaipod_web import db
from devaipod_web.runs import logs
from devaipod_web.runs.models import RunPod

log = structlog.get_logger("devaipod.supervisor.logs")


async def archive_leftovers() -> int:
    """Compress the logs of removed pods; returns how many segments that were. Safe to repeat."""
    found = await asyncio.to_thread(logs.unarchived)
    removed = await db.read(_removed, [pod for _, pod in found])
    done = 0
    for run_key, pod in found:
        if pod in removed:
            done += await asyncio.to_thread(logs.archive, run_key, pod)
            log.info("logs.archived", run=run_key, pod=pod)
    return done


def _removed(pods: list[str]) -> set[str]:
    rows = RunPod.objects.filter(name__in=pods, removed_at__isnull=False)
    return set(rows.values_list("name", flat=True))
