"""API tokens: a bearer token acts as its person, with the person's role at that moment."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta

from django.utils import timezone

from devaipod_web.accounts.errors import BadName
from devaipod_web.accounts.models import ApiToken, User
from devaipod_web.reviews import audit

PREFIX = "dvp_"
MAX_NAME = 80
#: `last_used_at` is written at most once in this time, so that a busy script does not write on every call.
USE_NOTED_EVERY = timedelta(minutes=1)


def digest(token: str) -> str:
    """The SHA-256 that is kept of a token. Tokens are 256 random bits, so no salt or slow hash is needed."""
    return hashlib.sha256(token.encode()).hexdigest()


def create(
    user: User, name: str, *, expires_at: datetime | None = None, by: User | None = None
) -> tuple[ApiToken, str]:
    """Make a token and return it with its text, which is shown this once. Raises BadName."""
    name = name.strip()
    if not name or len(name) > MAX_NAME:
        raise BadName(
            f"A token's name has 1 to {MAX_NAME} characters.", next_step="Say where it is used."
        )
    text = PREFIX + secrets.token_urlsafe(32)
    token = ApiToken.objects.create(
        user=user, name=name, digest=digest(text), expires_at=expires_at
    )
    audit.write(
        by or user, "token.created", target=f"{name} ({token.key})", detail={"of": user.username}
    )
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
    """The token of this digest while it counts; open streams ask again and again."""
    token = ApiToken.objects.select_related("user").filter(digest=token_digest).first()
    if token is None or token.revoked_at is not None or not token.user.is_active:
        return None
    if token.expires_at is not None and token.expires_at <= timezone.now():
        return None
    return token


def of(user: User) -> list[ApiToken]:
    """A person's tokens that count, newest first."""
    now = timezone.now()
    rows = ApiToken.objects.filter(user=user, revoked_at=None).order_by("-created_at")
    return [row for row in rows if row.expires_at is None or row.expires_at > now]


def revoke(token: ApiToken, by: User) -> bool:
    """End a token now. Returns False when it was ended before."""
    ended = ApiToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=timezone.now())
    if ended:
        audit.write(by, "token.revoked", target=f"{token.name} ({token.key})")
    return bool(ended)
