"""Runs, their pods (attempts), turns, events, commands and permission requests."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from devaipod_web.fields import KeyField
from devaipod_web.projects.models import PermissionPolicy
from devaipod_web.runs.states import ACTIVE, Cause, State


class Run(models.Model):
    """A task given to an agent. State moves only through `services.transition`."""

    key = KeyField()
    project = models.ForeignKey("projects.Project", on_delete=models.PROTECT, related_name="runs")
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="runs"
    )
    token = models.ForeignKey(
        "accounts.ApiToken",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="runs",
        help_text="The API token that it was launched with.",
    )
    title = models.CharField(max_length=200)
    task = models.TextField()
    agent = models.CharField(max_length=40)
    provider = models.ForeignKey("llm.Provider", null=True, blank=True, on_delete=models.SET_NULL)
    asked_target = models.ForeignKey(
        "targets.Target",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        help_text="Where whoever launched it wants it; empty: where its project says.",
    )
    target = models.ForeignKey(
        "targets.Target",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="runs",
        help_text="Where it is, or was last; empty before it had a place.",
    )
    refusals = models.PositiveSmallIntegerField(
        default=0, help_text="How often in a row a target that it was given had no room after all."
    )
    model = models.CharField(max_length=200, blank=True)
    permission_policy = models.CharField(
        max_length=10, choices=PermissionPolicy.choices, default=PermissionPolicy.ASK
    )
    image = models.CharField(max_length=300, blank=True)
    idempotency_key = models.CharField(max_length=100, null=True, blank=True)
    labels = models.JSONField(
        default=dict, blank=True, help_text="{name: text} for whoever launched it."
    )

    # Of the agent profile `command` alone.
    argv = models.JSONField(default=list, blank=True)
    env = models.JSONField(default=dict, blank=True, help_text="{name: text}; never a secret.")
    workdir = models.CharField(max_length=500, blank=True, help_text="Empty: the workspace.")
    asked_image = models.CharField(
        max_length=300, blank=True, help_text="Empty: what the project's other runs have."
    )
    interactive = models.BooleanField(
        default=False, help_text="Its standard input stays open and takes what people send."
    )
    exit_code = models.PositiveSmallIntegerField(null=True, blank=True)

    state = models.CharField(max_length=12, choices=State.choices, default=State.QUEUED)
    reason = models.CharField(
        max_length=1000, blank=True, help_text="Why it is in this state, in a sentence."
    )
    next_step = models.CharField(max_length=500, blank=True)
    finding_code = models.CharField(
        max_length=40,
        blank=True,
        help_text="The finding (pods.findings) whose sentences `reason` and `next_step` are.",
    )
    pause_cause = models.CharField(
        max_length=6, blank=True, choices=Cause.choices, help_text="Of a paused run alone."
    )
    wall_left = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="Seconds of its wall time that are left, while it is paused.",
    )
    repeats = models.JSONField(
        default=dict, blank=True, help_text="What loop detection remembers (runs.repeats)."
    )
    waits_for = models.CharField(
        max_length=300, blank=True, help_text="What a stuck or waiting run waits for."
    )
    step = models.CharField(
        max_length=40, blank=True, help_text="The step of starting: mirror, image, pod, …"
    )
    notes = models.JSONField(
        default=list, blank=True, help_text="Warnings of this run: [{level, text}]."
    )
    stuck_since = models.DateTimeField(null=True, blank=True)

    wall_seconds = models.PositiveIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)
    queued_at = models.DateTimeField(null=True, blank=True)
    state_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    deadline_at = models.DateTimeField(null=True, blank=True)
    keep_warm_until = models.DateTimeField(null=True, blank=True)
    last_event_at = models.DateTimeField(null=True, blank=True)

    attempts = models.PositiveSmallIntegerField(default=0)
    lost_pods = models.PositiveSmallIntegerField(default=0)
    last_seq = models.PositiveBigIntegerField(default=0)
    last_command = models.PositiveBigIntegerField(default=0)
    last_turn = models.PositiveIntegerField(default=0)
    session_id = models.CharField(max_length=300, blank=True)
    last_line = models.CharField(
        max_length=300, blank=True, help_text="What it did last, for lists."
    )

    branch = models.CharField(max_length=200, blank=True)
    base_commit = models.CharField(max_length=64, blank=True)
    head_commit = models.CharField(max_length=64, blank=True)
    additions = models.PositiveIntegerField(default=0)
    deletions = models.PositiveIntegerField(default=0)
    changed_files = models.PositiveIntegerField(default=0)

    tokens_in = models.PositiveBigIntegerField(default=0)
    tokens_cached = models.PositiveBigIntegerField(default=0)
    tokens_out = models.PositiveBigIntegerField(default=0)
    cost = models.DecimalField(max_digits=16, decimal_places=8, default=0)
    unpriced_calls = models.PositiveIntegerField(default=0)

    lease_owner = models.CharField(max_length=40, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    logs_pruned_at = models.DateTimeField(null=True, blank=True)
    volumes_pruned_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["owner", "idempotency_key"], name="run_once_per_idempotency_key"
            ),
        ]
        indexes = [
            models.Index(
                fields=["queued_at"], name="run_queue", condition=models.Q(state=State.QUEUED)
            ),
            models.Index(
                fields=["lease_until"],
                name="run_active",
                condition=models.Q(state__in=sorted(ACTIVE)),
            ),
            models.Index(fields=["project", "-created_at"]),
            models.Index(fields=["state", "-created_at"]),
        ]

    def __str__(self) -> str:
        return f"{self.key} {self.title}"


class RunPod(models.Model):
    """One attempt of a run: its pod, the hashes of its tokens, and what was kept when it ended."""

    key = KeyField()
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="pods")
    attempt = models.PositiveSmallIntegerField()
    name = models.CharField(max_length=63, unique=True)
    backend = models.CharField(max_length=40)
    target = models.ForeignKey(
        "targets.Target", null=True, blank=True, on_delete=models.SET_NULL, related_name="pods"
    )
    image = models.CharField(max_length=300)
    control_digest = models.CharField(max_length=64, unique=True)
    data_digest = models.CharField(max_length=64, unique=True)
    address = models.CharField(
        max_length=45,
        blank=True,
        help_text="Where the backend last saw it: its tokens count at the gateway's port from there alone.",
    )
    last_source_seq = models.PositiveBigIntegerField(default=0)
    event_bytes = models.PositiveBigIntegerField(default=0)
    session_id = models.CharField(max_length=300, blank=True)
    steps = models.JSONField(
        default=dict, blank=True, help_text="{step: ISO time at which it was done}"
    )
    diagnostics = models.JSONField(default=dict, blank=True, help_text="Kept when the pod goes.")
    created_at = models.DateTimeField(auto_now_add=True)
    connected_at = models.DateTimeField(null=True, blank=True)
    workspace_ready_at = models.DateTimeField(null=True, blank=True)
    agent_started_at = models.DateTimeField(null=True, blank=True)
    session_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(
        null=True, blank=True, help_text="Tokens are dead from here on."
    )
    removed_at = models.DateTimeField(
        null=True, blank=True, help_text="The backend has nothing of it any more."
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["run", "attempt"], name="one_pod_per_attempt")
        ]
        ordering = ["attempt"]

    def __str__(self) -> str:
        return self.name


class Turn(models.Model):
    """One prompt to the agent and how its turn ended."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="turns")
    number = models.PositiveIntegerField()
    pod = models.ForeignKey(RunPod, null=True, on_delete=models.SET_NULL)
    prompt = models.TextField()
    by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    stop_reason = models.CharField(max_length=40, blank=True)
    staged_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "number"], name="turn_number")]
        ordering = ["number"]


class RunEvent(models.Model):
    """Something that happened. `seq` is gapless in a run and the only cursor anywhere outside."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="events")
    seq = models.PositiveBigIntegerField()
    pod = models.ForeignKey(RunPod, null=True, on_delete=models.CASCADE)
    source_seq = models.PositiveBigIntegerField(null=True)
    kind = models.CharField(max_length=60)
    v = models.PositiveSmallIntegerField(default=1)
    at = models.DateTimeField()
    received_at = models.DateTimeField()
    payload = models.JSONField(default=dict)
    raw = models.JSONField(null=True)
    spilled = models.BooleanField(default=False, help_text="Payload and raw frame are in a file.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["run", "seq"], name="event_seq"),
            models.UniqueConstraint(fields=["pod", "source_seq"], name="event_source_seq"),
        ]
        ordering = ["seq"]


class CommandState(models.TextChoices):
    """How far a command to the sidecar is."""

    QUEUED = "queued"
    SENT = "sent"
    APPLIED = "applied"
    REFUSED = "refused"


class RunCommand(models.Model):
    """Something that the sidecar is to do, in the order of `number`, once by key."""

    key = KeyField()
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="commands")
    pod = models.ForeignKey(
        RunPod, null=True, on_delete=models.CASCADE, help_text="Empty: the next attempt's."
    )
    number = models.PositiveBigIntegerField()
    kind = models.CharField(max_length=20)
    payload = models.JSONField(default=dict)
    state = models.CharField(
        max_length=10, choices=CommandState.choices, default=CommandState.QUEUED
    )
    reason = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    done_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "number"], name="command_number")]
        ordering = ["number"]


class PermissionState(models.TextChoices):
    """Whether a permission request was answered, and how."""

    OPEN = "open"
    ALLOWED = "allowed"
    REFUSED = "refused"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"


class PermissionRequest(models.Model):
    """An agent asks before it does something. Answered once, by compare-and-set on `state`."""

    key = KeyField()
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="permissions")
    pod = models.ForeignKey(RunPod, on_delete=models.CASCADE)
    request_id = models.CharField(max_length=60)
    title = models.CharField(max_length=500)
    tool_call = models.JSONField(default=dict)
    options = models.JSONField(default=list)
    state = models.CharField(
        max_length=10, choices=PermissionState.choices, default=PermissionState.OPEN
    )
    option_id = models.CharField(max_length=120, blank=True)
    answered_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL)
    by_policy = models.BooleanField(default=False)
    asked_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    answered_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["pod", "request_id"], name="permission_request_id")
        ]
        indexes = [
            models.Index(
                fields=["expires_at"],
                name="permission_open",
                condition=models.Q(state=PermissionState.OPEN),
            )
        ]
