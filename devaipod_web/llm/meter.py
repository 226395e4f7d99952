"""What runs asked of models: one `LlmCall` row a request, the run's totals, and what went wrong as events of the
run."""

from __future__ import annotations

import time
from datetime import datetime
from decimal import Decimal

from django.db.models import F
from django.db.models.functions import Coalesce

from devaipod_web.llm.errors import ModelError
from devaipod_web.llm.models import LlmCall
from devaipod_web.llm.usage import Tokens
from devaipod_web.runs import events
from devaipod_web.runs.models import Run
from devaipod_web.runs.wake import wake

#: An agent that repeats a failing request fills no transcript: one event of a kind in this time, in seconds.
QUIET_SECONDS = 60
MAX_REMEMBERED = 4096

_said: dict[tuple[int, str], float] = {}


def record_call(
    *,
    run_id: int,
    provider_id: int | None,
    provider_kind: str,
    model: str,
    at: datetime,
    status: int,
    error: str,
    milliseconds: int,
    first_byte_milliseconds: int | None,
    tokens: Tokens,
    cost: Decimal | None,
) -> None:
    """Store one call and add it to its run. To be called in the writer's transaction."""
    used = bool(tokens.sent or tokens.received)
    LlmCall.objects.create(
        run_id=run_id,
        provider_id=provider_id,
        provider_kind=provider_kind,
        model=model[:200],
        at=at,
        status=status,
        error=error[:500],
        milliseconds=milliseconds,
        first_byte_milliseconds=first_byte_milliseconds,
        tokens_in=tokens.sent,
        tokens_cached=tokens.cached,
        tokens_out=tokens.received,
        estimated=tokens.estimated and used,
        cost=cost if used else Decimal(0),
    )
    if not used:
        return
    Run.objects.filter(pk=run_id).update(
        tokens_in=F("tokens_in") + tokens.sent,
        tokens_cached=F("tokens_cached") + tokens.cached,
        tokens_out=F("tokens_out") + tokens.received,
        cost=Coalesce(F("cost"), Decimal(0)) + (cost or Decimal(0)),
        unpriced_calls=F("unpriced_calls") + (1 if cost is None else 0),
    )
    wake(Run.objects.values_list("key", flat=True).get(pk=run_id))


def keep_without_run(run: Run) -> None:
    """Let the calls of a run that is deleted say themselves whose they were. In the deleting transaction."""
    LlmCall.objects.filter(run=run).update(
        run=None, run_key=run.key, project=run.project_id, owner=run.owner_id
    )


def due(run_id: int, kind: str) -> bool:
    """Whether a message of this kind may be put on the run now; true at most once in `QUIET_SECONDS`."""
    now = time.monotonic()
    if len(_said) > MAX_REMEMBERED:
        for key in [key for key, at in _said.items() if now - at > QUIET_SECONDS]:
            del _said[key]
    last = _said.get((run_id, kind))
    if last is not None and now - last < QUIET_SECONDS:
        return False
    _said[run_id, kind] = now
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
        {"level": "warning", "text": text[:1000], "next_step": next_step[:500]},
    )


def forget_all() -> None:
    """Forget what was said; between tests."""
    _said.clear()
