"""API tokens: a bearer token acts as its person, with at most its own role, and with a project for that project alone.

What a token can do is decided in one place: the person that `find` and `live` return carries it (`User.through`), and
`permissions.role_of` and `api.reach` look there.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from devaipod_web.accounts.errors import BadLifetime, BadName, BeyondOwnReach
from devaipod_web.accounts.models import ApiToken, User
from devaipod_web.accounts.permissions import ORDER, Role, role_of, stored_role
from devaipod_web.projects.models import Project
from devaipod_web.reviews import audit

PREFIX = "dvp_"
MAX_NAME = 80
#: `last_used_at` is written at most once in this time, so that a busy script does not write on every call.
USE_NOTED_EVERY = timedelta(minutes=1)
DEFAULT_DAYS = 90


def digest(token: str) -> str:
    """The SHA-256 that is kept of a token. Tokens are 256 random bits, so no salt or slow hash is needed."""
    return hashlib.sha256(token.encode()).hexdigest()


def issue(
    maker: User,
    name: str,
    *,
    days: int = DEFAULT_DAYS,
    role: Role | None = None,
    project: Project | None = None,
) -> tuple[ApiToken, str]:
    """Make a token for `maker` and return it with its text, which is shown this once.

    `days` is how long it counts, 0 until it is revoked; `role` is the maker's own unless a lesser one is given; a `project`
    binds it. A token that is made by a token reaches no further than that one, and ends with it at the latest. Raises
    BadName, BadLifetime and BeyondOwnReach.
    """
    own = role_of(maker) or Role.VIEWER
    role = role or own
    if ORDER.index(role) > ORDER.index(own):
        raise BeyondOwnReach(
            f"You have the role {own}: a token of yours can't have {role}.",
            next_step=f"Choose {own} or less.",
        )
    by = maker.through
    if by is not None and by.project is not None:
        if project is not None and project != by.project:
            raise BeyondOwnReach(
                f"This token counts for the project {by.project.slug} alone; so does one that it makes.",
                next_step="Sign in, or use a token without a project.",
            )
        project = by.project
    expires_at = _ends(days, role=own)
    if by is not None and by.expires_at is not None:
        expires_at = min(expires_at or by.expires_at, by.expires_at)
    return create(maker, name, expires_at=expires_at, role=role, project=project)


def _ends(days: int, *, role: Role) -> datetime | None:
    most = settings.TOKEN_MAX_DAYS
    if days == 0 and role is Role.MANAGER:
        return None
    if not 1 <= days <= most:
        forever = "; only a manager's may count until it is revoked (0)" if days == 0 else ""
        raise BadLifetime(
            f"A token counts for 1 to {most} days{forever}.",
            next_step=f"Leave it out for {min(DEFAULT_DAYS, most)} days.",
        )
    return timezone.now() + timedelta(days=days)


def create(
    user: User,
    name: str,
    *,
    expires_at: datetime | None = None,
    by: User | None = None,
    role: Role = Role.MANAGER,
    project: Project | None = None,
) -> tuple[ApiToken, str]:
    """Make a token without asking what its maker may give (`issue` does), and return it with its text. Raises BadName."""
    name = name.strip()
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise BadName(
            f"A token's name has 1 to {MAX_NAME} characters.", next_step="Say where it is used."
        )
    text = PREFIX + secrets.token_urlsafe(32)
    with transaction.atomic():
        token = ApiToken.objects.create(
            user=user,
            name=name,
            digest=digest(text),
            expires_at=expires_at,
            role=role,
            project=project,
        )
        audit.write(
            by or user,
            "token.created",
            target=f"{name} ({token.key})",
            detail={
                "of": user.username,
                "role": role,
                "project": project.slug if project else "",
                "expires_at": expires_at,
            },
        )
    token.token = text
    return token, text


def find(bearer: str) -> User | None:
    """The person whose token this is, or None when it is unknown, expired, revoked, or the person is inactive."""
    token = live(digest(bearer)) if bearer.startswith(PREFIX) else None
    if token is None:
        return None
    now = timezone.now()
    if token.last_used_at is None or now - token.last_used_at > USE_NOTED_EVERY:
        ApiToken.objects.filter(pk=token.pk).update(last_used_at=now)
    return token.user


def live(token_digest: str) -> ApiToken | None:
    """The token of this digest while it counts; its `user` carries it. Open streams ask again and again."""
    found = ApiToken.objects.select_related("user", "project").filter(digest=token_digest)
    token = found.first()
    if token is None or token.revoked_at is not None or not token.user.is_active:
        return None
    if token.expires_at is not None and token.expires_at <= timezone.now():
        return None
    token.user.through = token
    return token


def of(user: User) -> list[ApiToken]:
    """A person's tokens that count, newest first; to one who calls by a token, only those that reach no further than it."""
    now = timezone.now()
    rows = ApiToken.objects.filter(user=user, revoked_at=None).select_related("project")
    by = user.through
    if by is not None:
        rows = rows.filter(role__in=ORDER[: ORDER.index(Role(by.role)) + 1])
        if by.project_id is not None:
            rows = rows.filter(project=by.project_id)
    found = list(rows.exclude(expires_at__lte=now).order_by("-created_at"))
    own = stored_role(user)
    for row in found:
        row.may = min(own, Role(row.role), key=ORDER.index) if own is not None else "nothing"
    return found


def revoke(token: ApiToken, by: User) -> bool:
    """End a token now. Returns False when it was ended before."""
    ended = ApiToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=timezone.now())
    if ended:
        audit.write(by, "token.revoked", target=f"{token.name} ({token.key})")
    return bool(ended)
