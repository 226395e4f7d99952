"""What went wrong with a run's model, as events of the run, said once a minute at most."""

from __future__ import annotations

import time

from devaipod_web.llm.errors import ModelError, plain
from devaipod_web.llm.models import LlmCall
from devaipod_web.runs import events
from devaipod_web.runs.models import Run

#: An agent that repeats a failing request fills no transcript: one event of a kind in this time, in seconds.
QUIET_SECONDS = 60
MAX_REMEMBERED = 4096
#: So many kinds of messages of one run in that time: agents choose some of the words (the types of their tools).
MAX_KINDS = 32

_said: dict[int, dict[str, float]] = {}


def keep_without_run(run: Run) -> None:
    """Let the calls of a run that is deleted say themselves whose they were. In the deleting transaction."""
    LlmCall.objects.filter(run=run).update(
        run=None,
        run_key=run.key,
        project=run.project_id,
        owner=run.owner_id,
        agent=run.agent,
    )


def due(run_id: int, kind: str) -> bool:
    """Whether a message of this kind may be put on the run now; true at most once in `QUIET_SECONDS`."""
    now = time.monotonic()
    said = _said.get(run_id)
    if said is None:
        if len(_said) >= MAX_REMEMBERED:
            del _said[next(iter(_said))]
        said = _said[run_id] = {}
    last = said.get(kind)
    if last is not None and now - last < QUIET_SECONDS:
        return False
    if len(said) >= MAX_KINDS:
        for each in [each for each, at in said.items() if now - at >= QUIET_SECONDS]:
            del said[each]
        if len(said) >= MAX_KINDS:
            return False
    said[kind] = now
    return True


def record_refusal(run_id: int, error: ModelError) -> None:
    """Say on the run that its model did not answer, with the next step."""
    events.record(
        Run.objects.get(pk=run_id),
        events.Kind.MODEL_REFUSED,
        {
            "message": error.message[:1000],
            "status": error.status,
            "code": error.code,
            "next_step": error.next_step[:500],
        },
    )


def record_note(run_id: int, text: str, next_step: str = "") -> None:
    """Put a warning about a model request on the run."""
    events.record(
        Run.objects.get(pk=run_id),
        events.Kind.NOTE,
        {"level": "warning", "text": plain(text[:1000]), "next_step": next_step[:500]},
    )


def forget_all() -> None:
    """Forget what was said; between tests."""
    _said.clear()
