"""An image registry at the world's edge: speaks the registry's HTTP API (OCI distribution) and has no image.

Repositories below `private/` want a credential that nobody has; others are not there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

UNAUTHORIZED = (
    b'{"errors": [{"code": "UNAUTHORIZED", "message": "authentication required", "detail": null}]}'
)
UNKNOWN = b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}'


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/v2/":
            self._say(200, b"{}")
        elif self.path.startswith("/v2/private/"):
            self._say(401, UNAUTHORIZED, ("WWW-Authenticate", 'Basic realm="private"'))
        else:
            self._say(404, UNKNOWN)

    do_HEAD = do_GET

    def _say(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", "application/json"),
            ("Docker-Distribution-API-Version", "registry/2.0"),
            ("Content-Length", str(len(body))),
            *headers,
        ):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Quiet."""


@contextmanager
def registry() -> Iterator[str]:
    """Serve in a thread and yield the registry's name, `127.0.0.1:<port>`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, name="registry", daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
