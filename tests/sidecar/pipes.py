"""Pipes for tests of the relay: real socket pairs, with a mux or a hostile hand at the other end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

from pods.sidecar.mux import Frame, Frames, Kind, Mux, Stream
from pods.sidecar.relay import StreamPipe


async def pipe_pair() -> tuple[StreamPipe, StreamPipe]:
    """Two ends of one connection."""
    one, other = socket.socketpair()
    ends = []
    for sock in (one, other):
        reader, writer = await asyncio.open_connection(sock=sock)
        ends.append(StreamPipe(reader, writer))
    return ends[0], ends[1]


@contextlib.asynccontextmanager
async def muxes(accept: Callable[[Stream], Awaitable[None]]) -> AsyncIterator[tuple[Mux, Mux]]:
    """The relay's side, which opens, and the control plane's, which accepts."""
    near, far = await pipe_pair()
    opens, accepts = Mux(near), Mux(far, accept=accept)
    running = [asyncio.create_task(opens.run()), asyncio.create_task(accepts.run())]
    try:
        yield opens, accepts
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


class Hand:
    """Frames by hand at the other end of a pipe."""

    def __init__(self, pipe: StreamPipe) -> None:
        self.pipe = pipe
        self._frames = Frames()
        self._came: list[Frame] = []

    async def say(self, kind: Kind | int, stream: int = 0, payload: bytes = b"") -> None:
        await self.pipe.write(
            kind.to_bytes() + stream.to_bytes(4) + len(payload).to_bytes(4) + payload
        )

    async def hear(self) -> Frame | None:
        """The next frame; None when the other side hung up."""
        while not self._came:
            try:
                data = await self.pipe.read()
            except ConnectionError:
                return None
            if not data:
                return None
            self._came += self._frames.feed(data)
        return self._came.pop(0)
