"""`Idempotency-Key`: the same request, sent again with the same key, is carried out once (draft-ietf-httpapi-idempotency-key-header).

The request, its claim of the key and its answer are one transaction. So of two that come at once the second waits and gets the
first's answer, and a server that is killed in the middle has done nothing. What a service does under a key must therefore be
database work alone: no lock is held across I/O. A refused request (4xx, 5xx) leaves nothing, and its key may be used again.

An answer may hold a secret (a new token's text), so answers are sealed with a key derived from the installation's encryption
key and the `Idempotency-Key`, of which only the hash is kept: neither the database nor the host's files alone open one.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils import timezone

from devaipod_web.accounts.models import KeptAnswer, User
from devaipod_web.api.problems import Problem
from devaipod_web.llm import vault

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
KEEP = timedelta(hours=24)
MAX_KEY = 255

Run = Callable[..., HttpResponseBase]


def whole(run: Run) -> Run:
    """Around an operation from authentication to answer: one transaction when the request carries a key."""

    @functools.wraps(run)
    def once(request: HttpRequest, **path: Any) -> HttpResponseBase:
        if HEADER not in request.headers:
            return run(request, **path)
        with transaction.atomic():
            response = run(request, **path)
            claim: Claim | None = getattr(request, "claim", None)
            if response.status_code >= 400:
                transaction.set_rollback(True)
            elif claim is not None and isinstance(response, HttpResponse):
                claim.keep(response)
        return response

    return once


class Claim:
    """One caller's key for one request."""

    def __init__(self, user: User, key: str, request_digest: str) -> None:
        self.user = user
        self.key = key
        self.digest = hashlib.sha256(key.encode()).hexdigest()
        self.request_digest = request_digest

    def take(self) -> HttpResponse | None:
        """Claim the key, or return the answer that was given to it. Raises Problem with 422 when it was another request's."""
        now = timezone.now()
        KeptAnswer.objects.filter(at__lt=now - KEEP).delete()
        try:
            with transaction.atomic():
                KeptAnswer.objects.create(
                    user=self.user,
                    key_digest=self.digest,
                    request_digest=self.request_digest,
                    at=now,
                )
        except IntegrityError:
            return self._answer()
        return None

    def _answer(self) -> HttpResponse:
        row = KeptAnswer.objects.get(user=self.user, key_digest=self.digest)
        if row.request_digest != self.request_digest:
            raise Problem(
                422,
                "idempotency-key-reused",
                "This Idempotency-Key was sent with another request in the last 24 hours.",
                next_step="Use a new key for a new request.",
            )
        try:
            body = vault.unseal(bytes(row.body), context=self.key.encode())
        except vault.CannotUnseal:
            raise Problem(
                409,
                "answer-lost",
                "The request was carried out; its answer can no longer be read, since the encryption key was changed.",
                next_step="Look for what it made in the list, or send it with a new key to make another.",
            ) from None
        response = HttpResponse(body, status=row.status, content_type="application/json")
        response.headers[REPLAYED] = "true"
        return response

    def keep(self, response: HttpResponse) -> None:
        """Keep the answer for whoever sends the request again."""
        if REPLAYED in response.headers:
            return
        KeptAnswer.objects.filter(user=self.user, key_digest=self.digest).update(
            status=response.status_code,
            body=vault.seal(response.content, context=self.key.encode()),
        )


def replay(request: HttpRequest, user: User) -> HttpResponse | None:
    """The answer that this request got before, or None when it is to be carried out. Raises Problem with 400 or 422."""
    given = request.headers.get(HEADER)
    if given is None:
        return None
    claim = Claim(user, _key(given), _fingerprint(request, user))
    request.claim = claim  # type: ignore[attr-defined]
    return claim.take()


def _key(header: str) -> str:
    """The key's characters: bare, or as the quoted string of a structured field (RFC 9651) that the draft asks for."""
    text = header.strip()
    if len(text) >= 2 and text.startswith('"') and text.endswith('"'):
        text = text[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    if not 1 <= len(text) <= MAX_KEY or not (text.isascii() and text.isprintable()):
        raise Problem(
            400,
            "bad-idempotency-key",
            f"An Idempotency-Key has 1 to {MAX_KEY} printable ASCII characters.",
            next_step="Send a UUID.",
        )
    return text


def _fingerprint(request: HttpRequest, user: User) -> str:
    """What makes two requests the same: operation, address, body as JSON, and what the caller's token reaches."""
    body = request.body
    with contextlib.suppress(ValueError, RecursionError):
        # Two spellings of one document are one request.
        body = json.dumps(json.loads(body), sort_keys=True).encode()
    token = user.through
    reach = f"{token.role} {token.project_id}" if token is not None else ""
    parts = (str(request.method), request.get_full_path(), reach)
    return hashlib.sha256("\n".join(parts).encode() + b"\n" + body).hexdigest()
