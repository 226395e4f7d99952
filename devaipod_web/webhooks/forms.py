"""The form of a webhook. What its fields mean is decided in `services`."""

from __future__ import annotations

from typing import Any

from django import forms

from devaipod_web.projects.models import Project
from devaipod_web.webhooks.kinds import KINDS, SUBSCRIBABLE
from devaipod_web.webhooks.models import Webhook
from devaipod_web.webhooks.services import MAX_NAME


class WebhookForm(forms.Form):
    """Name, address, kinds of events, and the project that it is about."""

    name = forms.CharField(label="Name", max_length=MAX_NAME)
    url = forms.CharField(
        label="Address",
        max_length=500,
        help_text="Events are sent there by POST, over https. It must be public, or in a network that this installation lists.",
        widget=forms.URLInput(
            attrs={"placeholder": "https://receiver.example/devaipod", "autocomplete": "off"}
        ),
    )
    events = forms.MultipleChoiceField(
        label="Events",
        choices=[(str(kind), KINDS[kind].says) for kind in SUBSCRIBABLE],
        error_messages={"required": "Choose at least one kind of event."},
    )
    project = forms.ChoiceField(label="Of which project", required=False)

    def __init__(self, webhook: Webhook | None, *args: Any, **kwargs: Any) -> None:
        if webhook is not None:
            initial = {
                "name": webhook.name,
                "url": webhook.url,
                "events": webhook.events,
                "project": webhook.project.slug if webhook.project else "",
            }
            kwargs.setdefault("initial", initial)
        super().__init__(*args, **kwargs)
        projects = Project.objects.order_by("name").values_list("slug", "name")
        self.fields["project"].choices = [("", "All projects"), *projects]  # type: ignore[attr-defined]

    @property
    def chosen(self) -> list[str]:
        """The kinds that are ticked."""
        return list(self["events"].value() or [])

    def chosen_project(self) -> Project | None:
        """The project that was chosen; None for all."""
        return Project.objects.filter(slug=self.cleaned_data["project"]).first()
