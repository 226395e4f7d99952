"""A pod's sidecar has dialled in: what it is told of its run."""

from __future__ import annotations

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from devaipod_web.runs.errors import NotNow
from devaipod_web.runs.models import Run, RunPod
from devaipod_web.runs.wake import wake
from pods.agents import PROFILES
from pods.sidecar.protocol import RunConfig
from pods.spec import WORKSPACES_DIR

#: Path below the gateway of "the repository of the run whose token this is".
REMOTE = "/git/repo.git"
AUTHOR_NAME = "devaipod agent"
AUTHOR_EMAIL = "agent@devaipod.invalid"


def connected(pod_id: int) -> RunConfig:
    """Note the connection and return what `welcome` carries. Raises NotNow when the pod's time is over."""
    with transaction.atomic():
        pod = RunPod.objects.select_related("run__project").get(pk=pod_id)
        if pod.ended_at is not None:
            raise NotNow(f"The attempt {pod.name} has ended; its tokens are dead.")
        if pod.connected_at is None:
            RunPod.objects.filter(pk=pod_id).update(connected_at=timezone.now())
        wake(pod.run.key)
    return config(pod)


def config(pod: RunPod) -> RunConfig:
    """What a sidecar needs to know of its run. Where the volumes were pruned since, the work so far is the new base."""
    run = pod.run
    used = workspace_was_used(run)
    lost = run.volumes_pruned_at is not None and not used
    profile = PROFILES.get(run.agent)
    return RunConfig(
        run=run.key,
        pod=pod.name,
        attempt=pod.attempt,
        workspace=workspace_path(run),
        remote=REMOTE,
        base=(run.head_commit or run.base_commit) if lost else run.base_commit,
        branch=run.branch,
        author_name=AUTHOR_NAME,
        author_email=AUTHOR_EMAIL,
        resume=used,
        session_id=run.session_id if used else "",
        mcp_servers=[],
        agent=run.agent,
        auth_method=profile.auth_method if profile else "",
        session_mode=profile.modes.get(run.permission_policy, "") if profile else "",
        max_events=settings.MAX_EVENTS,
        max_event_bytes=settings.MAX_EVENT_BYTES,
        push_bytes=settings.MAX_PUSH_BYTES,
    )


def workspace_was_used(run: Run) -> bool:
    """Whether the run's workspace volume holds a clone already, of an earlier attempt or of this one."""
    since = run.volumes_pruned_at
    ready = Q(workspace_ready_at__isnull=False)
    if since is not None:
        ready &= Q(workspace_ready_at__gt=since)
    return RunPod.objects.filter(ready, run=run).exists()


def workspace_path(run: Run) -> str:
    """Where both containers see the workspace."""
    return f"{WORKSPACES_DIR}/{run.project.slug}"
