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
from dataclasses import dataclass
from pathlib import Path

from pods.sidecar import relay_greeting
from pods.sidecar.mux import CHUNK_BYTES, MAX_STREAMS, Mux, Stream, StreamCut

#: Where sidecars dial, and where the control plane's port-forward ends.
PORT = 8401
CONTROL_PORT = 8402
TOKEN_FILE = "/run/devaipod-relay/token"
#: Connections of one address at once; a sidecar's proxy takes 64 requests at once, its link is one, git needs some.
MAX_PER_PEER = 128
#: When this many are open in all, an address may have only so many: agents that hold what they can get shut nobody out.
CROWDED = MAX_STREAMS * 3 // 4
MAX_PER_PEER_CROWDED = 16
#: Greetings that may be under way at once, and processes of a control plane that may be there.
MAX_GREETINGS = 8
MAX_PLANES = 16


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


@dataclass(eq=False)
class _Plane:
    """One process of a control plane that is there."""

    mux: Mux
    carrying: asyncio.Task[None]

    async def leave(self) -> None:
        """End what it had."""
        # A task that is cancelled before its first step closes nothing.
        self.mux.close()
        self.carrying.cancel()
        await asyncio.gather(self.carrying, return_exceptions=True)


class Relay:
    """Sidecars' port on `host`, the control plane's on loopback. Port 0 means: any that is free."""

    def __init__(
        self, token: str, *, host: str, port: int = PORT, control_port: int = CONTROL_PORT
    ) -> None:
        self.host = host
        self.port = port
        self.control_port = control_port
        self._token = token
        #: By their processes' names; the last one is the newest, and new connections are its.
        self._planes: dict[str, _Plane] = {}
        self._listening: asyncio.Server | None = None
        self._turning = asyncio.Lock()
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
            for plane in list(self._planes.values()):
                await plane.leave()

    async def _control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One port-forward. A new one of the same process closes the old: after a laptop's sleep the old is dead and does not know it."""
        pipe = StreamPipe(reader, writer)
        if self._greetings >= MAX_GREETINGS or len(self._planes) >= MAX_PLANES:
            pipe.close()
            return
        self._greetings += 1
        try:
            process, first = await relay_greeting.admit(pipe, self._token)
        except (OSError, TimeoutError) as error:
            _say(f"not let in: {error or type(error).__name__}")
            pipe.close()
            return
        finally:
            self._greetings -= 1
        async with self._turning:
            old = self._planes.pop(process, None)
            if old is not None:
                await old.leave()
            mux = Mux(pipe, first=first)
            carrying = asyncio.create_task(self._carry(process, mux), name="relay-carry")
            self._planes[process] = _Plane(mux, carrying)
            await self._listen_or_not()

    async def _carry(self, process: str, mux: Mux) -> None:
        try:
            await mux.run()
        except OSError as error:
            _say(f"the control plane went away: {error}")
        finally:
            mux.close()
            plane = self._planes.get(process)
            if plane is not None and plane.mux is mux:
                del self._planes[process]
                self._close_if_left()

    async def _listen_or_not(self) -> None:
        if self._listening is None and self._planes:
            try:
                self._listening = await asyncio.start_server(
                    self._sidecar, self.host, self.port, limit=CHUNK_BYTES, backlog=512
                )
            except OSError as error:
                _say(f"{self.host} port {self.port} cannot be used: {error}")
                for plane in self._planes.values():
                    plane.mux.close()
                return
            self.port = self._listening.sockets[0].getsockname()[1]
        # It may have left while the port was opened.
        self._close_if_left()
        if self._planes:
            _say(f"the control plane is there: relaying {self.host} port {self.port}")

    def _close_if_left(self) -> None:
        if self._listening is not None and not self._planes:
            self._listening.close()
            self._listening = None

    def _most(self) -> int:
        """Connections that one address may have now."""
        is_crowded = self._peers.total() >= CROWDED
        return MAX_PER_PEER_CROWDED if is_crowded else MAX_PER_PEER

    async def _sidecar(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a sidecar, until both directions ended."""
        address, port = (writer.get_extra_info("peername") or ("", 0))[:2]
        if not self._planes or self._peers[address] >= self._most():
            writer.transport.abort()
            return
        *_, newest = self._planes.values()
        self._peers[address] += 1
        try:
            stream = newest.mux.open(f"{address} {port}")
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
