"""Answer what an agent asks before it does something: once, by compare-and-set."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils import timezone

from devaipod_web.accounts.models import User
from devaipod_web.runs import events
from devaipod_web.runs.errors import AlreadyAnswered, BadRequest
from devaipod_web.runs.models import PermissionRequest, PermissionState, Run
from devaipod_web.runs.services.commands import enqueue
from devaipod_web.runs.services.transition import transition
from devaipod_web.runs.states import State
from devaipod_web.runs.tools import call_line
from pods.sidecar.protocol import CommandKind

#: How the states read in a sentence about who was first.
DONE_WORDS = {
    PermissionState.ALLOWED: "allowed",
    PermissionState.REFUSED: "refused",
    PermissionState.EXPIRED: "expired as refused",
    PermissionState.WITHDRAWN: "withdrawn",
}


def answer(request: PermissionRequest, by: User | None, *, option_id: str) -> PermissionRequest:
    """Answer with one of the request's own options.

    Raises AlreadyAnswered, naming who was first, and BadRequest when there is no such option.
    """
    option = next((o for o in request.options if o.get("id") == option_id), None)
    if option is None:
        raise BadRequest(
            "The agent did not offer this answer.",
            next_step="Choose one of: " + ", ".join(str(o.get("name")) for o in request.options),
        )
    allowed = str(option.get("kind", "")).startswith("allow")
    state = PermissionState.ALLOWED if allowed else PermissionState.REFUSED
    if not settle(request, state, option_id=option_id, by=by):
        raise _who_was_first(request)
    request.refresh_from_db()
    return request


def settle(
    request: PermissionRequest,
    state: PermissionState,
    *,
    option_id: str,
    by: User | None = None,
    by_policy: bool = False,
) -> bool:
    """Close an open request and tell the sidecar. False when somebody else was first.

    Without an `option_id` the agent is told that the question was cancelled.
    """
    with transaction.atomic():
        closed = PermissionRequest.objects.filter(pk=request.pk, state=PermissionState.OPEN).update(
            state=state,
            option_id=option_id,
            answered_by=by,
            by_policy=by_policy,
            answered_at=timezone.now(),
        )
        if not closed:
            return False
        outcome = "selected" if option_id else "cancelled"
        enqueue(
            request.run_id,
            CommandKind.PERMISSION,
            {"request_id": request.request_id, "outcome": outcome, "option_id": option_id},
            pod=request.pod,
        )
        run = Run.objects.get(pk=request.run_id)
        who = "the project's policy" if by_policy else str(by) if by else ""
        events.record(
            run,
            events.Kind.PERMISSION_ANSWERED,
            {
                "request": request.key,
                "request_id": request.request_id,
                "state": state,
                "option_id": option_id,
                "by": who,
            },
        )
        go_on(run.pk)
    return True


def go_on(run_id: int) -> None:
    """Bring a run that waited for a permission back to `running` once no request is open."""
    still = (
        PermissionRequest.objects.filter(run_id=run_id, state=PermissionState.OPEN)
        .order_by("asked_at")
        .first()
    )
    if still is not None:
        Run.objects.filter(pk=run_id, state=State.WAITING).update(
            waits_for=f"a permission: {call_line(still.tool_call, still.title)}"[:300]
        )
        return
    transition(
        run_id,
        State.RUNNING,
        reason="",
        expect=frozenset({State.WAITING}),
        waits_for="",
        keep_warm_until=None,
    )


def expire_due(now: datetime) -> int:
    """Refuse what nobody answered in time, tell the agents, and return how many there were."""
    due = PermissionRequest.objects.filter(
        state=PermissionState.OPEN, expires_at__lte=now
    ).select_related("pod")
    done = 0
    for request in due:
        option = pick(request.options, "reject")
        done += settle(request, PermissionState.EXPIRED, option_id=option)
    return done


def pick(options: list[dict[str, Any]], what: str) -> str:
    """The id of the narrowest option of a kind (`allow` or `reject`: once before always), or empty."""
    for kind in (f"{what}_once", f"{what}_always"):
        for option in options:
            if option.get("kind") == kind:
                return str(option.get("id", ""))
    return ""


def _who_was_first(request: PermissionRequest) -> AlreadyAnswered:
    now = PermissionRequest.objects.select_related("answered_by").get(pk=request.pk)
    how = DONE_WORDS.get(PermissionState(now.state), now.state)
    if now.answered_by:
        words = f"{now.answered_by} was first: this was {how} already."
    elif now.by_policy:
        words = f"The project's policy was first: this was {how} already."
    else:
        words = f"This was {how} already."
    return AlreadyAnswered(words)
