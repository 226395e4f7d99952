"""Plain questions to podman's API socket over one kept connection: a third of what podman-py's client (requests) costs a call."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode

ROOT = "/v4.0.0/libpod"


class UnixConnection(http.client.HTTPConnection):
    """HTTP/1.1 over a Unix socket; for one thread at a time."""

    def __init__(self, path: Path, *, connect_seconds: float) -> None:
        super().__init__("podman", timeout=connect_seconds)
        self._path = path

    def connect(self) -> None:
        """Dial the socket. Raises OSError."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))

    def ask(
        self, path: str, params: Mapping[str, object] | None, *, seconds: float
    ) -> tuple[int, bytes]:
        """GET a path below libpod's root: (status, body). A kept connection that podman has closed is made again, once.

        Raises TimeoutError, OSError or HTTPException.
        """
        query = f"?{urlencode(params)}" if params else ""
        was_kept = self.sock is not None
        try:
            return self._ask(path + query, seconds)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            self.close()
            if not was_kept:
                raise
            return self._ask(path + query, seconds)

    def _ask(self, target: str, seconds: float) -> tuple[int, bytes]:
        try:
            if self.sock is None:
                self.connect()
            self.sock.settimeout(seconds)
            self.request("GET", ROOT + target)
            answer = self.getresponse()
            return answer.status, answer.read()
        except BaseException:
            self.close()
            raise
