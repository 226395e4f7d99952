"""One attempt: a POST to an address that the guard has checked, and what came back, bounded."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from concurrent.futures import Executor
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import aiohttp
from django.utils import timezone

from devaipod_web import __version__
from devaipod_web.forges import guard
from devaipod_web.forges.dial import guarded_session
from devaipod_web.forges.errors import ForgeError
from devaipod_web.llm import vault
from devaipod_web.webhooks import schedule, signing
from devaipod_web.webhooks.queue import Job, Outcome

#: From the name server to the last byte that is read (Standard Webhooks: 15 to 30 s).
TIMEOUT_SECONDS = 15.0
#: How long the body of an answer is waited for; its status has decided already.
BODY_SECONDS = 2.0
#: Bytes of an answer that are read; its first characters are kept.
MAX_ANSWER_BYTES = 1024
MAX_ANSWER_CHARACTERS = 500


class Poster:
    """The connections to receivers: one for each attempt, certificates verified, addresses checked as it is made.

    Names are looked up in `lookups`, threads of their own: a name server that hangs holds up nobody else.
    """

    def __init__(self, lookups: Executor) -> None:
        self._lookups = lookups
        self._tls = ssl.create_default_context()
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    async def post(self, job: Job) -> Outcome:
        """Make the attempt. Raises nothing but a cancellation: whatever goes wrong is the outcome."""
        at = timezone.now()
        begun = time.monotonic()

        def outcome(**more: object) -> Outcome:
            return Outcome(at, round((time.monotonic() - begun) * 1000), **more)  # type: ignore[arg-type]

        try:
            secrets = [vault.unseal(sealed).decode() for sealed in job.sealed]
            async with asyncio.timeout(TIMEOUT_SECONDS):
                loop = asyncio.get_running_loop()
                # The resolver checks each name as it is dialled; this one sees to addresses that need no name server.
                target = await loop.run_in_executor(self._lookups, guard.open_webhook, job.url)
                headers = {
                    "Content-Type": "application/json",
                    "User-Agent": f"devaipod/{__version__}",
                    "Accept-Encoding": "identity",
                    **signing.headers(
                        job.key, timestamp=int(time.time()), body=job.body, secrets=secrets
                    ),
                }
                response = await self._session(target.scheme).post(
                    target.url, data=job.body.encode(), headers=headers, allow_redirects=False
                )
        except vault.CannotUnseal:
            return outcome(error="The secret cannot be read with the present encryption key.")
        except ForgeError as error:
            return outcome(error=error.sentence)
        except TimeoutError:
            return outcome(error=f"No answer came within {TIMEOUT_SECONDS:.0f} seconds.")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return outcome(error=sentence(error))
        try:
            answer = await _beginning(response)
        finally:
            response.close()
        return outcome(
            status=response.status,
            answer=answer,
            error="It redirects; redirects are not followed."
            if 300 <= response.status < 400
            else "",
            retry_after=retry_after(response.headers.get("Retry-After", ""), now=at),
        )

    def _session(self, scheme: str) -> aiohttp.ClientSession:
        if scheme not in self._sessions:
            self._sessions[scheme] = guarded_session(
                scheme,
                lookups=self._lookups,
                # A connection that is kept would be used after its network was struck off the list.
                force_close=True,
                limit=0,
                tls=self._tls,
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None),
            )
        return self._sessions[scheme]

    async def close(self) -> None:
        """Close what is open."""
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()


async def _beginning(response: aiohttp.ClientResponse) -> str:
    data = b""
    with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError, ValueError):
        async with asyncio.timeout(BODY_SECONDS):
            while len(data) < MAX_ANSWER_BYTES:
                piece = await response.content.read(MAX_ANSWER_BYTES - len(data))
                if not piece:
                    break
                data += piece
    text = data.decode(errors="replace").replace("\x00", "\N{REPLACEMENT CHARACTER}")
    return text[:MAX_ANSWER_CHARACTERS]


def retry_after(text: str, *, now: datetime) -> timedelta | None:
    """What a `Retry-After` header (RFC 9110 §10.2.3: seconds or a date) asks for, at most `MAX_RETRY_AFTER`; None without one."""
    text = text.strip()
    if text.isdecimal() and text.isascii():
        wait = timedelta(seconds=min(int(text[:9]), 10**8))
    else:
        try:
            moment = parsedate_to_datetime(text)
        except ValueError:
            return None
        wait = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now
    if wait <= timedelta(0):
        return None
    return min(wait, schedule.MAX_RETRY_AFTER)


def sentence(error: Exception) -> str:
    """What a connection's failure means to a person."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"Its certificate is not trusted: {_short(error.certificate_error)}"
    if isinstance(error, aiohttp.ClientSSLError):
        return f"No encrypted connection came about: {_short(error)}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"No connection came about: {error.strerror or _short(error)}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "It closed the connection without an answer."
    return f"It did not answer as HTTP does: {_short(error)}"


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
