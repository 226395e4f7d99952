"""The audit log: who did what, in a chain of hashes.

Each entry's digest covers the digest before it and its own canonical JSON, so that a change, an insertion or a removal shows
from there on. A removal of the newest entries does not show in the chain alone: keep the last digest elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from devaipod_web.accounts.models import User
from devaipod_web.reviews.models import AuditEntry

#: The digest before the first entry.
GENESIS = "0" * 64
_PG_LOCK = 0x64657661  # "deva": one writer of the chain at a time on PostgreSQL


@dataclass(frozen=True)
class Verified:
    """What `verify` found: how many entries are sound, the digest of the last of them, the first broken one."""

    entries: int
    last_digest: str
    broken: AuditEntry | None


def write(
    actor: User | None,
    action: str,
    *,
    target: str = "",
    target_url: str = "",
    detail: dict[str, Any] | None = None,
    actor_name: str = "",
) -> AuditEntry:
    """Add an entry, in the caller's transaction when there is one, so that it stands or falls with what it is about.

    `action` is `<thing>.<verb, past>`, as in `review.opened`; `target` names the thing for a reader, `target_url` is its page's
    path; `detail` is plain JSON without secrets. `actor_name` is for those who are no user ("the agent of run …").
    """
    with transaction.atomic():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_PG_LOCK])
        before = AuditEntry.objects.order_by("-id").values_list("digest", flat=True).first()
        entry = AuditEntry(
            at=timezone.now(),
            actor=actor,
            actor_name=_text(actor_name or (actor.get_username() if actor else "system"), 200),
            action=_text(action, 60),
            target=_text(target, 200),
            target_url=_text(target_url, 200),
            detail=_plain(detail or {}),
        )
        entry.digest = digest(before or GENESIS, entry)
        entry.save(force_insert=True)
    return entry


def digest(before: str, entry: AuditEntry) -> str:
    """The digest of an entry after the one whose digest is `before`: SHA-256 over both, hexadecimal."""
    body = {
        "key": entry.key,
        "at": entry.at.isoformat(timespec="microseconds"),
        "actor": entry.actor_name,
        "action": entry.action,
        "target": entry.target,
        "target_url": entry.target_url,
        "detail": entry.detail,
    }
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(f"{before}\n{text}".encode()).hexdigest()


def verify() -> Verified:
    """Compute the whole chain again and return how far it is sound."""
    before, count = GENESIS, 0
    for entry in AuditEntry.objects.order_by("id").iterator(chunk_size=1000):
        if digest(before, entry) != entry.digest:
            return Verified(entries=count, last_digest=before, broken=entry)
        before, count = entry.digest, count + 1
    return Verified(entries=count, last_digest=before, broken=None)


def _text(value: str, limit: int) -> str:
    return value.replace("\x00", "\N{REPLACEMENT CHARACTER}")[:limit]


def _plain(detail: dict[str, Any]) -> dict[str, Any]:
    """The detail as it comes back from the database, so that its digest is the same then."""
    text = json.dumps(detail, default=str).replace("\\u0000", "\\ufffd")
    value: dict[str, Any] = json.loads(text)
    return value
