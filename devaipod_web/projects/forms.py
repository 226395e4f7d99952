"""Forms of a project: one for making it, one for each tab of its settings. What is allowed is decided in the rules.

The forms only turn units: people write hours and GiB, the services take seconds and bytes.
"""

from __future__ import annotations

import re
from typing import Any

from django import forms

from devaipod_web.llm.models import Provider, ProviderKind, Route
from devaipod_web.projects.models import PermissionPolicy, Project, Workspace
from devaipod_web.projects.rules import GIB
from devaipod_web.targets.models import Target
from pods.agents import ACP_PROFILES

_UNITS = {"": 60, "m": 60, "min": 60, "h": 3600, "d": 86400, "s": 1}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")


class DurationField(forms.CharField):
    """A duration as people write it: `90 min`, `2 h`, `1 h 30 min`, `1 d`. Its value is whole seconds."""

    def prepare_value(self, value: Any) -> Any:
        """Seconds as the form shows them."""
        return spoken(value) if isinstance(value, int) else value

    def clean(self, value: Any) -> int:
        """Seconds of what was written."""
        text = str(super().clean(value)).strip().lower()
        parts = _DURATION.findall(text)
        if not parts or _DURATION.sub("", text).strip() or any(u not in _UNITS for _, u in parts):
            raise forms.ValidationError("Write a duration such as 90 min, 2 h or 1 h 30 min.")
        return round(sum(float(number) * _UNITS[unit] for number, unit in parts))


class GibField(forms.FloatField):
    """GiB for people, whole bytes for the services."""

    def prepare_value(self, value: Any) -> Any:
        """Bytes as GiB."""
        return f"{value / GIB:.2f}".rstrip("0").rstrip(".") if isinstance(value, int) else value

    def clean(self, value: Any) -> Any:
        """Bytes of what was written."""
        found = super().clean(value)
        return None if found is None else round(found * GIB)


def spoken(seconds: int) -> str:
    """Seconds as a duration that `DurationField` reads back the same."""
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts) or "0 s"


def agents() -> list[tuple[str, str]]:
    """The agent profiles that a project may have, for a choice."""
    return [(key, profile.title) for key, profile in ACP_PROFILES.items()]


def provider_choices() -> list[tuple[str, str]]:
    """The providers for a choice, the scripted demo first."""
    rows = Provider.objects.exclude(kind=ProviderKind.DEMO).order_by("name")
    routed = Route.objects.filter(enabled=True).exists()
    none = (
        f"as routes decide, else the {ProviderKind.DEMO.label}"
        if routed
        else ProviderKind.DEMO.label
    )
    return [("", none), *((row.key, row.name) for row in rows)]


class ProjectForm(forms.Form):
    """A new project: what is needed to launch the first run."""

    name = forms.CharField(
        label="Name", max_length=120, widget=forms.TextInput(attrs={"autofocus": True})
    )
    upstream_url = forms.CharField(
        label="Repository",
        max_length=500,
        help_text="Where agents' work starts from. It is fetched, never pushed to unless it is also the production remote.",
        widget=forms.TextInput(
            attrs={"placeholder": "https://forge.example/team/name.git", "autocomplete": "off"}
        ),
    )
    upstream_branch = forms.CharField(label="Branch", max_length=200, initial="main")
    production_url = forms.CharField(
        label="Production remote",
        max_length=500,
        required=False,
        help_text="Where promoted branches are pushed. Empty: the repository itself.",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    provider = forms.ChoiceField(label="Models from", required=False)
    model = forms.CharField(
        label="Model",
        max_length=200,
        required=False,
        help_text="As the provider spells it, or as a route takes it. Empty with the scripted demo.",
    )
    permission_policy = forms.ChoiceField(
        label="When the agent wants to edit or run something",
        choices=PermissionPolicy.choices,
        initial=PermissionPolicy.ASK,
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["provider"].choices = provider_choices()  # type: ignore[attr-defined]


class SectionForm(forms.Form):
    """One tab of a project's settings."""

    def __init__(self, project: Project, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("initial", {name: _initial(project, name) for name in self.base_fields})
        super().__init__(*args, **kwargs)
        if "provider" in self.fields:
            self.fields["provider"].choices = provider_choices()  # type: ignore[attr-defined]


def _initial(project: Project, name: str) -> Any:
    value = getattr(project, name)
    if name == "provider":
        return project.provider.key if project.provider else ""
    if name == "targets":
        names = dict(Target.objects.values_list("key", "name"))
        value = [names[key] for key in value if key in names]
    return "\n".join(value) if isinstance(value, list) else value


class RepositoryForm(SectionForm):
    """Where work comes from and where approved changes go."""

    name = forms.CharField(label="Name", max_length=120)
    description = forms.CharField(label="Description", max_length=500, required=False)
    upstream_url = forms.CharField(
        label="Repository",
        max_length=500,
        help_text="https, ssh, or a local path below a folder that the installation allows.",
    )
    upstream_branch = forms.CharField(label="Branch", max_length=200)
    production_url = forms.CharField(
        label="Production remote",
        max_length=500,
        required=False,
        help_text="Where promoted branches are pushed. Empty: the repository itself.",
    )
    production_prefix = forms.CharField(
        label="Prefix of promoted branches",
        max_length=60,
        required=False,
        help_text="For example devaipod/.",
    )


class AgentForm(SectionForm):
    """Which agent works, and on which model."""

    agent = forms.ChoiceField(label="Agent", choices=agents)
    provider = forms.ChoiceField(label="Models from", required=False)
    model = forms.CharField(
        label="Model",
        max_length=200,
        required=False,
        help_text="As the provider spells it, or as a route takes it. Empty with the scripted demo.",
    )


class PermissionsForm(SectionForm):
    """What happens when an agent wants to edit or run something."""

    permission_policy = forms.ChoiceField(
        label="When the agent wants to edit or run something",
        choices=PermissionPolicy.choices,
        help_text="It runs in a sandbox without network or credentials either way; what leaves is reviewed.",
    )


class LimitsForm(SectionForm):
    """Bounds of each run."""

    wall_seconds = DurationField(
        label="Stop after", help_text="Wall time of a run, such as 90 min or 2 h."
    )
    memory_bytes = GibField(label="Memory (GiB)", min_value=0)
    cpus = forms.FloatField(label="Cores", min_value=0)
    pids = forms.IntegerField(label="Processes", min_value=1)
    workspace_bytes = GibField(label="Workspace (GiB)", min_value=0)
    workspace_inodes = forms.IntegerField(label="Files in the workspace", min_value=1)


class ImageForm(SectionForm):
    """What the agent's container is made of."""

    image = forms.CharField(
        label="Image",
        max_length=300,
        required=False,
        help_text="Used when devcontainer.json names none. Empty: the installation's agent image.",
    )
    image_pattern = forms.CharField(
        label="Image that the project's CI publishes",
        max_length=300,
        required=False,
        help_text="Used when devcontainer.json has a build, with {owner}, {repo} and {branch} filled in.",
    )
    allowed_images = forms.CharField(
        label="Images that devcontainer.json may name",
        required=False,
        help_text="One a line; a star stands for anything.",
        widget=forms.Textarea(attrs={"rows": 4}),
    )


def _lines(label: str, help_text: str, placeholder: str = "") -> forms.CharField:
    attrs = {"rows": 3, "placeholder": placeholder, "autocomplete": "off", "spellcheck": "false"}
    return forms.CharField(
        label=label, required=False, help_text=help_text, widget=forms.Textarea(attrs=attrs)
    )


class TargetsForm(SectionForm):
    """Where its runs have their pods, and what these need on a cluster."""

    targets = _lines(
        "Targets",
        "Names, one a line, the first choice first: a target that is full or not well is passed over. Empty: this host's podman, "
        "or where there is none the first cluster.",
    )
    workspace = forms.ChoiceField(
        label="Workspace on a cluster",
        choices=Workspace.choices,
        help_text="On podman workspace and home are kept either way.",
    )
    storage_class = forms.CharField(
        label="Storage class",
        max_length=253,
        required=False,
        help_text="Of the volume. Empty: the cluster's default.",
    )
    node_selector = _lines(
        "Nodes", "Labels that the node must have, one key=value a line.", "disk=ssd"
    )
    tolerations = _lines(
        "Tolerations",
        "Taints that its pods tolerate, one a line: key=value:Effect, key:Effect or key.",
        "agents=only:NoSchedule",
    )
    runtime_class = forms.CharField(
        label="Runtime class",
        max_length=253,
        required=False,
        help_text="For instance gvisor or kata, where the cluster has one. Empty: its default.",
    )
    image_pull_secrets = _lines(
        "Secrets for pulling images", "Names of Secrets of the target's namespace, one a line."
    )


#: The tabs in order: (name, title, form).
SECTION_FORMS: dict[str, tuple[str, type[SectionForm]]] = {
    "repository": ("Repository", RepositoryForm),
    "agent": ("Agent & model", AgentForm),
    "permissions": ("Permissions", PermissionsForm),
    "limits": ("Limits", LimitsForm),
    "image": ("Image", ImageForm),
    "targets": ("Targets", TargetsForm),
}
