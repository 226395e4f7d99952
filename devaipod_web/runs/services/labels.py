"""A run's labels: names and texts of whoever launched it, by which it is found again. The control plane reads no meaning in them."""

from __future__ import annotations

from collections.abc import Mapping

from django.db import transaction
from django.db.models import QuerySet, TextField
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast

from devaipod_web.projects.models import Project
from devaipod_web.runs.errors import BadRequest, Taken
from devaipod_web.runs.models import Run
from devaipod_web.runs.services.command import LABEL, check_labels
from devaipod_web.runs.states import ENDED


def change(run: Run, changes: Mapping[str, str | None]) -> dict[str, str]:
    """Set the labels that have a text and remove those that have None; returns all of them. Raises BadRequest."""
    with transaction.atomic():
        run = Run.objects.select_for_update().get(pk=run.pk)
        merged = {**run.labels, **changes}
        labels = {name: value for name, value in merged.items() if value is not None}
        check_labels(labels)
        Run.objects.filter(pk=run.pk).update(labels=labels)
    return labels


def having(rows: QuerySet[Run], label: str) -> QuerySet[Run]:
    """Those of `rows` with the label `name`, or with `name=text`. Raises BadRequest for what is no label's name."""
    name, mark, text = label.partition("=")
    if not LABEL.fullmatch(name):
        raise BadRequest(
            f"{name[:60]!r} cannot be the name of a label.",
            next_step="Ask for `name` or `name=text`.",
        )
    if not mark:
        return rows.filter(labels__has_key=name)
    # Not a keyword: a name may have what Django reads as a lookup.
    value = Cast(KeyTextTransform(name, "labels"), TextField())
    return rows.annotate(_label=value).filter(_label=text)


def claim(project: Project, labels: Mapping[str, str], name: str) -> None:
    """Make sure that no other run of the project that has not ended has the same text under the label `name`.

    Must run in the transaction that then makes the run: the project's row is locked until it has. Raises Taken.
    """
    text = labels.get(name)
    if text is None:
        raise BadRequest(f"The label {name[:60]!r} that is to be unique is not among the labels.")
    Project.objects.select_for_update().get(pk=project.pk)
    alive = Run.objects.filter(project=project).exclude(state__in=ENDED)
    other = having(alive, f"{name}={text}").first()
    if other is not None:
        raise Taken(
            f"A run with the label {name}={text[:100]} already exists: {other.key}.",
            next_step="Stop it, or choose another text.",
        )
