"""The gateway's application on real sockets, in the test's own loop, and pods with real tokens to call it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import uvicorn

from devaipod_web.gateway import tokens
from devaipod_web.gateway.app import application
from devaipod_web.runs.models import Run, RunPod
from pods.sidecar.protocol import MAX_MESSAGE_BYTES


class QuietServer(uvicorn.Server):
    """uvicorn inside a test: it takes no signals."""

    @contextlib.contextmanager
    def capture_signals(self):
        yield


@dataclass(frozen=True)
class Pod:
    """A pod's row with the two tokens in clear."""

    row: RunPod
    control: str
    data: str

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.data}"}

    @property
    def control_bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.control}"}


def make_pod(run: Run, *, attempt: int = 1) -> Pod:
    """An attempt of a run as the supervisor writes it before it creates the pod."""
    control, control_digest = tokens.mint()
    data, data_digest = tokens.mint()
    row = RunPod.objects.create(
        run=run,
        attempt=attempt,
        name=f"devaipod-{run.project.slug}-{run.key}-{attempt}",
        backend="podman",
        image="localhost/devaipod-agent:dev",
        control_digest=control_digest,
        data_digest=data_digest,
    )
    return Pod(row, control, data)


@dataclass
class Gateway:
    """Where the gateway listens: a Unix socket, as for pods, and a TCP port, since git speaks no HTTP over Unix sockets."""

    path: Path
    port: int
    http: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextlib.asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Gateway]:
    """Serve the gateway's application until the block ends."""
    path = folder / "gateway.sock"
    tcp = socket.create_server(("127.0.0.1", 0))
    options: dict[str, Any] = {
        "app": application,
        "loop": "none",
        "ws": "websockets-sansio",
        "ws_max_size": MAX_MESSAGE_BYTES,
        "ws_per_message_deflate": False,
        "log_config": None,
        "access_log": False,
        "timeout_graceful_shutdown": 2,
    }
    unix_server = QuietServer(uvicorn.Config(**options, uds=str(path), lifespan="on"))
    tcp_server = QuietServer(uvicorn.Config(**options, lifespan="off"))
    running = [
        asyncio.create_task(unix_server.serve()),
        asyncio.create_task(tcp_server.serve(sockets=[tcp])),
    ]
    while not (unix_server.started and tcp_server.started):
        for task in running:
            if task.done():
                task.result()
        await asyncio.sleep(0.005)
    connector = aiohttp.UnixConnector(path=str(path))
    try:
        async with aiohttp.ClientSession(
            "http://gateway", connector=connector, cookie_jar=aiohttp.DummyCookieJar()
        ) as http:
            yield Gateway(path, tcp.getsockname()[1], http)
    finally:
        tcp_server.should_exit = unix_server.should_exit = True
        await asyncio.gather(*running)
