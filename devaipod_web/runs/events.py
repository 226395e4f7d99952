"""The one way into a run's event log, and the ways out of it.

`seq` is allocated by one UPDATE in the inserting transaction, so it is gapless and, as writers of one run wait for each
other there, becomes visible in order on every database.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from devaipod_web import home
from devaipod_web.runs.models import Run, RunEvent, RunPod
from devaipod_web.runs.wake import wake
from devaipod_web.webhooks import outbox

#: A payload with its raw frame above this many bytes of JSON goes to a file.
INLINE_BYTES = 64 * 1024


class Kind:
    """Kinds of the control plane's own events. Those of a sidecar are `pods.sidecar.protocol.EventKind`."""

    STATE = "run.state"  # {from, to, reason, next_step, finding, cause?}
    STEP = (
        "run.step"  # {step, text, seconds?} of starting: queued, mirror, image, pod, clone, agent
    )
    PROMPT = "prompt"  # {turn, text, by} a person's words
    INPUT = "input"  # {text, by} to a command's standard input
    PERMISSION_ANSWERED = "permission.answered"  # {request, request_id, state, option_id, by}
    NOTE = "run.note"  # {level: info|warning|error, text, next_step}
    STUCK = "run.stuck"  # {waits_for}
    POD_LOST = "pod.lost"  # {pod, reason}
    REVIEW = "review.opened"  # {review, head, commits, files, additions, deletions, revision}
    PROMOTED = "review.promoted"  # {review, branch, head, by}
    REJECTED = "review.rejected"  # {review, by}
    MODEL_REFUSED = (
        "model.refused"  # {message, status, next_step} the provider or the gateway said no
    )


@dataclass(frozen=True)
class NewEvent:
    """An event that is to be stored. `source_seq` is None for the control plane's own."""

    kind: str
    payload: dict[str, Any]
    at: datetime
    v: int = 1
    source_seq: int | None = None
    raw: Any = None


def record(run: Run, kind: str, payload: dict[str, Any]) -> RunEvent:
    """Store one event of the control plane's own and wake the followers. Must run inside a transaction or opens one."""
    return append(run.pk, [NewEvent(kind=kind, payload=payload, at=timezone.now())])[0]


def append(run_id: int, events: Sequence[NewEvent], *, pod: RunPod | None = None) -> list[RunEvent]:
    """Store events of one run in order, give them their `seq`, and wake the followers after the commit.

    What webhooks are to be told of them is queued in the same transaction.

    Payloads above `INLINE_BYTES` are written to a file first (a crash leaves a file without a row, which the next event of
    that number replaces).
    """
    if not events:
        return []
    now = timezone.now()
    with transaction.atomic():
        Run.objects.filter(pk=run_id).update(
            last_seq=F("last_seq") + len(events), last_event_at=now
        )
        run_key, last = Run.objects.values_list("key", "last_seq").get(pk=run_id)
        first = last - len(events) + 1
        rows = [
            _row(run_id, run_key, first + index, event, pod, now)
            for index, event in enumerate(events)
        ]
        RunEvent.objects.bulk_create(rows)
        if pod is None:
            outbox.put(run_id, rows)
        wake(run_key)
    return rows


def _row(
    run_id: int, run_key: str, seq: int, event: NewEvent, pod: RunPod | None, now: datetime
) -> RunEvent:
    row = RunEvent(
        run_id=run_id,
        seq=seq,
        pod=pod,
        source_seq=event.source_seq,
        kind=event.kind[:60],
        v=event.v,
        at=event.at,
        received_at=now,
        payload=event.payload,
        raw=event.raw,
    )
    text = json.dumps({"payload": event.payload, "raw": event.raw})
    if len(text) > INLINE_BYTES:
        path = home.event_payload(run_key, seq)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        row.payload, row.raw, row.spilled = _summary(event.payload), None, True
    return row


def _summary(payload: dict[str, Any]) -> dict[str, Any]:
    """The short values of a payload, for lists; the whole stands in the file."""
    short = {
        key: value
        for key, value in payload.items()
        if isinstance(value, (int, float, bool)) or (isinstance(value, str) and len(value) <= 500)
    }
    return {**short, "spilled": True}


def after(run_id: int, seq: int, *, limit: int = 500) -> list[RunEvent]:
    """Events of a run after `seq`, at most `limit`, in order, payloads whole."""
    return [
        whole(row)
        for row in RunEvent.objects.filter(run_id=run_id, seq__gt=seq)[:limit].select_related("run")
    ]


def before(run_id: int, seq: int, *, limit: int = 200) -> list[RunEvent]:
    """The last `limit` events before `seq`, in order, for scrolling back."""
    rows = RunEvent.objects.filter(run_id=run_id, seq__lt=seq).order_by("-seq")[:limit]
    return [whole(row) for row in reversed(rows.select_related("run"))]


def whole(row: RunEvent) -> RunEvent:
    """The same row with payload and raw frame read from their file when they were too large for it."""
    if not row.spilled:
        return row
    path = home.event_payload(row.run.key, row.seq)
    try:
        kept = json.loads(path.read_text())
    except (OSError, ValueError):
        row.payload = {**row.payload, "missing": True}
        return row
    row.payload, row.raw = kept["payload"], kept["raw"]
    return row


def kinds(rows: Iterable[RunEvent]) -> list[str]:
    """The kinds of these events, in order."""
    return [row.kind for row in rows]
