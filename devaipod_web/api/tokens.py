"""The caller's own tokens over the API."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja import Router
from ninja.responses import Status

from devaipod_web.accounts import tokens
from devaipod_web.accounts.models import ApiToken
from devaipod_web.accounts.permissions import Role, role_of
from devaipod_web.api.auth import caller
from devaipod_web.api.problems import Problem
from devaipod_web.api.reach import nothing, within
from devaipod_web.api.routing import operation
from devaipod_web.api.schemas.tokens import TokenIn, TokenMade, TokenOut
from devaipod_web.projects.models import Project

router = Router(tags=["tokens"])


@operation(router, "GET", "", operation_id="tokens_list", response=list[TokenOut])
def tokens_list(request: HttpRequest) -> list[ApiToken]:
    """List the caller's tokens that count.

    By a token, those that reach no further than it.
    """
    return tokens.of(caller(request))


@operation(
    router,
    "POST",
    "",
    operation_id="token_create",
    response={201: TokenMade},
    once=True,
    problems=(404,),
)
def token_create(request: HttpRequest, body: TokenIn) -> Any:
    """Make a token.

    Its text is in this answer and nowhere else. It can do no more than its maker; one that is made by a token reaches no
    further than that one and ends with it at the latest.
    """
    maker = caller(request)
    project = None
    if body.project is not None:
        seen = within(maker, Project.objects.all()) if role_of(maker) else Project.objects.none()
        project = seen.filter(slug=body.project).first()
        if project is None:
            raise Problem(404, "no-such-project", f"There is no project {body.project[:60]!r}.")
    token, _ = tokens.issue(
        maker,
        body.name,
        days=body.days,
        role=Role(body.role) if body.role is not None else None,
        project=project,
    )
    return Status(201, token)


@operation(
    router, "DELETE", "/{key}", operation_id="token_revoke", response={204: None}, problems=(404,)
)
def token_revoke(request: HttpRequest, key: str) -> Any:
    """End one of the caller's tokens now.

    Streams that were opened with it close within seconds.
    """
    token = next((row for row in tokens.of(caller(request)) if row.key == key), None)
    if token is None:
        raise nothing("token of yours", key)
    tokens.revoke(token, caller(request))
    return Status(204, None)
