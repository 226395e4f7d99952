"""The two run tokens of a pod: made here, kept as hashes, looked up at each request.

A token counts while its pod lives: until `RunPod.ended_at` is set, or a later attempt of the run has begun. What was
found is remembered for `REMEMBER_SECONDS` so that a stream of model calls does not ask the database each time; a
token is dead within that time.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum

import structlog
from django.db import DatabaseError
from django.db.models import Q

from devaipod_web import db
from devaipod_web.runs.models import RunPod

log = structlog.get_logger("devaipod.gateway")

TOKEN_BYTES = 32
REMEMBER_SECONDS = 1.0
REFRESH_SECONDS = 0.4
#: Tokens remembered at once; the oldest are forgotten first.
MAX_REMEMBERED = 4096


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


_remembered: OrderedDict[str, tuple[float, Caller]] = OrderedDict()
_looking: dict[str, asyncio.Task[None]] = {}


def mint() -> tuple[str, str]:
    """A new token of 256 random bits and the digest that is kept of it."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    return token, digest(token)


def digest(token: str) -> str:
    """SHA-256 of a token in hexadecimal. The token is random, so no slow hash is needed."""
    return hashlib.sha256(token.encode()).hexdigest()


def look_up(token_digest: str) -> Caller | None:
    """The pod whose live token has this digest, straight from the database; None when there is none or it is dead."""
    pod = (
        RunPod.objects.select_related("run__project")
        .filter(Q(control_digest=token_digest) | Q(data_digest=token_digest), ended_at=None)
        .first()
    )
    if pod is None or RunPod.objects.filter(run_id=pod.run_id, attempt__gt=pod.attempt).exists():
        return None
    control = hmac.compare_digest(pod.control_digest, token_digest)
    return Caller(
        pod_id=pod.pk,
        pod_key=pod.key,
        pod_name=pod.name,
        run_id=pod.run_id,
        run_key=pod.run.key,
        project_key=pod.run.project.key,
        kind=TokenKind.CONTROL if control else TokenKind.DATA,
    )


async def find(token: str) -> Caller | None:
    """The pod that this token belongs to, or None; at most `REMEMBER_SECONDS` old.

    A token in use is looked up anew in the background before that time is over, so that requests do not wait for the database.
    """
    wanted = digest(token)
    found = _remembered.get(wanted)
    if found is not None:
        age = time.monotonic() - found[0]
        if age < REMEMBER_SECONDS:
            if age > REFRESH_SECONDS and wanted not in _looking:
                _looking[wanted] = asyncio.create_task(_again(wanted), name="gateway-token")
            return found[1]
        _remembered.pop(wanted, None)
    return await _look(wanted)


async def _look(wanted: str) -> Caller | None:
    # When the reading begins, not when it ends: what was changed meanwhile may not be in it.
    at = time.monotonic()
    caller = await db.read(look_up, wanted)
    if caller is None:
        _remembered.pop(wanted, None)
        return None
    _remembered[wanted] = (at, caller)
    while len(_remembered) > MAX_REMEMBERED:
        _remembered.popitem(last=False)
    return caller


async def _again(wanted: str) -> None:
    try:
        await _look(wanted)
    except DatabaseError:
        log.exception("gateway.token_not_refreshed")  # the next request asks for itself
    finally:
        _looking.pop(wanted, None)


def forget_all() -> None:
    """Ask the database again for every token; between tests and when an operator ends pods by hand."""
    _remembered.clear()
    _looking.clear()
