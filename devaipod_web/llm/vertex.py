"""Access tokens for Vertex AI: from a service account's key by google-auth, refreshed beside the requests that use them.

The key (JSON, sealed in the vault) signs an assertion, and Google's token endpoint gives an access token for an hour. The
endpoint's address stands in the key, which a person typed: it passes the guard like every other one.
"""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
from collections.abc import Mapping
from typing import Any

import structlog
from google.auth import exceptions
from google.auth.credentials import TokenState
from google.auth.transport import Request, Response
from google.oauth2 import service_account

from devaipod_web.forges.errors import ForgeError
from devaipod_web.llm import pinned
from devaipod_web.llm.errors import CredentialRefused, NotConfigured, ProviderSilent

log = structlog.get_logger("devaipod.llm")

SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
TOKEN_URI = "https://oauth2.googleapis.com/token"


class InvalidKey(ValueError):
    """The text is not the JSON key of a service account. The message is a sentence."""


class _Answer(Response):
    def __init__(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
        self._status, self._headers, self._data = status, headers, data

    @property
    def status(self) -> int:
        return self._status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._headers

    @property
    def data(self) -> bytes:
        return self._data


class _Guarded(Request):
    """google-auth's way out: through the guard."""

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **more: Any,
    ) -> Response:
        if isinstance(body, str):
            body = body.encode()
        try:
            return _Answer(*pinned.request(url, method=method, body=body, headers=headers or {}))
        except (ForgeError, OSError, http.client.HTTPException) as error:
            raise exceptions.TransportError(error) from error


def credentials_of(key: str) -> service_account.Credentials:
    """google-auth's credentials of a service account's JSON key. Raises `InvalidKey`."""
    try:
        info = json.loads(key)
        if not isinstance(info, dict) or info.get("type") != "service_account":
            raise InvalidKey("This is not the key of a service account: its JSON has no such type.")
        info.setdefault("token_uri", TOKEN_URI)
        return service_account.Credentials.from_service_account_info(info, scopes=SCOPES)
    except InvalidKey:
        raise
    except (ValueError, TypeError, KeyError, RecursionError, exceptions.GoogleAuthError) as error:
        raise InvalidKey("This is not the JSON key of a service account.") from error


class Tokens:
    """The access tokens of one process, by key."""

    def __init__(self) -> None:
        self._credentials: dict[str, service_account.Credentials] = {}
        self._refreshing: dict[str, asyncio.Task[None]] = {}

    async def of(self, provider: str, key: str) -> str:
        """A token that counts now. Near its end it is refreshed in the background; only the first request waits for one.

        Raises NotConfigured for a key that is none, CredentialRefused when Google refuses it, ProviderSilent when nobody answers.
        """
        name = hashlib.sha256(key.encode()).hexdigest()
        credentials = self._credentials.get(name)
        if credentials is None:
            try:
                credentials = credentials_of(key)
            except InvalidKey as error:
                raise NotConfigured(
                    f"The provider {provider} cannot be used: {error}",
                    next_step="A manager enters the service account's key again.",
                ) from error
            self._credentials[name] = credentials
        state = credentials.token_state
        if state is not TokenState.FRESH:
            task = self._refreshing.get(name)
            if task is None:
                task = asyncio.create_task(self._refresh(name, credentials), name="vertex-token")
                self._refreshing[name] = task
                task.add_done_callback(_seen)
            if state is TokenState.INVALID:
                await self._wait(provider, task)
        return str(credentials.token)

    async def _refresh(self, name: str, credentials: service_account.Credentials) -> None:
        try:
            await asyncio.to_thread(credentials.refresh, _Guarded())
        finally:
            self._refreshing.pop(name, None)

    async def _wait(self, provider: str, task: asyncio.Task[None]) -> None:
        try:
            await asyncio.shield(task)
        except exceptions.TransportError as error:
            raise ProviderSilent(
                f"The provider {provider} cannot be used: Google's token endpoint does not answer.",
                next_step="Check token_uri in the service account's key and that this host may reach it.",
            ) from error
        except exceptions.GoogleAuthError as error:
            words = str(error.args[0] if error.args else error)[:200]
            raise CredentialRefused(
                f"The provider {provider} cannot be used: Google gives no token for its key ({words}).",
                next_step="A manager enters a valid service account's key on the Providers page.",
            ) from error


def _seen(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("llm.vertex_token_not_refreshed", error=str(error)[:300])
