"""Queue something for a run's sidecar."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import F

from devaipod_web.runs.models import Run, RunCommand, RunPod
from devaipod_web.runs.wake import wake
from pods.sidecar.protocol import CommandKind


def enqueue(
    run_id: int, kind: CommandKind, payload: dict[str, Any], *, pod: RunPod | None = None
) -> RunCommand:
    """Append a command to the run's queue and wake the gateway. `pod` None means: whichever attempt serves the run next."""
    with transaction.atomic():
        Run.objects.filter(pk=run_id).update(last_command=F("last_command") + 1)
        key, number = Run.objects.values_list("key", "last_command").get(pk=run_id)
        command = RunCommand.objects.create(
            run_id=run_id, pod=pod, number=number, kind=kind, payload=payload
        )
        wake(key)
    return command
