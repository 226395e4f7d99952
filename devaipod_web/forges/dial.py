"""HTTP connections to addresses that people typed, each checked by the guard as it is made."""

from __future__ import annotations

import asyncio
import socket
import ssl
from concurrent.futures import Executor
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from devaipod_web.forges import guard


class GuardedResolver(AbstractResolver):
    """Names are resolved and their addresses checked by the guard each time a connection is made.

    aiohttp does not ask it for what looks like an IP address: check those before (`guard.open_url` and its like).
    """

    def __init__(self, scheme: str, lookups: Executor | None = None) -> None:
        self._scheme = scheme
        self._lookups = lookups

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await asyncio.get_running_loop().run_in_executor(
            self._lookups, lambda: guard.resolve(host, port, scheme=self._scheme)
        )
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in found
        ]

    async def close(self) -> None:
        """Nothing is held."""


def guarded_session(
    scheme: str,
    *,
    lookups: Executor | None = None,
    limit: int = 100,
    force_close: bool = False,
    tls: ssl.SSLContext | None = None,
    **session: Any,
) -> aiohttp.ClientSession:
    """A client for one scheme whose connections go where the guard lets them: no proxy of the environment, no cookies.

    `lookups` are the threads that ask the name server (None: the loop's own); `session` are options of aiohttp's ClientSession.
    The caller passes `allow_redirects=False` with each request.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            resolver=GuardedResolver(scheme, lookups),
            limit=limit,
            force_close=force_close,
            use_dns_cache=False,
            ssl=tls if tls is not None else True,
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        **session,
    )
