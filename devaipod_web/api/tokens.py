"""The caller's own tokens over the API."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.http import Http404, HttpRequest
from django.utils import timezone
from ninja import Router
from ninja.responses import Status

from devaipod_web.accounts import tokens
from devaipod_web.accounts.models import ApiToken
from devaipod_web.api.auth import caller
from devaipod_web.api.problems import Problem
from devaipod_web.api.routing import operation
from devaipod_web.api.schemas import TokenIn, TokenMade, TokenOut, token_made

router = Router(tags=["tokens"])

MAX_DAYS = 366


@operation(router, "GET", "", operation_id="tokens_list", response=list[TokenOut])
def tokens_list(request: HttpRequest) -> list[ApiToken]:
    """List the caller's tokens that count."""
    return tokens.of(caller(request))


@operation(router, "POST", "", operation_id="token_create", response={201: TokenMade})
def token_create(request: HttpRequest, body: TokenIn) -> Any:
    """Make a token. Its text is in this answer and nowhere else."""
    if not 0 <= body.days <= MAX_DAYS:
        raise Problem(
            400,
            "bad-lifetime",
            f"A token counts for 1 to {MAX_DAYS} days, or with 0 until it is revoked.",
        )
    expires = timezone.now() + timedelta(days=body.days) if body.days else None
    token, text = tokens.create(caller(request), body.name, expires_at=expires)
    return Status(201, token_made(token, text))


@operation(router, "DELETE", "/{key}", operation_id="token_revoke", response={204: None})
def token_revoke(request: HttpRequest, key: str) -> Any:
    """End one of the caller's tokens now; streams opened with it close within seconds."""
    token = ApiToken.objects.filter(user=caller(request), key=key).first()
    if token is None:
        raise Http404(f"You have no token {key[:20]!r}.")
    tokens.revoke(token, caller(request))
    return Status(204, None)
