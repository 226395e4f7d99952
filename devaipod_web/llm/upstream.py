"""The connection to a provider: its address checked when it is dialled, its key added here and nowhere else."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from devaipod_web.forges import guard
from devaipod_web.forges.dial import guarded_session
from devaipod_web.forges.errors import ForgeError
from devaipod_web.llm.errors import (
    BudgetUsedUp,
    CredentialRefused,
    ModelError,
    NotConfigured,
    ProviderFailed,
    ProviderRefused,
    ProviderSilent,
    RateLimited,
)

CONNECT_SECONDS = 10
#: Longest wait for the first byte of an answer, and between two pieces of it.
FIRST_BYTE_SECONDS = 120
IDLE_SECONDS = 120
MAX_ERROR_BYTES = 16 * 1024
MAX_CONNECTIONS = 200
#: How long a provider's address that was checked is taken for checked.
CHECKED_SECONDS = 30
#: Codes and words by which providers say that credit or quota is used up: with 402 as a rule, but also with 429, 400 or 403.
USED_UP = (
    "insufficient_quota",
    "insufficient_balance",
    "billing_hard_limit_reached",
    "credit balance is too low",
    "exceeded your current quota",
)
#: What may be a credential in a provider's own words ("Incorrect API key provided: sk-…").
LOOKS_SECRET = re.compile(r"\b(?:sk|pk|key|gsk|xai|AIza)[-_A-Za-z0-9*.]{8,}")


@dataclass
class Upstream:
    """One provider's chat address with its key."""

    name: str
    base_url: str
    key: str

    @property
    def url(self) -> str:
        """Where chat completions are asked for."""
        return f"{self.base_url.rstrip('/')}/chat/completions"


_sessions: dict[str, aiohttp.ClientSession] = {}
_checked: dict[str, tuple[float, str]] = {}


def _session(scheme: str) -> aiohttp.ClientSession:
    found = _sessions.get(scheme)
    # A session belongs to the loop that it was made in; tests have one loop each.
    if found is None or found.closed or found._loop is not asyncio.get_running_loop():
        found = guarded_session(
            scheme,
            limit=MAX_CONNECTIONS,
            auto_decompress=True,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            read_bufsize=256 * 1024,
        )
        _sessions[scheme] = found
    return found


async def close() -> None:
    """Close the connections to providers; at the server's end."""
    for session in list(_sessions.values()):
        await session.close()
    _sessions.clear()
    _checked.clear()


async def ask(upstream: Upstream, body: bytes, *, accept: str) -> aiohttp.ClientResponse:
    """Send a request and return the answer whose first byte has come. Raises `ModelError` for everything but a 2xx."""
    scheme = await _checked_scheme(upstream)
    headers = {"Content-Type": "application/json", "Accept": accept, "User-Agent": "devaipod"}
    if upstream.key:
        headers["Authorization"] = f"Bearer {upstream.key}"
    try:
        async with asyncio.timeout(FIRST_BYTE_SECONDS):
            response = await _session(scheme).post(
                upstream.url, data=body, headers=headers, allow_redirects=False
            )
    except TimeoutError as error:
        raise ProviderSilent(
            f"The provider {upstream.name} did not answer within {FIRST_BYTE_SECONDS} seconds.",
            next_step="The agent may try again; if it stays silent, look at the provider's status page.",
        ) from error
    except (aiohttp.ClientError, OSError, ForgeError) as error:
        raise ProviderSilent(
            f"The provider {upstream.name} cannot be reached: {_short(error)}",
            next_step="Check the provider's base address and that this host may reach it.",
        ) from error
    if 200 <= response.status < 300:
        return response
    try:
        raise await _refusal(upstream, response)
    finally:
        response.close()


async def _checked_scheme(upstream: Upstream) -> str:
    """The scheme of a provider's address that the guard lets pass; asked anew every `CHECKED_SECONDS`.

    Each new connection is checked by the resolver in any case; this one says why in a sentence, and sees to plain addresses.
    """
    known = _checked.get(upstream.base_url)
    if known is not None and known[0] > time.monotonic():
        return known[1]
    try:
        target = await asyncio.to_thread(guard.open_url, upstream.base_url)
    except ForgeError as error:
        raise NotConfigured(
            f"The provider {upstream.name} cannot be used: {error.message}",
            next_step=error.next_step,
        ) from error
    _checked[upstream.base_url] = (time.monotonic() + CHECKED_SECONDS, target.scheme)
    return target.scheme


async def _refusal(upstream: Upstream, response: aiohttp.ClientResponse) -> ModelError:
    status = response.status
    text = await _text(response)
    words = masked(_words(response, text), upstream.key)
    said = f": {words}" if words else "."
    if status == BudgetUsedUp.status or (
        400 <= status < 500 and any(words in text.lower() for words in USED_UP)
    ):
        return BudgetUsedUp(
            f"The credit or quota at the provider {upstream.name} is used up ({status}){said}",
            next_step="Add credit or raise the limit with the provider, then prompt the run again.",
        )
    if status in (401, 403):
        return CredentialRefused(
            f"The provider {upstream.name} refused its key ({status}){said}",
            next_step="A manager enters a valid key on the Providers page.",
            status=status,
        )
    if status == 429:
        return RateLimited(
            f"The provider {upstream.name} is at its limit (429){said}",
            next_step="Wait, or raise the limit with the provider.",
            retry_after=response.headers.get("Retry-After", "")[:40],
        )
    if 300 <= status < 400:
        return NotConfigured(
            f"The provider {upstream.name} sends elsewhere ({status}), and redirects are not followed.",
            next_step="Enter the address that it redirects to as the provider's base address.",
        )
    if 400 <= status < 500:
        return ProviderRefused(
            f"The provider {upstream.name} refused the request ({status}){said}",
            next_step="Check the model's name and the length of the conversation.",
            status=status,
        )
    return ProviderFailed(
        f"The provider {upstream.name} failed ({status}){said}",
        next_step="The agent may try again; if it goes on, look at the provider's status page.",
    )


async def _text(response: aiohttp.ClientResponse) -> str:
    """The body of a refusal, at most `MAX_ERROR_BYTES` of it; empty when it does not come."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            data = await response.content.read(MAX_ERROR_BYTES)
    except (aiohttp.ClientError, OSError, TimeoutError):
        return ""
    return data.decode(errors="replace").strip()


def _words(response: aiohttp.ClientResponse, text: str) -> str:
    """What the provider says about its error, at most 500 characters."""
    if "json" in response.headers.get("Content-Type", ""):
        text = _message(text) or text
    elif text.startswith("<"):
        return ""
    return " ".join(text.split())[:500]


def _message(text: str) -> str:
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    error = value.get("error", value) if isinstance(value, Mapping) else value
    message = error.get("message") if isinstance(error, Mapping) else error
    return message if isinstance(message, str) else ""


def masked(text: str, key: str) -> str:
    """The same text without the key and without what looks like one; it is shown to people and to the agent."""
    if key:
        text = text.replace(key, "…")
    return LOOKS_SECRET.sub("…", text)


def _short(error: BaseException) -> str:
    return f"{error}"[:300] or type(error).__name__
