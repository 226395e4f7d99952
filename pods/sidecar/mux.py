"""Many connections over one: what the relay in a cluster and a control plane that nobody can dial speak with each other.

A *pipe* carries bytes in order (a TCP connection, or a Kubernetes port-forward). Over it each TCP connection of a sidecar is a
*stream*, cut into *frames*: kind (1 byte), stream (4), length (4), payload; numbers are big endian.

    OPEN    the relay's: a new stream; the payload is the sidecar's address as text
    DATA    bytes of the stream, at most CHUNK_BYTES
    WINDOW  the reader took this many bytes (4) more; a writer is never more than WINDOW_BYTES ahead of its reader
    END     the writer has no more bytes; the other direction goes on
    RESET   the stream is over in both directions; the payload says why
    PING    to be answered by PONG; a side that hears nothing for SILENCE_SECONDS calls the pipe broken

Either side may be faulty or hostile: what breaks these rules breaks the pipe, and what is kept of a stream is bounded by its window.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

HEADER = struct.Struct(">BII")
COUNT = struct.Struct(">I")
#: The longest payload. Streams take turns frame by frame, so it is also how long one may hold up another.
CHUNK_BYTES = 32 * 1024
#: Unread bytes of one stream in one direction. Over a line of 100 ms a stream carries ten times as much a second.
WINDOW_BYTES = 256 * 1024
#: All of them with full windows fit the relay's memory limit (`kubernetes_relay.MEMORY`).
MAX_STREAMS = 1024
MAX_REASON_BYTES = 200
PING_SECONDS = 15.0
SILENCE_SECONDS = 45.0
#: Short frames that wait for their turn: answers to pings, windows and resets. More means that the other side asks and does not read.
MAX_WAITING = 4 * MAX_STREAMS
LAST_STREAM = 0xFFFF_FFFF


class Kind(IntEnum):
    """What a frame says."""

    OPEN = 1
    DATA = 2
    WINDOW = 3
    END = 4
    RESET = 5
    PING = 6
    PONG = 7


class PipeBroken(ConnectionError):
    """The pipe ended, fell silent, or the other side broke the rules; every stream is over with it."""


class StreamCut(ConnectionError):
    """The stream is over before its end: the other side dropped it, or the pipe broke."""


class Pipe(Protocol):
    """Bytes in order, both ways. `read` and `write` raise OSError or `PipeBroken` when it is broken."""

    async def read(self) -> bytes:
        """The next bytes; empty at the end."""
        ...

    async def write(self, data: bytes) -> None:
        """Send; waits while the other side takes none. Never called twice at once."""
        ...

    def close(self) -> None:
        """Drop it. Safe to repeat."""
        ...


@dataclass(frozen=True)
class Frame:
    """One frame."""

    kind: Kind
    stream: int
    payload: bytes = b""

    def encode(self) -> bytes:
        """As it goes over the pipe."""
        return HEADER.pack(self.kind, self.stream, len(self.payload)) + self.payload


class Frames:
    """Cuts what a pipe brings into frames, however it comes in pieces."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole now. Raises `PipeBroken` at the header of one that is none; it keeps less than one frame."""
        kept = self._kept
        kept += data
        at = 0
        try:
            while len(kept) - at >= HEADER.size:
                kind, stream, length = HEADER.unpack_from(kept, at)
                if length > CHUNK_BYTES:
                    raise PipeBroken(
                        f"a frame of {length} bytes; at most {CHUNK_BYTES} are allowed"
                    )
                try:
                    known = Kind(kind)
                except ValueError:
                    raise PipeBroken(f"a frame of kind {kind}, which there is not") from None
                if len(kept) - at < HEADER.size + length:
                    return
                begin = at + HEADER.size
                at = begin + length
                yield Frame(known, stream, bytes(memoryview(kept)[begin:at]))
        finally:
            del kept[:at]


class Stream:
    """One connection inside the pipe. One reader and one writer at a time; both may be at it together."""

    def __init__(self, mux: Mux, number: int, peer: str) -> None:
        self.number = number
        #: The sidecar's address, `10.1.2.3` or an IPv6 one, and its port.
        self.peer = peer
        self._mux = mux
        self._came: deque[bytes] = deque()
        self._unread = 0
        self._taken = 0
        self._room = WINDOW_BYTES
        self._ended_there = False
        self._ended_here = False
        self._cut: str | None = None
        self._news = asyncio.Event()
        self._may_send = asyncio.Event()
        #: Set when nothing more can be sent or come: ended by both sides, or cut.
        self.closed = asyncio.Event()

    @property
    def over(self) -> bool:
        """Whether it was cut, by either side."""
        return self._cut is not None

    async def read(self) -> bytes:
        """The next bytes; empty when the other side has no more. Raises `StreamCut`.

        A side that has said its end and then drops the stream loses nothing of what it said.
        """
        while not self._came:
            if self._ended_there:
                return b""
            self._check()
            self._news.clear()
            await self._news.wait()
        data = self._came.popleft()
        self._unread -= len(data)
        self._taken += len(data)
        # Not at each read: a window of its own for every few bytes would double the frames.
        if self._taken >= WINDOW_BYTES // 2 and not self._ended_there:
            self._mux._say(Frame(Kind.WINDOW, self.number, COUNT.pack(self._taken)))
            self._taken = 0
        return data

    async def write(self, data: bytes) -> None:
        """Send; waits while the reader there is a window behind. Raises `StreamCut`."""
        view = memoryview(data)
        while view:
            while self._room == 0:
                self._check()
                self._may_send.clear()
                await self._may_send.wait()
            self._check()
            part = view[: min(CHUNK_BYTES, self._room)]
            view = view[len(part) :]
            self._room -= len(part)
            await self._mux._send(Frame(Kind.DATA, self.number, bytes(part)), self)

    async def end(self) -> None:
        """Say that no more bytes come from here. Safe to repeat, and when it is over."""
        if self._ended_here or self.over:
            return
        self._ended_here = True
        with contextlib.suppress(StreamCut):
            await self._mux._send(Frame(Kind.END, self.number), self)
        self._done()

    def reset(self, reason: str = "") -> None:
        """Drop it at once in both directions. Safe to repeat."""
        if self.over or (self._ended_here and self._ended_there):
            return
        self._mux._say(Frame(Kind.RESET, self.number, reason.encode()[:MAX_REASON_BYTES]))
        self._ended_there = False
        self._end_by(reason or "it was dropped here")

    def _check(self) -> None:
        if self._cut is not None:
            raise StreamCut(self._cut)

    def _end_by(self, reason: str) -> None:
        if self._cut is None:
            self._cut = reason
        if not self._ended_there:
            self._came.clear()
            self._unread = 0
        self._news.set()
        self._may_send.set()
        self._mux._forget(self)

    def _done(self) -> None:
        if self._ended_here and self._ended_there:
            self._mux._forget(self)

    def _take(self, data: bytes) -> None:
        if self._ended_there:
            raise PipeBroken(f"bytes after the end of stream {self.number}")
        # What was read and not yet told still counts: the writer cannot know of it.
        if self._unread + self._taken + len(data) > WINDOW_BYTES:
            raise PipeBroken(f"stream {self.number} sent more than its window")
        if data:
            self._came.append(data)
            self._unread += len(data)
            self._news.set()

    def _take_window(self, count: int) -> None:
        if self._room + count > WINDOW_BYTES:
            raise PipeBroken(f"stream {self.number} got more window than there is")
        self._room += count
        self._may_send.set()

    def _take_end(self) -> None:
        self._ended_there = True
        self._news.set()
        self._done()


class Mux:
    """The streams of one pipe. `accept` is called with each stream that the other side opens; without it none may be opened there.

    `first` is what was read from the pipe already.
    """

    def __init__(
        self,
        pipe: Pipe,
        *,
        accept: Callable[[Stream], Awaitable[None]] | None = None,
        first: bytes = b"",
    ) -> None:
        self._pipe = pipe
        self._accept = accept
        self._frames = Frames()
        self._first = first
        self._streams: dict[int, Stream] = {}
        self._last = 0
        self._waiting: deque[Frame] = deque()
        self._pong_waits = False
        self._something = asyncio.Event()
        self._turn = asyncio.Lock()
        self._heard_at = 0.0
        self._broken: str | None = None
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def streams(self) -> int:
        """How many are open now."""
        return len(self._streams)

    async def run(self) -> None:
        """Carry the streams until the pipe breaks (raises `PipeBroken`) or the task is cancelled; then every stream is cut."""
        self._heard_at = asyncio.get_running_loop().time()
        tasks = [
            asyncio.create_task(self._listen(), name="mux-listen"),
            asyncio.create_task(self._speak(), name="mux-speak"),
            asyncio.create_task(self._ping(), name="mux-ping"),
        ]
        reason = "the other side was left"
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            error = done.pop().exception()
            reason = f"{error or 'it ended'}"
            if not isinstance(error, OSError):
                reason = f"{type(error).__name__}: {error}"
            raise PipeBroken(reason) from error
        finally:
            self._broken = reason
            for task in tasks:
                task.cancel()
            self._pipe.close()
            for stream in list(self._streams.values()):
                stream._end_by(f"the pipe broke: {reason}")
            await asyncio.gather(*tasks, return_exceptions=True)
            for task in list(self._serving):
                task.cancel()
            await asyncio.gather(*self._serving, return_exceptions=True)

    def close(self) -> None:
        """Drop the pipe; `run` ends. Safe to repeat."""
        self._pipe.close()

    def open(self, peer: str) -> Stream:
        """Open a stream for the connection from `peer`. Raises `StreamCut` when there are too many or the pipe is broken."""
        self._check()
        if len(self._streams) >= MAX_STREAMS:
            raise StreamCut(f"{MAX_STREAMS} connections are open: one must end first")
        if self._last == LAST_STREAM:
            self._pipe.close()
            raise StreamCut("the numbers of streams are used up")
        self._last += 1
        stream = self._streams[self._last] = Stream(self, self._last, peer)
        self._say(Frame(Kind.OPEN, stream.number, peer.encode()))
        return stream

    def _check(self) -> None:
        if self._broken is not None:
            raise StreamCut(f"the pipe broke: {self._broken}")

    async def _send(self, frame: Frame, stream: Stream) -> None:
        async with self._turn:
            stream._check()
            self._check()
            try:
                # What was said before goes first: an OPEN must not come after its stream's bytes.
                await self._pipe.write(self._said() + frame.encode())
            except OSError as error:
                raise StreamCut(f"the pipe broke: {error}") from error

    def _say(self, frame: Frame) -> None:
        """Send a short frame when its turn comes; the reader of the pipe must not wait for its writer."""
        if len(self._waiting) >= MAX_WAITING:
            # Whoever called goes on: the pipe ends at its next read.
            self._pipe.close()
            return
        self._waiting.append(frame)
        self._something.set()

    def _said(self) -> bytes:
        """What waits for its turn, taken out."""
        whole = b"".join(frame.encode() for frame in self._waiting)
        self._waiting.clear()
        self._pong_waits = False
        return whole

    async def _speak(self) -> None:
        while True:
            await self._something.wait()
            self._something.clear()
            async with self._turn:
                if self._waiting:
                    await self._pipe.write(self._said())

    async def _ping(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(PING_SECONDS)
            if loop.time() - self._heard_at > SILENCE_SECONDS:
                raise PipeBroken(f"nothing was heard for {SILENCE_SECONDS:.0f} seconds")
            self._say(Frame(Kind.PING, 0))

    async def _listen(self) -> None:
        for frame in self._frames.feed(self._first):
            self._take(frame)
        while data := await self._pipe.read():
            self._heard_at = asyncio.get_running_loop().time()
            for frame in self._frames.feed(data):
                self._take(frame)
        raise PipeBroken("the other side hung up")

    def _take(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.PING:
                if not self._pong_waits:
                    self._pong_waits = True
                    self._say(Frame(Kind.PONG, 0))
            case Kind.PONG:
                pass
            case Kind.OPEN:
                self._take_open(frame)
            case _:
                self._take_of(frame)

    def _take_of(self, frame: Frame) -> None:
        stream = self._streams.get(frame.stream)
        if stream is None:
            if frame.stream == 0 or frame.stream > self._last:
                raise PipeBroken(f"a frame of stream {frame.stream}, which nobody opened")
            return  # It was on its way when the stream ended here.
        match frame.kind:
            case Kind.DATA:
                stream._take(frame.payload)
            case Kind.WINDOW:
                if len(frame.payload) != COUNT.size:
                    raise PipeBroken("a window that is no number")
                stream._take_window(COUNT.unpack(frame.payload)[0])
            case Kind.END:
                stream._take_end()
            case Kind.RESET:
                reason = frame.payload[:MAX_REASON_BYTES].decode(errors="replace")
                stream._end_by(reason or "the other side dropped it")

    def _take_open(self, frame: Frame) -> None:
        if self._accept is None:
            raise PipeBroken("a stream was opened where none may be")
        if frame.stream <= self._last:
            raise PipeBroken(f"stream {frame.stream} was opened after {self._last}")
        self._last = frame.stream
        if len(self._streams) >= MAX_STREAMS:
            self._say(Frame(Kind.RESET, frame.stream, b"too many connections"))
            return
        peer = frame.payload[:MAX_REASON_BYTES].decode("ascii", errors="replace")
        stream = self._streams[frame.stream] = Stream(self, frame.stream, peer)
        task = asyncio.create_task(self._serve(stream), name=f"mux-stream-{frame.stream}")
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, stream: Stream) -> None:
        assert self._accept is not None
        try:
            await self._accept(stream)
        except StreamCut:
            pass
        finally:
            # What was served is over, whatever it left open.
            stream.reset("it was served")

    def _forget(self, stream: Stream) -> None:
        self._streams.pop(stream.number, None)
        stream.closed.set()
