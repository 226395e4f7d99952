"""The outbox: what runs and reviews tell becomes deliveries, in the transaction in which it happens.

`runs.events.append` hands every event of the control plane's own to `put`; what an agent asks comes by `put_question`, once it is
known that a person must answer. Nothing is sent here: the sender finds what was committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from devaipod_web.address import public_url
from devaipod_web.runs import wake
from devaipod_web.runs.models import PermissionRequest, PermissionState, Run, RunEvent
from devaipod_web.runs.states import Cause, State
from devaipod_web.runs.tools import call_line
from devaipod_web.webhooks.kinds import MAX_OPTIONS, MAX_TITLE, MAX_WORDS, Kind, payload
from devaipod_web.webhooks.models import Delivery, Webhook

API = "/api/devaipod"


def put(run_id: int, events: Sequence[RunEvent]) -> None:
    """Queue the deliveries that these events mean. Must run in the transaction that stored them."""
    told = [event for event in events if event.kind in _TOLD]
    if not told or not Webhook.objects.filter(enabled=True).exists():
        return
    run = _run(run_id)
    for event in told:
        for kind, data in _TOLD[event.kind](run, event.payload):
            queue(kind, data, at=event.at, project_id=run.project_id)


def put_question(request: PermissionRequest) -> None:
    """Queue `run.waiting` for a permission that a person must give. Must run in the transaction that stored it."""
    if not Webhook.objects.filter(enabled=True).exists():
        return
    run = _run(request.run_id)
    asked = call_line(request.tool_call, request.title)
    data = {
        "run": _run_part(run),
        "waits_for": f"a permission: {asked}"[:MAX_WORDS],
        "permission": {
            "key": request.key,
            "title": asked[:MAX_TITLE],
            "options": [
                {name: str(option.get(name, "")) for name in ("id", "name", "kind")}
                for option in request.options[:MAX_OPTIONS]
            ],
            "asked_at": request.asked_at,
            "expires_at": request.expires_at,
            "answer_url": f"{public_url()}{API}/runs/{run.key}/permission",
        },
    }
    queue(Kind.RUN_WAITING, data, at=request.asked_at, project_id=run.project_id)


def queue(kind: Kind, data: dict[str, Any], *, at: datetime, project_id: int) -> None:
    """Write a delivery for each enabled webhook that asked for this kind, of this project or of all."""
    asked = Webhook.objects.filter(Q(project_id=project_id) | Q(project=None), enabled=True)
    found = [webhook for webhook in asked if kind in webhook.events]
    if not found:
        return
    text = payload(kind, data, at=at)
    with transaction.atomic():
        Delivery.objects.bulk_create(
            Delivery(webhook=webhook, kind=kind, payload=text, next_attempt_at=timezone.now())
            for webhook in found
        )
        wake.wake(wake.WEBHOOKS)


Told = list[tuple[Kind, dict[str, Any]]]


def _state(run: Run, said: dict[str, Any]) -> Told:
    to, reason = said["to"], str(said["reason"])[:MAX_WORDS]
    next_step = str(said["next_step"])[:MAX_WORDS]
    part = {**_run_part(run), "state": to}
    told: Told = [
        (
            Kind.RUN_STATE,
            {
                "run": part,
                "from": said["from"] or None,
                "to": to,
                "reason": reason,
                "next_step": next_step,
            },
        )
    ]
    # What waits for a permission is told by `put_question`, each of several.
    if to == State.WAITING and not _asks(run):
        told.append(
            (
                Kind.RUN_WAITING,
                {"run": part, "waits_for": run.waits_for or reason, "permission": None},
            )
        )
    if to == State.PAUSED and said.get("cause") == Cause.BUDGET:
        told.append(
            (
                Kind.BUDGET_EXCEEDED,
                {"run": part, "cost": f"{run.cost:f}", "reason": reason, "next_step": next_step},
            )
        )
    return told


def _review_opened(run: Run, said: dict[str, Any]) -> Told:
    counts = ("revision", "commits", "files", "additions", "deletions")
    review = {**_review_part(said), **{name: said[name] for name in counts}}
    return [(Kind.REVIEW_OPENED, {"run": _run_part(run), "review": review})]


def _review_promoted(run: Run, said: dict[str, Any]) -> Told:
    data = {
        "run": _run_part(run),
        "review": _review_part(said),
        "branch": said["branch"],
        "by": said["by"],
    }
    return [(Kind.REVIEW_PROMOTED, data)]


#: Kind of a run's event (`runs.events.Kind`; not imported, since that module calls this one) → what webhooks are told.
_TOLD = {
    "run.state": _state,
    "review.opened": _review_opened,
    "review.promoted": _review_promoted,
}


def _run(run_id: int) -> Run:
    return Run.objects.select_related("project", "owner").get(pk=run_id)


def _asks(run: Run) -> bool:
    return PermissionRequest.objects.filter(run=run, state=PermissionState.OPEN).exists()


def _run_part(run: Run) -> dict[str, Any]:
    return {
        "key": run.key,
        "title": run.title[:MAX_TITLE],
        "project": run.project.slug,
        "agent": run.agent,
        "owner": run.owner.get_username(),
        "state": run.state,
        "labels": run.labels,
        "url": f"{public_url()}/runs/{run.key}/",
        "api_url": f"{public_url()}{API}/runs/{run.key}",
    }


def _review_part(said: dict[str, Any]) -> dict[str, Any]:
    return {
        "key": said["review"],
        "head": said["head"],
        "url": f"{public_url()}/reviews/{said['review']}/",
        "api_url": f"{public_url()}{API}/reviews/{said['review']}",
    }
