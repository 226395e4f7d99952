"""What retention would remove, and removing it now instead of at the next daily round."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja import Router

from devaipod_web.accounts.models import User
from devaipod_web.api.auth import caller
from devaipod_web.api.problems import Problem
from devaipod_web.api.routing import operation
from devaipod_web.api.schemas.retention import RetentionItem
from devaipod_web.reviews import audit
from devaipod_web.runs import backends, retention
from pods.errors import BackendError

router = Router(tags=["retention"])


@operation(router, "GET", "", operation_id="retention_plan", response=list[RetentionItem])
def retention_plan(request: HttpRequest) -> list[dict[str, object]]:
    """What is old enough to be removed.

    Logs and volumes of ended runs. Removes nothing.
    """
    return [item.as_json() for item in retention.plan()]


@operation(
    router,
    "POST",
    "",
    operation_id="retention_apply",
    response=list[RetentionItem],
    problems=(503,),
)
def retention_apply(request: HttpRequest) -> list[dict[str, object]]:
    """Remove now what is old enough.

    Answers with what went. Transcripts, reviews and costs stay.
    """
    done = _apply(retention.plan(), caller(request))
    return [item.as_json() for item in done]


def _apply(items: list[retention.Item], by: User) -> list[retention.Item]:
    if not items:
        return []
    try:
        done = backends.run(retention.apply(items, backends.of_target))
    except BackendError as error:
        raise Problem(
            503,
            "backend-unavailable",
            f"Not everything could be removed: {error}",
            next_step="Run `devaipod doctor` on the host, then try again: what is left is planned anew.",
        ) from error
    counts: dict[str, Any] = {}
    for item in done:
        counts[item.what] = counts.get(item.what, 0) + 1
    audit.write(by, "retention.applied", detail=counts)
    return done
