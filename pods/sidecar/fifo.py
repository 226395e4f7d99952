"""The agent's standard input and output: two FIFOs in a volume that the agent can write to and not replace.

Opening never blocks: `in` is opened for both directions, `out` for reading without waiting. A path that is not a FIFO is
refused, whoever put it there.
"""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

from pods.sidecar.protocol import MAX_ACP_FRAME_BYTES

READ_BYTES = 256 * 1024
#: What is kept of a frame that is longer than it may be.
HEAD_BYTES = 500
#: How often we look whether the agent has opened its end; a FIFO tells nobody when it is opened.
OPEN_POLL_SECONDS = 0.02


class NotAFifo(RuntimeError):
    """Something else stands where a FIFO should."""


class Oversize(Exception):
    """A line exceeded the limit and was passed over up to its newline. `size` in bytes, `head` its beginning."""

    def __init__(self, size: int, head: bytes) -> None:
        super().__init__(f"a frame of {size} bytes")
        self.size = size
        self.head = head


def make(folder: Path) -> None:
    """Make the FIFOs where they are not there yet; `stdin` is an interactive command's."""
    for name in ("in", "out", "stdin"):
        path = folder / name
        try:
            os.mkfifo(path, 0o660)
        except FileExistsError:
            continue
        path.chmod(0o660)


def open_fifo(path: Path, flags: int) -> int:
    """Open a FIFO without following a link and without waiting for the other side. Raises NotAFifo."""
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise NotAFifo(f"{path} cannot be opened as a FIFO: {error.strerror}") from error
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotAFifo(f"{path} is not a FIFO")
    return descriptor


class Lines:
    """The agent's standard output, line by line; reads only when it is asked to, so a slow reader slows the agent."""

    def __init__(self, descriptor: int, *, limit: int = MAX_ACP_FRAME_BYTES) -> None:
        self.descriptor = descriptor
        self.limit = limit
        self._buffer = bytearray()
        self._scanned = 0
        self.ended = False
        self._opened = False

    async def next(self) -> bytes | None:
        """The next line without its newline, or None when the agent closed its end. Raises Oversize."""
        while True:
            found = self._buffer.find(b"\n", self._scanned)
            if found >= 0:
                line = bytes(self._buffer[:found])
                del self._buffer[: found + 1]
                self._scanned = 0
                return line
            self._scanned = len(self._buffer)
            if len(self._buffer) > self.limit:
                await self._pass_over()
            data = await self._read()
            if not data:
                self.ended = True
                rest, self._buffer = bytes(self._buffer), bytearray()
                self._scanned = 0
                return rest or None
            self._buffer += data

    async def _pass_over(self) -> None:
        size, head = len(self._buffer), bytes(self._buffer[:HEAD_BYTES])
        self._buffer, self._scanned = bytearray(), 0
        while True:
            data = await self._read()
            found = data.find(b"\n")
            if found >= 0 or not data:
                self._buffer += data[found + 1 :] if data else b""
                raise Oversize(size + max(found, 0), head)
            size += len(data)

    async def _read(self) -> bytes:
        while True:
            try:
                data = os.read(self.descriptor, READ_BYTES)
            except BlockingIOError:
                await self._readable()
                continue
            if data or self.ended:
                return data
            if await self._has_writer():
                continue
            return b""

    async def _has_writer(self) -> bool:
        """An empty read means "no writer": before the agent has opened its end we wait, after it had, it is gone."""
        if self._opened:
            return False
        await self._readable()
        return True

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self.descriptor, _arrived, ready)
        try:
            await ready
        finally:
            loop.remove_reader(self.descriptor)
        self._opened = True

    async def wait_writer(self) -> None:
        """Wait until the agent has opened its end: its entry, and so its lifecycle commands, are done then."""
        while not self._opened:
            try:
                data = os.read(self.descriptor, READ_BYTES)
            except BlockingIOError:
                self._opened = True  # somebody holds the other end and has said nothing yet
                return
            if data:
                self._buffer += data
                self._opened = True
                return
            await asyncio.sleep(OPEN_POLL_SECONDS)


def _arrived(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


class Writer:
    """The agent's standard input. Keeps its order; waits while the pipe is full."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._order = asyncio.Lock()

    async def write(self, data: bytes) -> None:
        """Write all of `data`."""
        async with self._order:
            view = memoryview(data)
            while view:
                try:
                    view = view[os.write(self.descriptor, view) :]
                except BlockingIOError:
                    await self._writable()

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_writer(self.descriptor, _arrived, ready)
        try:
            await ready
        finally:
            loop.remove_writer(self.descriptor)
