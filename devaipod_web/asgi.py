"""The web app's ASGI application: Django's pages and API, and the browsers' websockets. The gateway is another one."""

from __future__ import annotations

import os
import time
from typing import Any
from urllib.parse import urlsplit

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "devaipod_web.settings")

from django.core.asgi import get_asgi_application

pages = get_asgi_application()  # before anything that needs the app registry

import structlog  # noqa: E402
from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.conf import settings  # noqa: E402
from django.http.request import validate_host  # noqa: E402

from devaipod_web.accounts import callers  # noqa: E402
from devaipod_web.gateway.http import Message, Receive, Scope, Send  # noqa: E402
from devaipod_web.runs.routing import websocket_urlpatterns  # noqa: E402

log = structlog.get_logger("devaipod.web")
#: Paths that are asked for all the time and say nothing.
QUIET_PATHS = ("/static/", "/healthz", "/readyz")


class AccessLog:
    """One line a request, with its status and how long it took. The log's mask takes sign-in tokens out of the path."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and log its end."""
        if scope["type"] != "http" or scope["path"].startswith(QUIET_PATHS):
            await self.inner(scope, receive, send)
            return
        began = time.monotonic()
        status = 0

        async def noting(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.inner(scope, receive, noting)
        finally:
            log.info(
                "http.request",
                method=scope["method"],
                path=scope["path"][:300],
                status=status,
                milliseconds=int((time.monotonic() - began) * 1000),
            )


class SameOrigin:
    """Lets a websocket through when its page came from this very server: scheme's host and port of Origin are the request's Host.

    Browsers send cookies along with a socket that any page opens, and a cookie does not know ports: a page on
    another port of this host would pass a check of the host's name alone. No page can send an `Authorization` header: a handshake
    with one needs no Origin, and its cookies do not count.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the socket on, or refuse the handshake (403)."""
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        is_bearer = callers.bearer(scope["headers"]) is not None
        if is_bearer:
            kept = [pair for pair in scope["headers"] if pair[0].lower() != b"cookie"]
            scope = {**scope, "headers": kept}
        origin = headers.get(b"origin")
        needs_origin = origin is not None or not is_bearer
        if needs_origin and not allowed(origin or "", headers.get(b"host", "")):
            await receive()
            await send({"type": "websocket.close", "code": 4403})
            return
        await self.inner(scope, receive, send)


def allowed(origin: str, host: str) -> bool:
    """Whether a page of this origin may open a socket to this host."""
    public = urlsplit(settings.PUBLIC_URL)
    try:
        given = urlsplit(origin)
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if given.scheme not in ("http", "https") or not given.netloc:
        return False
    name = f"[{name}]" if ":" in name else name
    if public.netloc and (given.scheme, given.netloc) == (public.scheme, public.netloc):
        return True
    return given.netloc.lower() == host.lower() and validate_host(name, settings.ALLOWED_HOSTS)


application = ProtocolTypeRouter(
    {
        "http": AccessLog(pages),
        "websocket": SameOrigin(AuthMiddlewareStack(URLRouter(websocket_urlpatterns))),
    }
)
