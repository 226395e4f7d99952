"""Where a request at the gateway comes from, and whether a pod's token counts there (docs/decisions/0012).

On the Unix socket the mount says it: each sidecar sees the socket in a folder of its own. On the TCP port the connection's source
address does: a token counts only from the address that the backend last reported for its pod (`RunPod.address`). What a request says
of itself (`X-Forwarded-For`, `Forwarded`) never counts. A relay that knows which pod it carries says so by `Origin.pod`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

from devaipod_web.gateway import tokens
from devaipod_web.gateway.http import Receive, Request, Scope, Send
from devaipod_web.gateway.tokens import Caller
from devaipod_web.runs import wake

Application = Callable[[Scope, Receive, Send], Awaitable[None]]

#: The key of an `Origin` in an ASGI scope; a scope without one came through a pod's own socket.
SCOPE_KEY = "devaipod.origin"
#: How long a sidecar that dials waits for its pod's address, and how long at most between two looks.
ADDRESS_SECONDS = 4.0
LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Origin:
    """What is known of a connection's other end: its source address, or the name of the pod that a relay carries it from."""

    address: str = ""
    pod: str = ""


class Verdict(StrEnum):
    """Whether a token counts where it came from."""

    YES = "yes"
    NOT_YET = "not-yet"  # the pod's address is not known so far: ask again
    NO = "no"


def of_scope(scope: Scope) -> Origin | None:
    """The origin of a request; None for one that came through a pod's own socket."""
    found = scope.get(SCOPE_KEY)
    return found if isinstance(found, Origin) else None


def judge(origin: Origin | None, caller: Caller) -> Verdict:
    """Whether the caller's token counts at this origin."""
    if origin is None:
        return Verdict.YES
    if origin.pod:
        return Verdict.YES if origin.pod == caller.pod_name else Verdict.NO
    known = _address(caller.address)
    if known is None:
        return Verdict.NOT_YET
    return Verdict.YES if _address(origin.address) == known else Verdict.NO


async def judged(request: Request, caller: Caller) -> Verdict:
    """The same for a request; before it is told that the pod's address is unknown, the database is asked once more."""
    found = of_scope(request.scope)
    verdict = judge(found, caller)
    if verdict is Verdict.NOT_YET:
        now = await tokens.find_anew(request.bearer)
        verdict = judge(found, now) if now is not None else Verdict.NO
    return verdict


async def awaited(request: Request, caller: Caller) -> Verdict:
    """The same for a sidecar that dials: it is kept waiting for some seconds while its pod's address is on the way.

    A pod's first program runs before its backend tells the address (the kubelet looks once a second): refused, it would
    lose its back-off on top of that.
    """
    deadline = time.monotonic() + ADDRESS_SECONDS
    with wake.listening(caller.run_key) as awake:
        while True:
            verdict = await judged(request, caller)
            if verdict is not Verdict.NOT_YET or time.monotonic() > deadline:
                return verdict
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await awake.wait()
            awake.clear()


def sentence(verdict: Verdict) -> str:
    """What a refused sidecar is told."""
    if verdict is Verdict.NOT_YET:
        return "The pod's address is not known yet: try again in a second."
    return "This token belongs to another pod: it does not count from this address."


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address as it is compared: an IPv4 address that a dual-stack socket shows as IPv6 is the IPv4 address."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(found, "ipv4_mapped", None)
    return mapped or found


class AtPort:
    """The gateway's application as the TCP port serves it: each request carries its connection's source address.

    The server in front must not read that from headers (`proxy_headers=False`).
    """

    def __init__(self, inner: Application) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its origin."""
        if scope["type"] in ("http", "websocket"):
            client = scope.get("client") or ("", 0)
            scope[SCOPE_KEY] = Origin(address=str(client[0]))
        await self._inner(scope, receive, send)
