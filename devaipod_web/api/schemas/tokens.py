"""Schemas of API tokens."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from ninja import Schema

from devaipod_web.accounts.models import ApiToken
from devaipod_web.accounts.tokens import DEFAULT_DAYS, MAX_NAME
from devaipod_web.api.schemas.common import Body, doc, optional

RoleName = Literal["viewer", "operator", "reviewer", "manager"]


class TokenIn(Body):
    """A new token."""

    name: str = doc("What it is for.", "nightly CI", min_length=1, max_length=MAX_NAME)
    days: int = doc(
        "How many days it counts, at most as many as the installation says (`DEVAIPOD_TOKEN_MAX_DAYS`); 0, for managers: until "
        "it is revoked.",
        30,
        DEFAULT_DAYS,
        ge=0,
        le=36500,
    )
    role: RoleName | None = optional(
        "What it may do at most; null: what its maker may do now. It never may do more than its person at the moment.",
        "operator",
    )
    project: str | None = optional(
        "The short name of the one project that it counts for; null: all.",
        "payments",
        min_length=1,
        max_length=60,
    )


class TokenOut(Schema):
    """A token without its text."""

    key: str = doc("The token's public key.", "d2f5g7h3jk")
    name: str = doc("What it is for.", "nightly CI")
    role: RoleName = doc("What it may do at most.", "operator")
    project: str | None = doc("The one project that it counts for, or null.", "payments")
    created_at: datetime = doc("When it was made, RFC 3339.", "2026-11-01T09:30:00Z")
    expires_at: datetime | None = doc(
        "When it ends, or null: when it is revoked.", "2026-12-01T09:30:00Z"
    )
    last_used_at: datetime | None = doc("When it was last used, to the minute.", None)

    @staticmethod
    def resolve_project(obj: ApiToken) -> str | None:
        return obj.project.slug if obj.project else None


class TokenMade(TokenOut):
    """A new token with its text, which is shown this once."""

    token: str = doc("The text to send as `Authorization: Bearer`.", "dvp_0Vq…")
