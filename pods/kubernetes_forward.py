"""A port-forward to a pod as a pipe: the `portforward` subresource over a websocket.

The API server passes it on to the node, which connects to the port on the pod's loopback. Each message is a channel (1 byte) and
bytes; channel 0 is the connection, channel 1 tells what went wrong. The first message of each is the port's number (2 bytes).
"""

from __future__ import annotations

import asyncio
import contextlib

import aiohttp

from pods.kubernetes_client import KubeClient
from pods.sidecar.mux import PipeBroken

DATA, ERROR = 0, 1
PORT_BYTES = 2
MAX_SAID = 300


async def open_forward(client: KubeClient, pod: str, port: int) -> ForwardPipe:
    """Connect to a port on a pod's loopback. Raises BackendError; that nobody listens there is told by the first `read`."""
    socket = await client.websocket(f"{client.pods}/{pod}/portforward", [("ports", str(port))])
    return ForwardPipe(socket)


class ForwardPipe:
    """One connection through the API server."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._begun: set[int] = set()
        self._closing: asyncio.Task[None] | None = None

    async def read(self) -> bytes:
        """The next bytes; empty when the API server, the node or the pod hung up. Raises PipeBroken with what the node says."""
        while True:
            message = await self._socket.receive()
            if message.type is not aiohttp.WSMsgType.BINARY:
                if isinstance(message.data, Exception):
                    raise PipeBroken(f"the forward broke: {message.data}"[:MAX_SAID])
                return b""
            data: bytes = message.data
            channel, data = (data[0] if data else -1), data[1:]
            if channel not in (DATA, ERROR):
                raise PipeBroken(f"the API server spoke on channel {channel}, which there is not")
            if channel not in self._begun:
                self._begun.add(channel)
                data = data[PORT_BYTES:]
            if not data:
                continue
            if channel == ERROR:
                raise PipeBroken(data.decode(errors="replace").strip()[:MAX_SAID])
            return data

    async def write(self, data: bytes) -> None:
        """Send; waits while the other side takes none."""
        try:
            await self._socket.send_bytes(b"\0" + data)
        except (aiohttp.ClientError, RuntimeError) as error:
            raise PipeBroken(f"the forward broke: {error}") from error

    def close(self) -> None:
        """Drop it. Safe to repeat."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(
                self._close(), name="forward-close"
            )

    async def _close(self) -> None:
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with asyncio.timeout(2):
                await self._socket.close()
