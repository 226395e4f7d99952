"""The one function that moves a run from state to state."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.utils import timezone

from devaipod_web.runs import events
from devaipod_web.runs.errors import IllegalTransition
from devaipod_web.runs.models import Run
from devaipod_web.runs.states import ENDED, TRANSITIONS, Cause, State


def transition(
    run_id: int,
    to: State,
    *,
    reason: str,
    next_step: str = "",
    code: str = "",
    expect: frozenset[State] | None = None,
    cause: Cause | None = None,
    **fields: Any,
) -> bool:
    """Move a run to `to` if the table allows it from where it is now.

    Steps, in one transaction: read the state; look it up in TRANSITIONS; UPDATE … WHERE state is still the one that was read,
    together with `fields`; write the event. `code` is the finding whose sentences `reason` and `next_step` are. `cause` of a pause
    stands in the event and on the run (with Cause.BUDGET webhooks are told `budget.exceeded`). Returns False when
    another process moved it first, when it is in `to` already, or when `expect` is given and the run is in none of those
    states; the caller then reads again. Raises IllegalTransition when no row of the table leads from its state to `to`.
    """
    with transaction.atomic():
        now = timezone.now()
        state = State(Run.objects.values_list("state", flat=True).get(pk=run_id))
        if state == to or (expect is not None and state not in expect):
            return False
        if to not in TRANSITIONS[state]:
            raise IllegalTransition(f"A run that is {state.label} cannot become {to.label}.")
        if state is State.PAUSED:
            fields = {"pause_cause": "", "keep_warm_until": None, **fields}
        if to is State.PAUSED:
            fields = {"pause_cause": cause or "", **fields}
        if to in ENDED:
            fields = {
                "ended_at": now,
                "waits_for": "",
                "stuck_since": None,
                "wall_left": None,
                **fields,
            }
        if to is State.QUEUED:
            fields = {"queued_at": now, "ended_at": None, "keep_warm_until": None, **fields}
        moved = Run.objects.filter(pk=run_id, state=state).update(
            state=to,
            state_at=now,
            reason=reason[:1000],
            next_step=next_step[:500],
            finding_code=code,
            **fields,
        )
        if not moved:
            return False
        run = Run.objects.get(pk=run_id)
        events.record(
            run,
            events.Kind.STATE,
            {
                "from": state,
                "to": to,
                "reason": reason[:1000],
                "next_step": next_step[:500],
                "finding": code,
                **({"cause": cause} if cause else {}),
            },
        )
    return True
