"""The gateway's application on streams that a relay carries (docs/decisions/0014), beside its socket and its port.

Each stream is a connection like any other: uvicorn's own protocols speak HTTP and websockets on it, over a transport that ends in the
stream instead of in a socket. Its source address is the one that the relay saw; only a relay that has proved the target's token is
believed, and what a request says of itself (`X-Forwarded-For`) counts here as little as elsewhere.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from typing import Any, cast

import structlog
import uvicorn
from uvicorn.server import ServerState

from pods.sidecar.mux import CHUNK_BYTES, Stream, StreamCut

log = structlog.get_logger("devaipod.gateway.relayed")

#: Bytes that the application may be ahead of the stream before it is asked to wait.
HIGH_WATER_BYTES = 4 * CHUNK_BYTES
LOW_WATER_BYTES = CHUNK_BYTES
#: A connection on which no whole head of a request has come by then is dropped: whoever holds it open holds a place.
HEAD_SECONDS = 15.0


class StreamTransport(asyncio.Transport):
    """A stream as asyncio's transports look. It calls its protocol only from `run`'s tasks and from `call_soon`."""

    def __init__(self, stream: Stream, peer: tuple[str, int], protocol: asyncio.Protocol) -> None:
        super().__init__({"peername": peer})
        self._stream = stream
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._out = bytearray()
        self._something = asyncio.Event()
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._closing = False
        self._is_paused = False

    async def run(self) -> None:
        """Carry both directions until the connection is over; the protocol is told of begin and end."""
        self._protocol.connection_made(self)
        tasks = [
            asyncio.create_task(self._read(), name="relayed-read"),
            asyncio.create_task(self._write(), name="relayed-write"),
        ]
        idle = self._loop.call_later(HEAD_SECONDS, self._drop_idle, self._protocol)
        lost: Exception | None = None
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not tasks[1].done():
                # Nothing more comes: what was written already still leaves.
                self._close()
                await asyncio.wait(tasks[1:])
            for task in tasks:
                if task.done() and not task.cancelled():
                    error = task.exception()
                    lost = lost or (error if isinstance(error, Exception) else None)
        finally:
            idle.cancel()
            self._closing = True
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if lost is not None and not isinstance(lost, StreamCut):
                log.error("relayed.broke", exc_info=lost)
            self._protocol.connection_lost(lost)

    async def _read(self) -> None:
        while True:
            await self._may_read.wait()
            data = await self._stream.read()
            # It may have been told to pause while it waited.
            await self._may_read.wait()
            if not data:
                self._protocol.eof_received()
                return
            self._protocol.data_received(data)

    async def _write(self) -> None:
        while True:
            if not self._out:
                if self._closing:
                    break
                self._something.clear()
                await self._something.wait()
                continue
            part = bytes(self._out[:CHUNK_BYTES])
            await self._stream.write(part)
            del self._out[: len(part)]
            if self._is_paused and len(self._out) <= LOW_WATER_BYTES:
                self._is_paused = False
                self._protocol.resume_writing()
        await self._stream.end()

    def _drop_idle(self, first: asyncio.Protocol) -> None:
        # uvicorn's protocol has a cycle from its first request's head on, and another one follows it for a websocket.
        if self._protocol is first and getattr(first, "cycle", None) is None:
            self.abort()

    def _close(self) -> None:
        self._closing = True
        self._something.set()

    # --- asyncio's names -----------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send; never waits, and tells the protocol to pause when too much is kept."""
        if self._closing or not data:
            return
        self._out += data
        self._something.set()
        if len(self._out) > HIGH_WATER_BYTES and not self._is_paused:
            self._is_paused = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        """Send all of them."""
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        """End it when what was written has left."""
        if not self._closing:
            self._close()

    def abort(self) -> None:
        """End it at once."""
        self._out.clear()
        self._close()
        self._stream.reset("the gateway hung up")

    def is_closing(self) -> bool:
        """Whether it ends or has ended."""
        return self._closing

    def pause_reading(self) -> None:
        """Bring nothing more until `resume_reading`."""
        self._may_read.clear()

    def resume_reading(self) -> None:
        """Go on."""
        self._may_read.set()

    def is_reading(self) -> bool:
        """Whether it brings what comes."""
        return self._may_read.is_set() and not self._closing

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Whom it calls from here on: an upgrade to websockets changes it."""
        self._protocol = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Whom it calls."""
        return self._protocol

    def get_write_buffer_size(self) -> int:
        """Bytes that were written and have not left."""
        return len(self._out)

    def can_write_eof(self) -> bool:
        """HTTP servers end both directions together."""
        return False


class Door:
    """Serves an ASGI application on streams. One for a process; any number of relays hand it theirs."""

    def __init__(self, config: uvicorn.Config) -> None:
        if not config.loaded:
            config.load()
        self._config = config
        self._state = ServerState()
        self._open: set[StreamTransport] = set()

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._open)

    async def serve(self, stream: Stream) -> None:
        """Serve one stream until it is over. What a relay says that is no address is refused."""
        peer = parse_peer(stream.peer)
        if peer is None:
            log.warning("relayed.bad_peer", peer=stream.peer[:60])
            stream.reset("the relay named no address")
            return
        make = cast("Callable[..., asyncio.Protocol]", self._config.http_protocol_class)
        protocol = make(config=self._config, server_state=self._state, app_state={})
        transport = StreamTransport(stream, peer, protocol)
        self._open.add(transport)
        try:
            await transport.run()
        finally:
            self._open.discard(transport)

    async def drain(self, seconds: float) -> None:
        """Ask every connection to end, and give those with a request under way some seconds."""
        for connection in list(self._state.connections):
            connection.shutdown()
        deadline = asyncio.get_running_loop().time() + seconds
        while self._open and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
        for transport in list(self._open):
            transport.abort()


def parse_peer(said: str) -> tuple[str, int] | None:
    """Address and port of a relay's words; None when they are none."""
    address, _, port = said.partition(" ")
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        return None
    return str(ip), int(port)
