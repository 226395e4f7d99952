"""The form of a target. What its fields may be is decided in the services."""

from __future__ import annotations

from typing import Any

from django import forms

from devaipod_web.targets.kubeconfig import MAX_BYTES
from devaipod_web.targets.models import GatewayMode, Target
from devaipod_web.targets.services import MAX_NAME, MAX_NAMESPACE, MAX_RUNS, in_cluster

PLAIN = {"autocomplete": "off", "spellcheck": "false"}
#: What only a cluster has.
OF_CLUSTERS = (
    "name",
    "namespace",
    "kubeconfig_text",
    "context",
    "gateway_mode",
    "gateway_address",
)


class TargetForm(forms.Form):
    """A cluster, or what can be said of podman. The kubeconfig is written and never shown."""

    name = forms.CharField(
        label="Name",
        max_length=MAX_NAME,
        help_text="Lower-case letters, digits and hyphens: projects and the command name it so.",
        widget=forms.TextInput(attrs=PLAIN),
    )
    namespace = forms.CharField(
        label="Namespace",
        max_length=MAX_NAMESPACE,
        required=False,
        help_text="Where its pods are made. Empty: the context's.",
        widget=forms.TextInput(attrs={"placeholder": "devaipod-agents", **PLAIN}),
    )
    kubeconfig_text = forms.CharField(
        label="Kubeconfig",
        max_length=MAX_BYTES,
        required=False,
        widget=forms.Textarea(attrs={"rows": 6, **PLAIN}),
    )
    context = forms.CharField(
        label="Context",
        max_length=200,
        required=False,
        help_text="One of the kubeconfig's. Empty: its current one. No other is kept.",
        widget=forms.TextInput(attrs=PLAIN),
    )
    gateway_mode = forms.ChoiceField(
        label="How its pods reach the gateway",
        choices=GatewayMode.choices,
        required=False,
        help_text="Forwards are for a control plane that the cluster can't reach, such as one on a laptop.",
    )
    gateway_address = forms.CharField(
        label="The gateway's address",
        max_length=300,
        required=False,
        help_text="As its pods reach the gateway's port, by number: they have no DNS. Empty: DEVAIPOD_GATEWAY_ADDRESS.",
        widget=forms.TextInput(attrs={"placeholder": "http://10.0.0.7:8001", **PLAIN}),
    )
    max_runs = forms.IntegerField(
        label="Runs at once",
        min_value=1,
        max_value=MAX_RUNS,
        required=False,
        help_text="More wait in the queue. Empty: as many as it takes.",
    )
    enabled = forms.BooleanField(label="Takes new runs", required=False, initial=True)

    def __init__(self, target: Target | None, *args: Any, **kwargs: Any) -> None:
        if target is not None:
            names = (*OF_CLUSTERS, "max_runs", "enabled")
            values = {name: getattr(target, name) for name in names if name != "kubeconfig_text"}
            kwargs.setdefault("initial", values)
        super().__init__(*args, **kwargs)
        if target is not None and target.is_podman:
            for name in OF_CLUSTERS:
                del self.fields[name]
            self.fields["max_runs"].help_text = "At most DEVAIPOD_MAX_RUNS. Empty: so many."
            return
        said = "With everything in it, and no program to execute: kubectl config view --minify --flatten --raw."
        if target is not None and target.kubeconfig:
            said = f"One is set. It is shown never; leave this empty to keep it. {said}"
        elif in_cluster():
            said = f"Empty: the service account of the pod that the server runs in. {said}"
        self.fields["kubeconfig_text"].help_text = f"It is encrypted at rest. {said}"
