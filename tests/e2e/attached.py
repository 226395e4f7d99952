"""A terminal's client as an orchestrator would write one: one websocket, binary frames both ways."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.agents.image import scripted_image
from tests.e2e.installation import Installation, installed, make_upstream


@contextmanager
def shop(**environment: str) -> Iterator[Installation]:
    """An installation with a project `shop` whose agent is the scripted one."""
    folder = Path(tempfile.mkdtemp(prefix="devaipod-shop-"))
    settings = {"DEVAIPOD_MAX_RUNS": "4", "DEVAIPOD_KEEP_WARM_SECONDS": "600", **environment}
    with installed(folder / "home", **settings) as made:
        project = {"name": "shop", "upstream_url": str(make_upstream(folder / "shop"))}
        project |= {"image": scripted_image(), "permission_policy": "allow"}
        made.api("POST", "/projects", project)
        yield made
    shutil.rmtree(folder, ignore_errors=True)


def launched(place: Installation, task: str = "sleep 600") -> tuple[str, str]:
    """A run whose agent does that (sleep, unless said otherwise), and its pod."""
    key = place.api("POST", "/runs", {"project": "shop", "task": task})["key"]
    place.wait_for_event(key, "turn.started", seconds=90)
    return key, place.run(key)["pods"][-1]


class Attached:
    """An open terminal; what came is in `said`, what ended it in `told`, `code` and `reason`."""

    def __init__(
        self,
        place: Installation,
        pod: str,
        *argv: str,
        tty: bool = True,
        size: tuple[int, int] | None = None,
        token: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        words = [*(("argv", word) for word in argv), ("tty", "1" if tty else "0")]
        if size is not None:
            words += [("rows", str(size[0])), ("columns", str(size[1]))]
        query = urlencode(words)
        address = place.url.replace("http", "ws", 1) + f"/api/devaipod/pods/{pod}/exec?{query}"
        if headers is None:
            headers = {"Authorization": f"Bearer {token or place.token}"}
        self._opened = connect(
            address, additional_headers=headers, max_size=None, compression=None, close_timeout=2
        )
        self.socket = self._opened.__enter__()
        self.said = b""
        self.told: dict[str, Any] = {}
        self.code = 0
        self.reason = ""

    def __enter__(self) -> Attached:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.socket.close()

    def types(self, data: bytes) -> None:
        """Send input."""
        self.socket.send(data)

    def tells(self, message: Any) -> None:
        """Send a control frame."""
        self.socket.send(json.dumps(message))

    def step(self, timeout: float) -> bool:
        """Take one frame; False when the socket has closed. Raises TimeoutError."""
        try:
            data = self.socket.recv(timeout=timeout)
        except ConnectionClosed as closed:
            self.code = closed.rcvd.code if closed.rcvd else 0
            self.reason = closed.rcvd.reason if closed.rcvd else ""
            return False
        if isinstance(data, bytes):
            self.said += data
        else:
            self.told = json.loads(data)
        return True

    def until(self, words: bytes, seconds: float = 20) -> bytes:
        """Read until these bytes were said; returns everything said so far."""
        deadline = time.monotonic() + seconds
        while words not in self.said:
            assert self.step(deadline - time.monotonic()), (
                self.code,
                self.reason,
                self.told,
                self.said[-500:],
            )
        return self.said

    def to_end(self, seconds: float = 20) -> tuple[int, str]:
        """Read until the socket closes; returns its code and reason."""
        deadline = time.monotonic() + seconds
        while self.step(max(deadline - time.monotonic(), 0.01)):
            pass
        return self.code, self.reason
