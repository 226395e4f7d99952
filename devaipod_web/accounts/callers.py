"""Who opened a websocket, asked of the store again and again while it is open.

A handshake with an `Authorization` header is a bearer call, and cookies do not count then; any other is the browser's session, whose
Origin was checked before (`asgi.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib.auth import SESSION_KEY, get_user
from django.contrib.sessions.backends.db import SessionStore
from django.http import HttpRequest

from devaipod_web.accounts import tokens
from devaipod_web.accounts.models import User
from devaipod_web.accounts.permissions import Permission, may


@dataclass(frozen=True)
class Caller:
    """The proof that a handshake carried: a session's key or a token's digest, or neither."""

    session_key: str = ""
    token_digest: str = ""

    def user(self) -> User | None:
        """The person whom it proves now; None once session or token has ended. Reads the database."""
        if self.token_digest:
            token = tokens.live(self.token_digest)
            return token.user if token is not None else None
        if not self.session_key:
            return None
        request = HttpRequest()
        request.session = SessionStore(self.session_key)
        if SESSION_KEY not in request.session:
            return None
        user = get_user(request)
        return user if isinstance(user, User) and user.is_active else None

    def may(self, permission: Permission) -> bool:
        """Whether that person has the permission now. Reads the database."""
        user = self.user()
        return user is not None and may(user, permission)


def of(scope: dict[str, Any]) -> Caller:
    """The caller of a handshake. Notes a token's use; reads the session's cookie by what `channels.auth` put into the scope."""
    header = bearer(scope["headers"])
    if header is None:
        return Caller(session_key=getattr(scope.get("session"), "session_key", None) or "")
    scheme, _, text = header.partition(" ")
    if scheme.lower() != "bearer" or tokens.find(text.strip()) is None:
        return Caller()
    return Caller(token_digest=tokens.digest(text.strip()))


def bearer(headers: list[tuple[bytes, bytes]]) -> str | None:
    """The `Authorization` header of a scope, or None."""
    found = [value for name, value in headers if name.lower() == b"authorization"]
    return found[0].decode("latin-1") if found else None
