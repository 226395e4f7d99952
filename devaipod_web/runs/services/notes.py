"""Say something on a run that a person should know and that is not a failure."""

from __future__ import annotations

from django.db import transaction

from devaipod_web.runs import events
from devaipod_web.runs.models import Run

#: Notes kept on the run itself; each is also an event.
MAX_NOTES = 40


def note(run_id: int, level: str, text: str, *, next_step: str = "") -> bool:
    """Add a note (`level`: info, warning or error) to a run, once for each text. False when it was there already."""
    entry = {"level": level, "text": text[:1000]}
    if next_step:
        entry["next_step"] = next_step[:500]
    with transaction.atomic():
        run = Run.objects.select_for_update().get(pk=run_id)
        if any(kept.get("text") == entry["text"] for kept in run.notes):
            return False
        if len(run.notes) < MAX_NOTES:
            Run.objects.filter(pk=run_id).update(notes=[*run.notes, entry])
        events.record(
            run,
            events.Kind.NOTE,
            {"level": level, "text": entry["text"], "next_step": next_step[:500]},
        )
    return True
