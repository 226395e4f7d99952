"""The connection to a provider: its address checked when it is dialled, its key added here and nowhere else."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import aiohttp
from yarl import URL

from devaipod_web.forges import guard
from devaipod_web.forges.dial import guarded_session
from devaipod_web.forges.errors import ForgeError, UpstreamUnreachable
from devaipod_web.llm import vertex
from devaipod_web.llm.errors import (
    BudgetUsedUp,
    CredentialRefused,
    ModelError,
    NotConfigured,
    ProviderFailed,
    ProviderRefused,
    ProviderSilent,
    ProviderUnreachable,
    RateLimited,
)
from devaipod_web.llm.forms import Form
from devaipod_web.llm.forms.reader import error_words
from devaipod_web.llm.models import ProviderKind
from devaipod_web.llm.routing import Upstream

CONNECT_SECONDS = 10
#: Longest wait for an answer to begin, and between two pieces of it.
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
LOOKS_SECRET = re.compile(r"\b(?:sk|pk|key|gsk|xai|AIza|ya29)[-_A-Za-z0-9*.]{8,}")
_parsed = lru_cache(maxsize=1024)(lambda url: URL(url, encoded=True))


class _Door:
    """What a process keeps of its providers: connections, addresses that were checked, tokens. Belongs to one loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.sessions: dict[str, aiohttp.ClientSession] = {}
        self.checked: dict[str, tuple[float, str]] = {}
        self.checking: dict[str, asyncio.Task[str]] = {}
        self.tokens = vertex.Tokens()

    def session(self, scheme: str) -> aiohttp.ClientSession:
        found = self.sessions.get(scheme)
        if found is None:
            found = self.sessions[scheme] = guarded_session(
                scheme,
                limit=MAX_CONNECTIONS,
                auto_decompress=True,
                skip_auto_headers=("User-Agent", "Accept", "Content-Type"),
                read_bufsize=256 * 1024,
            )
        return found


_door: _Door | None = None


def _here() -> _Door:
    global _door
    # A session belongs to the loop that it was made in; tests have one loop each.
    if _door is None or _door.loop is not asyncio.get_running_loop():
        _door = _Door()
    return _door


async def close() -> None:
    """Close the connections to providers; at the server's end."""
    global _door
    if _door is not None:
        for session in list(_door.sessions.values()):
            await session.close()
    _door = None


async def ask(
    to: Upstream, url: str, body: bytes, headers: Mapping[str, str], *, accept: str, form: Form
) -> aiohttp.ClientResponse:
    """Send a request and return the answer, whose head has come. Raises `ModelError` for everything but a 2xx."""
    scheme = await _checked_scheme(to)
    sent = {
        "Content-Type": "application/json",
        "Accept": accept,
        "User-Agent": "devaipod",
        **headers,
        **await credential(to),
    }
    try:
        response = await (
            _here()
            .session(scheme)
            .post(
                _parsed(url),
                data=body,
                headers=sent,
                allow_redirects=False,
                timeout=_timeouts(CONNECT_SECONDS, IDLE_SECONDS),
            )
        )
    except aiohttp.ConnectionTimeoutError as error:
        raise _unreachable(to, error) from error
    except TimeoutError as error:
        raise ProviderSilent(
            f"The provider {to.name} did not answer within {IDLE_SECONDS} seconds.",
            next_step="The agent may try again; if it stays silent, look at the provider's status page.",
        ) from error
    except (aiohttp.ClientError, OSError, ForgeError) as error:
        raise _unreachable(to, error) from error
    if 200 <= response.status < 300:
        return response
    try:
        raise await _refusal(to, response, form)
    finally:
        response.close()


@lru_cache(maxsize=8)
def _timeouts(connect: float, idle: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=connect, sock_read=idle)


def _unreachable(to: Upstream, error: BaseException) -> ProviderUnreachable:
    return ProviderUnreachable(
        f"The provider {to.name} cannot be reached: {masked(f'{error}'[:300], to.key) or type(error).__name__}",
        next_step="Check the provider's base address and that this host may reach it.",
    )


async def credential(to: Upstream) -> dict[str, str]:
    """The header that carries the provider's key, each kind in its own way."""
    if not to.key:
        return {}
    match to.kind:
        case ProviderKind.ANTHROPIC:
            return {"x-api-key": to.key}
        case ProviderKind.GEMINI:
            return {"x-goog-api-key": to.key}
        case ProviderKind.VERTEX:
            return {"Authorization": f"Bearer {await _here().tokens.of(to.name, to.key)}"}
        case _:
            return {"Authorization": f"Bearer {to.key}"}


async def _checked_scheme(to: Upstream) -> str:
    """The scheme of a provider's address that the guard lets pass; asked anew every `CHECKED_SECONDS`, beside the requests.

    Each new connection is checked by the resolver in any case; this one says why in a sentence, and sees to plain addresses.
    """
    door = _here()
    known = door.checked.get(to.base_url)
    now = time.monotonic()
    if known is not None and known[0] > now:
        if known[0] - now < CHECKED_SECONDS / 2 and to.base_url not in door.checking:
            _check(door, to).add_done_callback(lambda task: task.cancelled() or task.exception())
        return known[1]
    return await asyncio.shield(door.checking.get(to.base_url) or _check(door, to))


def _check(door: _Door, to: Upstream) -> asyncio.Task[str]:
    async def check() -> str:
        try:
            target = await asyncio.to_thread(guard.open_url, to.base_url)
        except ForgeError as error:
            door.checked.pop(to.base_url, None)
            raise (_no_name if isinstance(error, UpstreamUnreachable) else _not_allowed)(
                to, error
            ) from error
        finally:
            door.checking.pop(to.base_url, None)
        door.checked[to.base_url] = (time.monotonic() + CHECKED_SECONDS, target.scheme)
        return target.scheme

    task = asyncio.create_task(check(), name="llm-address")
    door.checking[to.base_url] = task
    return task


def _no_name(to: Upstream, error: ForgeError) -> ModelError:
    return ProviderUnreachable(
        f"The provider {to.name} cannot be reached: {error.message}", next_step=error.next_step
    )


def _not_allowed(to: Upstream, error: ForgeError) -> ModelError:
    return NotConfigured(
        f"The provider {to.name} cannot be used: {error.message}", next_step=error.next_step
    )


async def _refusal(to: Upstream, response: aiohttp.ClientResponse, form: Form) -> ModelError:
    status = response.status
    words, body = await _words(to, response)
    said = f": {words}" if words else "."
    if status == BudgetUsedUp.status or (
        400 <= status < 500 and any(sign in f"{words} {body!r}".lower() for sign in USED_UP)
    ):
        return BudgetUsedUp(
            f"The credit or quota at the provider {to.name} is used up ({status}){said}",
            next_step="Add credit or raise the limit with the provider, then prompt the run again.",
        )
    if status in (401, 403):
        return CredentialRefused(
            f"The provider {to.name} refused its key ({status}){said}",
            next_step="A manager enters a valid key on the Providers page.",
            status=status,
        )
    if status == 429:
        return RateLimited(
            f"The provider {to.name} is at its limit (429){said}",
            next_step="Wait, or raise the limit with the provider.",
            retry_after=response.headers.get("Retry-After", "")[:40],
        )
    if 300 <= status < 400:
        return NotConfigured(
            f"The provider {to.name} sends elsewhere ({status}), and redirects are not followed.",
            next_step="Enter the address that it redirects to as the provider's base address.",
        )
    if 400 <= status < 500:
        return ProviderRefused(
            f"The provider {to.name} refused the request ({status}){said}",
            next_step="Check the model's name and the length of the conversation.",
            status=status,
            body=body,
        )
    return ProviderFailed(
        f"The provider {to.name} failed ({status}){said}",
        next_step="The agent may try again; if it goes on, look at the provider's status page.",
        status=status if status in (500, 502, 503, 504, 529) else None,
    )


async def _words(to: Upstream, response: aiohttp.ClientResponse) -> tuple[str, bytes]:
    """What the provider says about its error, at most 500 characters, and its own body where that is an error in JSON.

    Agents read the body of a refused request: "prompt is too long" makes some of them shorten the conversation.
    """
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            data = await response.content.read(MAX_ERROR_BYTES)
    except (aiohttp.ClientError, OSError, TimeoutError):
        return "", b""
    text = masked(data.decode(errors="replace").strip(), to.key)
    value = _json(text)
    if value is not None:
        words = error_words(value) or _message(value) or text
        return " ".join(words.split())[:500], text.encode() if "error" in value else b""
    if text.startswith("<"):
        return "", b""
    return " ".join(text.split())[:500], b""


def _json(text: str) -> Mapping[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, list) and value:
        value = value[0]  # Google wraps the errors of a stream in an array
    return value if isinstance(value, dict) else None


def _message(value: Mapping[str, Any]) -> str:
    found = value.get("message") or value.get("error") or value.get("detail")
    return found if isinstance(found, str) else ""


def masked(text: str, key: str) -> str:
    """The same text without the key and without what looks like one; it is shown to people and to the agent."""
    if key:
        text = text.replace(key, "…")
    return LOOKS_SECRET.sub("…", text)
