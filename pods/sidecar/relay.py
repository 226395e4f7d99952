"""The relay: where sidecars of a cluster reach a control plane that cannot be reached from there, a laptop's.

It is the program of a small pod beside the agents'. The control plane dials it, through a Kubernetes port-forward to a port that
listens on loopback alone; only whoever knows the token of the mounted Secret is let in (`relay_greeting`). From then on every TCP
connection of a sidecar is a stream (`mux`) to the control plane, with the address it came from. The relay looks into none of them,
keeps nothing, and has no right in the cluster.

Sidecars' port listens only while a control plane is there: one that dials meanwhile is refused at once and tries again later, which
loses nothing, while a connection that was taken and dropped would cost a request that had begun.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import Counter
from pathlib import Path

from pods.sidecar import relay_greeting
from pods.sidecar.mux import CHUNK_BYTES, Mux, Stream, StreamCut

#: Where sidecars dial, and where the control plane's port-forward ends.
PORT = 8401
CONTROL_PORT = 8402
TOKEN_FILE = "/run/devaipod-relay/token"
#: Connections of one address at once; a sidecar's proxy takes 64 requests at once, its link is one, git needs some.
MAX_PER_PEER = 128
#: Greetings that may be under way at once; whoever reaches loopback is the port-forward, and a second control plane waits its turn.
MAX_GREETINGS = 8


class StreamPipe:
    """A TCP connection as a pipe."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        """The next bytes; empty at the end."""
        return await self._reader.read(2 * CHUNK_BYTES)

    async def write(self, data: bytes) -> None:
        """Send, and wait while the other side takes none."""
        self._writer.write(data)
        await self._writer.drain()

    def close(self) -> None:
        """Drop the connection."""
        self._writer.transport.abort()


class Relay:
    """Sidecars' port on `host`, the control plane's on loopback. Port 0 means: any that is free."""

    def __init__(
        self, token: str, *, host: str, port: int = PORT, control_port: int = CONTROL_PORT
    ) -> None:
        self.host = host
        self.port = port
        self.control_port = control_port
        self._token = token
        self._mux: Mux | None = None
        self._carrying: asyncio.Task[None] | None = None
        self._taking_over = asyncio.Lock()
        self._peers: Counter[str] = Counter()
        self._greetings = 0

    async def run(self) -> None:
        """Relay until cancelled."""
        control = await asyncio.start_server(
            self._control, "127.0.0.1", self.control_port, limit=2 * CHUNK_BYTES
        )
        self.control_port = control.sockets[0].getsockname()[1]
        _say("waiting for the control plane")
        try:
            async with control:
                await asyncio.Event().wait()
        finally:
            await self._leave()

    async def _control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One port-forward of a control plane. A new one closes the old: after a laptop's sleep the old is dead and does not know it."""
        pipe = StreamPipe(reader, writer)
        if self._greetings >= MAX_GREETINGS:
            pipe.close()
            return
        self._greetings += 1
        try:
            first = await relay_greeting.admit(pipe, self._token)
        except (OSError, TimeoutError) as error:
            _say(f"not let in: {error or type(error).__name__}")
            pipe.close()
            return
        finally:
            self._greetings -= 1
        async with self._taking_over:
            await self._leave()
            self._mux = Mux(pipe, first=first)
            self._carrying = asyncio.create_task(self._carry(self._mux), name="relay-carry")

    async def _carry(self, mux: Mux) -> None:
        server: asyncio.Server | None = None
        try:
            server = await asyncio.start_server(
                lambda reader, writer: self._sidecar(mux, reader, writer),
                self.host,
                self.port,
                limit=CHUNK_BYTES,
                backlog=512,
            )
            self.port = server.sockets[0].getsockname()[1]
            _say(f"the control plane is there: relaying {self.host} port {self.port}")
            await mux.run()
        except OSError as error:
            _say(f"the control plane went away: {error}")
        finally:
            if server is not None:
                server.close()
            mux.close()

    async def _leave(self) -> None:
        """End what the control plane before had."""
        carrying, self._carrying = self._carrying, None
        if self._mux is not None:
            # A task that is cancelled before its first step closes nothing.
            self._mux.close()
            self._mux = None
        if carrying is not None:
            carrying.cancel()
            await asyncio.gather(carrying, return_exceptions=True)

    async def _sidecar(
        self, mux: Mux, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """One connection of a sidecar, until both directions ended."""
        address, port = writer.get_extra_info("peername")[:2]
        if self._peers[address] >= MAX_PER_PEER:
            writer.transport.abort()
            return
        self._peers[address] += 1
        try:
            stream = mux.open(f"{address} {port}")
            await _both_ways(stream, reader, writer)
        except StreamCut:
            pass
        finally:
            writer.transport.abort()
            self._peers[address] -= 1
            if not self._peers[address]:
                del self._peers[address]


async def _both_ways(
    stream: Stream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    up = asyncio.create_task(_up(stream, reader), name="relay-up")
    down = asyncio.create_task(_down(stream, writer), name="relay-down")
    closed = asyncio.create_task(stream.closed.wait(), name="relay-closed")
    try:
        # A control plane that has said its last word and dropped the stream: what it said still goes down.
        await asyncio.wait({up, closed}, return_when=asyncio.FIRST_COMPLETED)
        if stream.closed.is_set():
            up.cancel()
        await down
    finally:
        for task in (up, down, closed):
            task.cancel()
        await asyncio.gather(up, down, closed, return_exceptions=True)
        stream.reset("the sidecar's connection ended")


async def _up(stream: Stream, reader: asyncio.StreamReader) -> None:
    try:
        while data := await reader.read(CHUNK_BYTES):
            await stream.write(data)
        await stream.end()
    except StreamCut:
        pass
    except OSError:
        stream.reset("the sidecar hung up")


async def _down(stream: Stream, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await stream.read():
            writer.write(data)
            await writer.drain()
        writer.write_eof()
        # Aborting would throw away what the kernel has not taken yet.
        while writer.transport.get_write_buffer_size():
            await asyncio.sleep(0.01)
        if stream.closed.is_set():
            return
        await stream.closed.wait()
    except StreamCut:
        pass
    except OSError:
        stream.reset("the sidecar hung up")


def _say(words: str) -> None:
    print(words[:300], flush=True)


async def relay_until_told(relay: Relay) -> None:
    """Relay until SIGTERM."""
    running = asyncio.create_task(relay.run(), name="relay")
    # As process 1 of its container it would ignore the signal otherwise.
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running


def main() -> int:
    """The program; its exit code."""
    try:
        token = Path(os.environ.get("DEVAIPOD_RELAY_TOKEN_FILE", TOKEN_FILE)).read_text().strip()
        # The pod's own address, and not every one: on loopback nobody but the control plane has anything to ask.
        host = os.environ["DEVAIPOD_RELAY_HOST"]
    except (OSError, KeyError) as error:
        print(f"the relay's token or address is missing: {error}", file=sys.stderr)
        return 2
    if not token:
        print("the relay's token is empty", file=sys.stderr)
        return 2
    relay = Relay(
        token,
        host=host,
        port=int(os.environ.get("DEVAIPOD_RELAY_PORT", PORT)),
        control_port=int(os.environ.get("DEVAIPOD_RELAY_CONTROL_PORT", CONTROL_PORT)),
    )
    asyncio.run(relay_until_told(relay))
    return 0


if __name__ == "__main__":
    sys.exit(main())
