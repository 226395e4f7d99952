"""Schemas of retention."""

from __future__ import annotations

from typing import Literal

from ninja import Schema

from devaipod_web.api.schemas.common import doc


class RetentionItem(Schema):
    """Something that is old enough to be removed."""

    what: Literal["logs", "volumes"] = doc("What it is.", "logs")
    run: str = doc("The key of its run.", "b7kq2mx4dz")
    title: str = doc("The run's title.", "Retry webhooks")
    ended_at: str = doc("When the run ended, RFC 3339.", "2026-10-01T12:00:00+00:00")
    names: list[str] = doc("The folders' or volumes' names.", ["devaipod-q3m7zt2aob-b7kq2mx4dz"])
    bytes: int = doc("Its size, 0 where unknown.", 48211)
