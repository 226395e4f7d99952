"""Targets: how each is reached, and what the supervisor last found there."""

from __future__ import annotations

from django.db import models

from devaipod_web.fields import KeyField
from devaipod_web.health.models import Health

#: The name of this host's podman; no other target may have it.
PODMAN_NAME = "podman"


class TargetKind(models.TextChoices):
    """What makes the pods of a target."""

    PODMAN = "podman", "podman"
    KUBERNETES = "kubernetes", "Kubernetes"


class GatewayMode(models.TextChoices):
    """How a cluster's pods reach the gateway."""

    DIRECT = "direct", "Pods connect to the gateway's address"
    RELAY = "relay", "The control plane keeps a forward to each pod open"


class Target(models.Model):
    """A place where pods run.

    The first part is what a manager says, the second what the supervisor found. `kubeconfig` is sealed (`llm.vault`) and shown
    never; empty: the service account of the pod that the control plane runs in.
    """

    key = KeyField()
    name = models.CharField(max_length=40, unique=True)
    kind = models.CharField(max_length=12, choices=TargetKind.choices)
    namespace = models.CharField(max_length=63, blank=True)
    kubeconfig = models.BinaryField(blank=True, default=b"")
    context = models.CharField(max_length=200, blank=True)
    server = models.CharField(
        max_length=300, blank=True, help_text="The API server of the kubeconfig, for people."
    )
    gateway_address = models.CharField(
        max_length=300, blank=True, help_text="Empty: DEVAIPOD_GATEWAY_ADDRESS."
    )
    gateway_mode = models.CharField(
        max_length=6, choices=GatewayMode.choices, default=GatewayMode.DIRECT
    )
    enabled = models.BooleanField(default=True, help_text="Whether it takes new runs.")
    max_runs = models.PositiveIntegerField(
        null=True, blank=True, help_text="Runs that may have a pod there at once."
    )
    created_at = models.DateTimeField(auto_now_add=True)

    health = models.CharField(max_length=10, choices=Health.choices, default=Health.UNKNOWN)
    error = models.CharField(max_length=500, blank=True)
    next_step = models.CharField(max_length=500, blank=True)
    version = models.CharField(max_length=80, blank=True)
    capacity = models.PositiveIntegerField(
        null=True, blank=True, help_text="Pods that it says it takes at once; empty: not known."
    )
    policies_enforced = models.BooleanField(
        null=True, blank=True, help_text="Whether a pod is held to its network; empty: not known."
    )
    checked_at = models.DateTimeField(null=True, blank=True)
    full_since = models.DateTimeField(null=True, blank=True)
    full_until = models.DateTimeField(
        null=True, blank=True, help_text="It refused a pod for want of room: not asked before then."
    )
    full_reason = models.CharField(max_length=500, blank=True)

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return self.name

    @property
    def is_podman(self) -> bool:
        """Whether it is this host's podman."""
        return self.kind == TargetKind.PODMAN
