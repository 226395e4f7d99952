"""Forms of runs. What is allowed is decided in the services; the forms only turn units and keep what was typed."""

from __future__ import annotations

import shlex
from typing import Any

from django import forms
from django.db.models import QuerySet

from devaipod_web.llm.models import Route
from devaipod_web.projects.forms import DurationField, spoken
from devaipod_web.projects.models import PermissionPolicy, Project
from devaipod_web.runs.services.command import Command
from devaipod_web.targets import queries as targets
from pods.agents import PROFILES
from pods.command import COMMAND


class OptionalDuration(DurationField):
    """A duration that may be left out: 0 seconds then."""

    def clean(self, value: Any) -> int:
        """Seconds of what was written, 0 for nothing."""
        return super().clean(value) if str(value or "").strip() else 0


class LinesField(forms.CharField):
    """Variables as people write them: `NAME=value`, one a line. Its value is a dict."""

    widget = forms.Textarea(attrs={"rows": 2, "spellcheck": "false", "placeholder": "NAME=value"})

    def clean(self, value: Any) -> Any:
        """The variables of what was written."""
        lines = [line for line in str(super().clean(value) or "").splitlines() if line.strip()]
        if any("=" not in line for line in lines):
            raise forms.ValidationError("Write one NAME=value a line.")
        return {line.partition("=")[0].strip(): line.partition("=")[2] for line in lines}


def launchable() -> list[tuple[str, str]]:
    """What a run may execute, for a choice: the agents, and a command."""
    return [(key, profile.title) for key, profile in PROFILES.items()]


def target_choices() -> list[tuple[str, str]]:
    """The targets that take new runs, for a choice."""
    rows = targets.targets().filter(enabled=True).values_list("name", flat=True)
    return [("", "as the project says"), *((name, name) for name in rows)]


class LaunchForm(forms.Form):
    """A new run. What is left empty is the project's."""

    project = forms.ModelChoiceField(
        label="Project", queryset=Project.objects.none(), to_field_name="slug", empty_label=None
    )
    task = forms.CharField(
        label="Task",
        max_length=200_000,
        required=False,
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
    agent = forms.ChoiceField(label="Agent", choices=launchable, required=False)
    command = forms.CharField(
        label="Command",
        max_length=20_000,
        required=False,
        widget=forms.Textarea(
            attrs={"rows": 2, "spellcheck": "false", "placeholder": "make -C services/till test"}
        ),
        help_text="Words as in a shell, quotes too, but no shell runs them: for more write sh -c '…'. It runs in the workspace.",
    )
    image = forms.CharField(
        label="Image",
        max_length=300,
        required=False,
        widget=forms.TextInput(attrs={"spellcheck": "false"}),
        help_text="Empty: that of the project's other runs.",
    )
    workdir = forms.CharField(
        label="Folder",
        max_length=500,
        required=False,
        widget=forms.TextInput(attrs={"spellcheck": "false"}),
        help_text="Empty: the workspace.",
    )
    env = LinesField(
        label="Environment",
        max_length=65_536,
        required=False,
        help_text="No secret: pods hold none.",
    )
    model = forms.CharField(
        label="Model",
        max_length=200,
        required=False,
        widget=forms.TextInput(attrs={"spellcheck": "false"}),
    )
    wall = OptionalDuration(label="Stop after", required=False)
    target = forms.ChoiceField(label="Runs on", required=False, choices=target_choices)
    permission_policy = forms.ChoiceField(
        label="Permissions",
        required=False,
        choices=[("", "Project's policy"), *PermissionPolicy.choices],
    )
    idempotency_key = forms.CharField(max_length=100, required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, projects: QuerySet[Project], chosen: Project | None, **kwargs: Any) -> None:  # fmt: skip
        super().__init__(*args, **kwargs)
        if targets.targets().count() < 2:
            del self.fields["target"]
        field: Any = self.fields["project"]
        field.queryset = projects
        field.label_from_instance = lambda p: f"{p.name} · {p.upstream_branch}"
        if chosen is not None:
            self.fields["wall"].widget.attrs["placeholder"] = spoken(chosen.wall_seconds)
            self.fields["model"].widget.attrs["placeholder"] = chosen.model or "the provider's"
            if chosen.provider_id is None and not Route.objects.filter(enabled=True).exists():
                # The scripted demo is no model that one could choose.
                del self.fields["model"]

    @property
    def is_command(self) -> bool:
        """Whether a command is chosen instead of an agent."""
        return bool(self["agent"].value() == COMMAND)

    def clean(self) -> dict[str, Any]:
        """An agent needs a task, a command its words."""
        data = super().clean() or {}
        if data.get("agent") != COMMAND:
            if not data.get("task") and "task" not in self.errors:
                self.add_error("task", "Say what the agent should do.")
            return data
        try:
            words = shlex.split(data.get("command") or "")
        except ValueError as error:
            self.add_error("command", f"The quotes do not match: {error}.")
            return data
        if not words and "command" not in self.errors:
            self.add_error("command", "Write the program that is to run, and its arguments.")
        data["chosen_command"] = Command(
            argv=words,
            image=data.get("image", ""),
            env=data.get("env") or {},
            workdir=data.get("workdir", ""),
        )
        return data

    def clean_wall(self) -> int | None:
        """Seconds, or None for the project's."""
        value = self.cleaned_data.get("wall")
        return int(value) if value else None


class PromptForm(forms.Form):
    """A follow-up."""

    text = forms.CharField(max_length=200_000, strip=False)
