"""Forms of runs. What is allowed is decided in the services; the forms only turn units and keep what was typed."""

from __future__ import annotations

from typing import Any

from django import forms
from django.db.models import QuerySet

from devaipod_web.projects.forms import DurationField, agents, spoken
from devaipod_web.projects.models import PermissionPolicy, Project


class OptionalDuration(DurationField):
    """A duration that may be left out: 0 seconds then."""

    def clean(self, value: Any) -> int:
        """Seconds of what was written, 0 for nothing."""
        return super().clean(value) if str(value or "").strip() else 0


class LaunchForm(forms.Form):
    """A new run. What is left empty is the project's."""

    project = forms.ModelChoiceField(
        label="Project", queryset=Project.objects.none(), to_field_name="slug", empty_label=None
    )
    task = forms.CharField(
        label="Task",
        max_length=200_000,
        widget=forms.Textarea(
            attrs={
                "rows": 9,
                "placeholder": "Say what the agent should do, and how you will know that it is done.",
                "data-submit-keys": "",
            }
        ),
        help_text="Markdown. Ctrl+Enter launches.",
    )
    title = forms.CharField(
        label="Title", max_length=200, required=False, help_text="Empty: the task's first line."
    )
    agent = forms.ChoiceField(label="Agent", choices=agents, required=False)
    model = forms.CharField(
        label="Model",
        max_length=200,
        required=False,
        widget=forms.TextInput(attrs={"spellcheck": "false"}),
    )
    wall = OptionalDuration(label="Stop after", required=False)
    permission_policy = forms.ChoiceField(
        label="Permissions",
        required=False,
        choices=[("", "Project's policy"), *PermissionPolicy.choices],
    )
    idempotency_key = forms.CharField(max_length=100, required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, projects: QuerySet[Project], chosen: Project | None, **kwargs: Any) -> None:  # fmt: skip
        super().__init__(*args, **kwargs)
        field: Any = self.fields["project"]
        field.queryset = projects
        field.label_from_instance = lambda p: f"{p.name} · {p.upstream_branch}"
        if chosen is not None:
            self.fields["wall"].widget.attrs["placeholder"] = spoken(chosen.wall_seconds)
            self.fields["model"].widget.attrs["placeholder"] = chosen.model or "the provider's"
            if chosen.provider_id is None:
                # The scripted demo is no model that one could choose.
                del self.fields["model"]

    def clean_wall(self) -> int | None:
        """Seconds, or None for the project's."""
        value = self.cleaned_data.get("wall")
        return int(value) if value else None


class PromptForm(forms.Form):
    """A follow-up."""

    text = forms.CharField(max_length=200_000, strip=False)
