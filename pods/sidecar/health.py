"""The sidecar's health check, a program of its own: does its proxy answer the agent, and the gateway the sidecar?

Exit code 0 when both do, else 1 with one line that says which does not; a line about the gateway begins with `gateway:`.
Only sockets: it starts again and again, and has to be light.
"""

from __future__ import annotations

import os
import socket
import sys
from urllib.parse import urlsplit

from pods.sidecar import gateway as where
from pods.spec import PROXY_PORT

#: The container's check as a whole has 3 seconds (`podman_documents.HEALTH_TIMEOUT_NANOSECONDS`).
SECONDS = 1.0
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def proxy() -> socket.socket:
    """A connection to the proxy, as the agent has one. Raises OSError."""
    port = int(os.environ.get("DEVAIPOD_PROXY_PORT", PROXY_PORT))
    return socket.create_connection(("127.0.0.1", port), timeout=SECONDS)


def gateway() -> socket.socket:
    """A connection to the gateway: the mounted socket, unless a URL is named. Raises OSError."""
    url = urlsplit(where.url())
    if url.hostname:
        port = url.port or (443 if url.scheme == "https" else 80)
        return socket.create_connection((url.hostname, port), timeout=SECONDS)
    path = where.socket_path()
    line = socket.socket(socket.AF_UNIX)
    line.settimeout(SECONDS)
    try:
        line.connect(path)
    except OSError:
        line.close()
        raise
    return line


def answers(line: socket.socket) -> None:
    """Ask for a page that is not there; any status is an answer. Raises OSError."""
    with line:
        line.sendall(REQUEST)
        if not line.recv(5).startswith(b"HTTP/"):
            raise ConnectionError("it hung up without an answer")


def main() -> int:
    """Check both; the exit code."""
    for name, connect in (("the sidecar's proxy", proxy), ("gateway", gateway)):
        try:
            line = connect()
            # Behind TLS a connection is all that can be told from here without a certificate.
            if name == "gateway" and where.url().startswith("https:"):
                line.close()
                continue
            answers(line)
        except OSError as error:
            print(f"{name}: {error.strerror or error or type(error).__name__}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
