"""Every query about runs that a page, the API or a service needs, with what it reads along."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import Prefetch, Q, QuerySet
from django.utils import timezone

from devaipod_web.runs.models import (
    PermissionRequest,
    PermissionState,
    Run,
    RunCommand,
    RunPod,
    Turn,
)
from devaipod_web.runs.services.commands import OPEN
from devaipod_web.runs.states import ACTIVE, State
from pods.sidecar.protocol import CommandKind

SORTS = {
    "newest": "-created_at",
    "oldest": "created_at",
    "activity": "-last_event_at",
    "cost": "-cost",
    "state": "state",
    "project": "project__name",
    "title": "title",
}


def pod_to_enter(run: Run) -> RunPod | None:
    """The pod of a run whose agent's container runs, as far as the rows know; None when there is none."""
    pods = RunPod.objects.filter(run=run, ended_at=None, agent_started_at__isnull=False)
    return pods.order_by("-attempt").first()


def rows() -> QuerySet[Run]:
    """Runs with what a row of a list shows."""
    return Run.objects.select_related("project", "owner", "provider", "review", "target")


def list_runs(
    *,
    state: str = "",
    project: str = "",
    owner: str = "",
    text: str = "",
    sort: str = "newest",
) -> QuerySet[Run]:
    """Runs for a list. `state` is a state's word, or `active` or `ended`; `project` a slug or key; `owner` a user name;
    `text` is looked for in title, task, key and last line. Unknown words give an empty list or the default order."""
    found = rows()
    if state == "active":
        found = found.filter(state__in=[*ACTIVE, State.QUEUED])
    elif state == "ended":
        found = found.exclude(state__in=[*ACTIVE, State.QUEUED])
    elif state:
        found = found.filter(state=state)
    if project:
        found = found.filter(Q(project__slug=project) | Q(project__key=project))
    if owner:
        found = found.filter(Q(owner__username=owner) | Q(owner__key=owner))
    if text:
        found = found.filter(
            Q(title__icontains=text)
            | Q(task__icontains=text)
            | Q(key__startswith=text.lower())
            | Q(last_line__icontains=text)
        )
    return found.order_by(SORTS.get(sort, SORTS["newest"]), "-pk")


def run_page(key: str) -> Run | None:
    """One run with everything that its page shows, or None."""
    return (
        rows()
        .prefetch_related(
            "pods",
            Prefetch("turns", queryset=Turn.objects.select_related("by")),
            Prefetch(
                "permissions",
                queryset=PermissionRequest.objects.select_related("answered_by").order_by(
                    "asked_at"
                ),
            ),
        )
        .filter(key=key)
        .first()
    )


def live_pod(run: Run) -> RunPod | None:
    """The run's pod whose tokens are alive, or None."""
    return RunPod.objects.filter(run=run, ended_at=None).order_by("-attempt").first()


def open_permissions(run: Run | None = None) -> QuerySet[PermissionRequest]:
    """Permission requests that wait for a person, the oldest first, of one run or of all."""
    found = PermissionRequest.objects.filter(state=PermissionState.OPEN)
    if run is not None:
        found = found.filter(run=run)
    return found.select_related("run__project", "run__owner", "pod").order_by("asked_at")


def waiting_prompts(run: Run) -> QuerySet[RunCommand]:
    """Prompts that no agent has taken yet: shown as pending."""
    return RunCommand.objects.filter(run=run, kind=CommandKind.PROMPT, state__in=OPEN).order_by(
        "number"
    )


def in_progress() -> QuerySet[Run]:
    """Runs that are queued or at work, the queue last."""
    return rows().filter(state__in=[*ACTIVE, State.QUEUED]).order_by("-started_at", "queued_at")


def failed_lately(days: int = 3) -> QuerySet[Run]:
    """Runs that failed or ran out of time within the last days, the latest first."""
    since = timezone.now() - timedelta(days=days)
    return (
        rows()
        .filter(state__in=[State.FAILED, State.TIMED_OUT], ended_at__gte=since)
        .order_by("-ended_at")
    )
