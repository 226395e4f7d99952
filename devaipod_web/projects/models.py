"""Projects: a repository, where its approved changes go, and what its runs may do."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from devaipod_web.fields import KeyField


class PermissionPolicy(models.TextChoices):
    """What happens when an agent asks before an edit or a command."""

    ASK = "ask", "Ask a person"
    ALLOW = "allow", "Allow"


class Workspace(models.TextChoices):
    """What a workspace lies on in a cluster."""

    EMPTYDIR = "emptydir", "A folder of the pod: gone with it"
    PVC = "pvc", "A volume of the cluster: kept for follow-ups"


class Project(models.Model):
    """A repository that agents work on. `upstream_url` is fetched, `production_url` receives promoted branches."""

    key = KeyField()
    slug = models.SlugField(max_length=60, unique=True)
    name = models.CharField(max_length=120)
    description = models.CharField(max_length=500, blank=True)
    upstream_url = models.CharField(max_length=500)
    upstream_branch = models.CharField(max_length=200, default="main")
    production_url = models.CharField(max_length=500, blank=True, help_text="Empty: the upstream.")
    production_prefix = models.CharField(max_length=60, default="devaipod/")
    agent = models.CharField(max_length=40, default="opencode")
    provider = models.ForeignKey(
        "llm.Provider",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        help_text="Empty: the scripted demo.",
    )
    model = models.CharField(max_length=200, blank=True)
    permission_policy = models.CharField(
        max_length=10, choices=PermissionPolicy.choices, default=PermissionPolicy.ASK
    )
    image = models.CharField(
        max_length=300, blank=True, help_text="Empty: the installation's agent image."
    )
    image_pattern = models.CharField(max_length=300, blank=True)
    allowed_images = models.JSONField(default=list, blank=True)
    wall_seconds = models.PositiveIntegerField(default=7200)
    memory_bytes = models.BigIntegerField(default=3 * 1024**3)
    cpus = models.FloatField(default=2.0)
    pids = models.PositiveIntegerField(default=512)
    workspace_bytes = models.BigIntegerField(default=4 * 1024**3)
    workspace_inodes = models.PositiveIntegerField(default=400_000)
    targets = models.JSONField(
        default=list, blank=True, help_text="Keys of targets, the first choice first."
    )
    # Of pods on clusters alone (pods.spec.Placement); lists are lines of text as people write them.
    node_selector = models.JSONField(default=list, blank=True)
    tolerations = models.JSONField(default=list, blank=True)
    runtime_class = models.CharField(max_length=253, blank=True)
    image_pull_secrets = models.JSONField(default=list, blank=True)
    workspace = models.CharField(
        max_length=8, choices=Workspace.choices, default=Workspace.EMPTYDIR
    )
    storage_class = models.CharField(max_length=253, blank=True)
    is_sample = models.BooleanField(default=False)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL)
    created_at = models.DateTimeField(auto_now_add=True)
    archived_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name
