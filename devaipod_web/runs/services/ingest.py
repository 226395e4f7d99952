"""Take in what a sidecar sent: check it, store it once, and let it move the run.

Everything here comes out of a pod and is hostile until cleaned: sizes are bounded, text made storable, stamps checked, kinds
of our own not accepted from outside.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from devaipod_web.runs import events, untrusted
from devaipod_web.runs.errors import NotNow
from devaipod_web.runs.models import Run, RunPod
from devaipod_web.runs.services.notes import note
from devaipod_web.runs.services.projection import Projection
from pods.sidecar.protocol import Event, EventKind

#: Kinds that pass beyond the limits of an attempt: without them no run could end.
ALWAYS = frozenset(
    {
        EventKind.WORKSPACE_READY,
        EventKind.WORKSPACE_FAILED,
        EventKind.AGENT_REFUSED,
        EventKind.SESSION_STARTED,
        EventKind.TURN_STARTED,
        EventKind.TURN_ENDED,
        EventKind.PERMISSION_REQUESTED,
        EventKind.PERMISSION_RESOLVED,
        EventKind.AGENT_EXITED,
        EventKind.WORK_STAGED,
        EventKind.WORK_FAILED,
        EventKind.COMMAND_APPLIED,
        EventKind.COMMAND_REFUSED,
        EventKind.DROPPED,
    }
)
#: Those pass the limits, but not without end either.
ALWAYS_FACTOR = 2
OURS = frozenset(value for name, value in vars(events.Kind).items() if not name.startswith("_"))


def ingest(pod_id: int, batch: Sequence[Event]) -> int:
    """Store a sidecar's events and apply them to run, pod, turns, commands and permission requests, in one transaction.

    Returns the highest contiguous `source_seq` that is stored then. Events that were stored before are passed over. Raises
    ValueError on a gap or an event without a number (the gateway closes the connection and the sidecar sends again), NotNow
    when the pod's time is over.
    """
    with transaction.atomic():
        run = Run.objects.select_for_update().get(pods__id=pod_id)
        pod = RunPod.objects.get(pk=pod_id)
        if pod.ended_at is not None:
            raise NotNow(f"The attempt {pod.name} has ended; nothing more is taken from it.")
        fresh = _fresh(batch, pod.last_source_seq)
        if not fresh:
            return pod.last_source_seq
        now = timezone.now()
        cleaned = [_clean(event, now) for event in fresh]
        kept, size = _within_limits(cleaned, pod)
        pod.last_source_seq += len(fresh)
        pod.event_bytes += size
        RunPod.objects.filter(pk=pod_id).update(
            last_source_seq=pod.last_source_seq, event_bytes=pod.event_bytes
        )
        events.append(run.pk, kept, pod=pod)
        if len(kept) < len(cleaned):
            note(
                run.pk,
                "warning",
                "This attempt sent more events than a run may keep; the rest is left out.",
            )
        Projection(run, pod, now).apply(kept)
    return pod.last_source_seq


def _fresh(batch: Sequence[Event], last: int) -> list[Event]:
    fresh: list[Event] = []
    expected = last + 1
    for event in batch:
        number = event.get("source_seq") if isinstance(event, dict) else None
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ValueError("an event without a source_seq")
        if number < expected:
            continue
        if number > expected:
            raise ValueError(f"event {number} came where {expected} was expected")
        fresh.append(event)
        expected += 1
    return fresh


def _clean(event: Event, now: datetime) -> events.NewEvent:
    kind = untrusted.text(event.get("kind"), 60) or "unnamed"
    if kind in OURS:
        kind = f"sidecar.{kind}"[:60]
    payload = untrusted.storable(event.get("payload"))
    return events.NewEvent(
        kind=kind,
        payload=payload if isinstance(payload, dict) else {"value": payload},
        at=untrusted.moment(event.get("at"), now=now),
        v=untrusted.number(event.get("v"), default=1, most=32767),
        source_seq=event["source_seq"],
        raw=untrusted.storable(event.get("raw")),
    )


def _within_limits(
    cleaned: list[events.NewEvent], pod: RunPod
) -> tuple[list[events.NewEvent], int]:
    """The events that the attempt may still store, and the bytes of all that came."""
    kept: list[events.NewEvent] = []
    total = 0
    for event in cleaned:
        total += size_of(event.payload) + size_of(event.raw)
        over = _over(event.source_seq or 0, pod.event_bytes + total, 1)
        way_over = over and _over(event.source_seq or 0, pod.event_bytes + total, ALWAYS_FACTOR)
        if not over or (event.kind in ALWAYS and not way_over):
            kept.append(event)
    return kept, total


def _over(count: int, size: int, factor: int) -> bool:
    return count > settings.MAX_EVENTS * factor or size > settings.MAX_EVENT_BYTES * factor


def size_of(value: Any) -> int:
    """Characters of a value's JSON."""
    return len(json.dumps(value)) if value is not None else 0
