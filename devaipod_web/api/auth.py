"""Who calls an operation, and whether the one permission table lets them.

A request with an `Authorization` header is a bearer call: cookies do not count, whatever they say. Any other is the browser's
session, and then an unsafe method needs the CSRF token. A person without any role is told that nothing is there (404).
What a token that is bound to a project reaches is decided in `reach.py`.
"""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpRequest
from ninja.utils import check_csrf

from devaipod_web.accounts import tokens
from devaipod_web.accounts.models import User
from devaipod_web.accounts.permissions import (
    LEAST_ROLE,
    ORDER,
    ROUTES,
    Permission,
    may,
    role_of,
    stored_role,
)
from devaipod_web.api import parameters, reach
from devaipod_web.api.problems import Problem

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Caller:
    """The check of one operation, made with its id; an id that is not in the table fails at import."""

    # Read by ninja when it writes the OpenAPI document.
    openapi_security_schema = {"type": "http", "scheme": "bearer"}

    def __init__(self, operation_id: str) -> None:
        self.route = f"api:{operation_id}"
        self.permission = ROUTES[self.route]

    def __call__(self, request: HttpRequest) -> User:
        """The person who calls. Raises Problem with 401, 403 or 422, and Http404 for strangers."""
        user = _person(request)
        request.user = user
        request.route = self.route  # type: ignore[attr-defined]
        permit(user, self.permission)
        reach.of_request(user, self.route, request)
        parameters.check(request, self.route)
        return user


def permit(user: User, permission: Permission) -> None:
    """Let through who has the permission now, by role and by token. Raises Http404 for strangers, else Problem with 403."""
    if may(user, permission):
        return
    role = role_of(user)
    if role is None:
        raise Http404
    needed = LEAST_ROLE[permission]
    limited = user.through is not None and may_without_token(user, permission)
    raise Problem(
        403,
        "role-needed",
        f"This needs the role {needed}; {'this token' if limited else user} has {role}.",
        next_step=f"Use a token with the role {needed}." if limited else "Ask a manager.",
    )


def may_without_token(user: User, permission: Permission) -> bool:
    """Whether the person's own role would do, so that the token is what is missing."""
    own = stored_role(user)
    return own is not None and ORDER.index(own) >= ORDER.index(LEAST_ROLE[permission])


def _person(request: HttpRequest) -> User:
    header = request.headers.get("Authorization")
    if header is not None:
        return _bearer(request, header)
    user = request.user
    if not isinstance(user, User) or not user.is_authenticated or not user.is_active:
        raise Problem(
            401,
            "not-signed-in",
            "This needs a token.",
            next_step="Send `Authorization: Bearer dvp_…`; `devaipod token create` makes one.",
        )
    if request.method not in SAFE_METHODS and check_csrf(request) is not None:
        raise Problem(
            403,
            "csrf",
            "The request has no valid CSRF token.",
            next_step="Send the cookie's value as `X-CSRFToken`, or use a bearer token.",
        )
    return user


def _bearer(request: HttpRequest, header: str) -> User:
    scheme, _, text = header.partition(" ")
    user = tokens.find(text.strip()) if scheme.lower() == "bearer" else None
    if user is None:
        raise Problem(
            401,
            "token-refused",
            "The token is unknown, expired or revoked.",
            next_step="Make another one on the page Tokens, or by `devaipod token create`.",
        )
    request.token_digest = tokens.digest(text.strip())  # type: ignore[attr-defined]
    return user


def caller(request: HttpRequest) -> User:
    """The person that `Caller` found."""
    user = request.user
    assert isinstance(user, User)
    return user


def still_counts(
    user_id: int,
    token_digest: str | None,
    session_key: str | None,
    permission: Permission = Permission.VIEW,
) -> bool:
    """Whether a stream that was opened may go on: token or session alive, and the permission still there.

    A token's project never changes, and neither does a run's: what was in reach at the beginning stays there.
    """
    if token_digest is not None:
        token = tokens.live(token_digest)
        return token is not None and may(token.user, permission)
    user = User.objects.filter(pk=user_id).first()
    return user is not None and _session_lives(session_key, user) and may(user, permission)


def _session_lives(session_key: str | None, user: User) -> bool:
    from django.contrib.auth import SESSION_KEY
    from django.contrib.sessions.models import Session
    from django.utils import timezone

    row = Session.objects.filter(session_key=session_key, expire_date__gt=timezone.now()).first()
    return row is not None and str(row.get_decoded().get(SESSION_KEY)) == str(user.pk)


def holder(request: HttpRequest) -> tuple[int, str | None, str | None, Permission]:
    """What `still_counts` needs of this request."""
    digest: Any = getattr(request, "token_digest", None)
    route: Any = getattr(request, "route", "")
    return (
        caller(request).pk,
        digest,
        request.session.session_key,
        ROUTES.get(route, Permission.VIEW),
    )
