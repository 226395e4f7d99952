"""One blocking HTTP request to exactly the address that the guard has checked: no proxy, no redirect, a bounded answer."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

from devaipod_web.forges import guard

TIMEOUT_SECONDS = 10.0
MAX_ANSWER_BYTES = 2 * 1024**2


def request(
    url: str, *, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str]
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (names in lower case) and at most `MAX_ANSWER_BYTES` of the body.

    Raises ForgeError when the guard refuses the address, OSError or HTTPException when nobody answers.
    """
    target = guard.open_url(url.partition("?")[0])  # the query is ours
    parts = urlsplit(url)
    path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    raw = socket.create_connection((target.addresses[0], target.port), timeout=TIMEOUT_SECONDS)
    connection = http.client.HTTPConnection(target.host, target.port, timeout=TIMEOUT_SECONDS)
    try:
        connection.sock = (
            ssl.create_default_context().wrap_socket(raw, server_hostname=target.host)
            if target.scheme == "https"
            else raw
        )
        connection.request(method, path, body=body, headers=dict(headers))
        response = connection.getresponse()
        named = {name.lower(): value for name, value in response.getheaders()}
        return response.status, named, response.read(MAX_ANSWER_BYTES)
    finally:
        connection.close()
        raw.close()
