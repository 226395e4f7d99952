"""The two run tokens of a pod: made here, kept as hashes, looked up at each request.

A token counts while its pod lives: until `RunPod.ended_at` is set, or a later attempt of the run has begun. What was
found is kept fresh beside the requests (`fresh`), so that none of them asks the database; a token is dead within a second.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from django.db.models import Exists, OuterRef, Q

from devaipod_web.gateway.fresh import Fresh
from devaipod_web.runs.models import RunPod

TOKEN_BYTES = 32


class TokenKind(StrEnum):
    """What a token is good for: control at `/sidecar`, data at `/llm` and `/git`."""

    CONTROL = "control"
    DATA = "data"


@dataclass(frozen=True)
class Caller:
    """The pod that a token belongs to."""

    pod_id: int
    pod_key: str
    pod_name: str
    run_id: int
    run_key: str
    project_key: str
    kind: TokenKind
    #: Where the backend last saw the pod; empty while it has not said.
    address: str = ""


def mint() -> tuple[str, str]:
    """A new token of 256 random bits and the digest that is kept of it."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    return token, digest(token)


def digest(token: str) -> str:
    """SHA-256 of a token in hexadecimal. The token is random, so no slow hash is needed."""
    return hashlib.sha256(token.encode()).hexdigest()


def look_up(token_digest: str) -> Caller | None:
    """The pod whose live token has this digest, straight from the database; None when there is none or it is dead."""
    return look_up_all([token_digest]).get(token_digest)


def look_up_all(digests: Collection[str]) -> dict[str, Caller]:
    """The pods of those of these tokens that live, by digest."""
    later = RunPod.objects.filter(run_id=OuterRef("run_id"), attempt__gt=OuterRef("attempt"))
    pods = RunPod.objects.filter(
        Q(control_digest__in=digests) | Q(data_digest__in=digests), ~Exists(later), ended_at=None
    ).values_list(
        *("pk", "key", "name", "run_id", "run__key", "run__project__key"),
        *("control_digest", "data_digest", "address"),
    )
    found = {}
    for pod_id, key, name, run_id, run_key, project_key, control, data, address in pods:
        for kind, its_digest in ((TokenKind.CONTROL, control), (TokenKind.DATA, data)):
            if its_digest in digests:
                found[its_digest] = Caller(
                    pod_id, key, name, run_id, run_key, project_key, kind, address
                )
    return found


_fresh: Fresh[str, Caller] = Fresh("tokens", look_up_all)


async def find(token: str) -> Caller | None:
    """The pod that this token belongs to, or None; what is known of it is at most `fresh.MAX_AGE_SECONDS` old."""
    return await _fresh.get(digest(token))


async def find_anew(token: str) -> Caller | None:
    """The same, as the database has it now."""
    return await _fresh.anew(digest(token))


def forget_all() -> None:
    """Ask the database again for every token; between tests and when an operator ends pods by hand."""
    _fresh.forget_all()
