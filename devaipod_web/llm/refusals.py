"""Whether a run's last word from its model was a refusal, as a finding: what the supervisor, the transcript and a diagnosis look at."""

from __future__ import annotations

from datetime import datetime, timedelta

from devaipod_web.llm.errors import (
    BudgetsUnavailable,
    BudgetUsedUp,
    CredentialRefused,
    ModelError,
    NotConfigured,
    PriceUnknown,
    ProviderFailed,
    ProviderRefused,
    ProviderSilent,
    ProviderUnreachable,
    RateLimited,
)
from devaipod_web.llm.models import LlmCall
from devaipod_web.runs import events
from devaipod_web.runs.models import RunEvent
from pods.findings import Finding, finding

#: The class of a refusal → its finding's code. Our own budgets (the room `budgets`, when it is there) raise BudgetUsedUp too.
CODES: dict[type[ModelError], str] = {
    CredentialRefused: "provider-refused-key",
    BudgetUsedUp: "budget-used-up",
    RateLimited: "provider-at-limit",
    NotConfigured: "provider-not-set-up",
    ProviderRefused: "provider-refused",
    ProviderFailed: "provider-failed",
    ProviderSilent: "provider-failed",
    ProviderUnreachable: "provider-failed",
    BudgetsUnavailable: "provider-failed",
    PriceUnknown: "provider-not-set-up",
}
_BY_CODE = {kind.code: code for kind, code in CODES.items()}
#: The agent hung up: that says nothing about the model.
HUNG_UP = 499


def last_word(run_id: int, *, since: datetime) -> Finding | None:
    """What the model's last answer since then was, when it was a refusal; None after a good answer, or none at all. Blocking.

    The event `model.refused` is written before the agent hears of it, but at most once a minute for one cause; the call's row comes a
    moment after. So the later of the two counts.
    """
    call = (
        LlmCall.objects.filter(run_id=run_id, at__gte=since)
        .exclude(status=HUNG_UP)
        .order_by("-at")
        .first()
    )
    event = (
        RunEvent.objects.filter(run_id=run_id, kind=events.Kind.MODEL_REFUSED, at__gte=since)
        .order_by("-seq")
        .first()
    )
    ended = call.at + timedelta(milliseconds=call.milliseconds) if call is not None else None
    if event is not None and (ended is None or event.at > ended):
        return _of_event(event)
    if call is None or call.status < 400:
        return None
    if event is not None and event.payload.get("message") == call.error:
        return _of_event(event)
    return finding(_of_status(call.status), call.error or f"The provider answered {call.status}.")


def _of_event(event: RunEvent) -> Finding | None:
    payload = event.payload
    code = _BY_CODE.get(str(payload.get("code", "")))
    if code is None:
        return None  # the gateway did not pass the request on: the model is not at fault
    return finding(
        code, str(payload.get("message", "")), next_step=str(payload.get("next_step", ""))
    )


def _of_status(status: int) -> str:
    if status in (401, 403):
        return CODES[CredentialRefused]
    if status == BudgetUsedUp.status:
        return CODES[BudgetUsedUp]
    if status == RateLimited.status:
        return CODES[RateLimited]
    return CODES[ProviderRefused] if status < 500 else CODES[ProviderFailed]
