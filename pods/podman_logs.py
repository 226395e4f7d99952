"""A container's log from its k8s-file: nanosecond stamps, partial marks, and a cursor that resumes exactly.

Podman 4.3's API stamps whole seconds and its `since` includes the whole second; the file has everything. The cursor is
`<inode>:<offset>:<check>` just behind a record; the check is a CRC of what stands before it, since an inode's number may be given
to the next file. A record is `<RFC 3339 time> <stream> <F|P> <text>` (the Kubernetes CRI log form, written by conmon). When
conmon reaches the container's log limit it renames a new file over the old one. A follower looks at the name all the time and opens each
new file at once, so that what podman discards is still read through the descriptors, as long as no more than `MAX_WAITING` files
wait. Where lines may be missing, the next one carries `gap`.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import zlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Literal

from pods.spec import LogLine

READ_BYTES = 64 * 1024
#: A record longer than this is passed on in parts; conmon itself cuts at about 8 KiB.
MAX_RECORD_BYTES = 1024 * 1024
#: How soon a follower sees a new line. A read of an unchanged file costs about 2 µs.
POLL_SECONDS = 0.02
#: How soon a new file under the log's name is opened: conmon was seen to fill one of 16 MiB in 70 ms.
LOOK_SECONDS = 0.01
#: A quiet log is looked at less often, up to this.
QUIET_POLL_SECONDS = 0.05
QUIET_AFTER_POLLS = 250
#: conmon writes no faster than this (measured: some 15 MB a second on a busy host). Between two looks at the file's name that are closer than
#: a file's size at this speed, it cannot have filled one that we never saw.
CONMON_BYTES_PER_SECOND = 200_000_000
#: Files that were renamed over and are still to be read: they take disk as long as they are open (16 MiB each, as our containers have it).
MAX_WAITING = 16
#: Bytes before a cursor that its check covers.
CHECK_BYTES = 64
#: How often a follower asks whether the container still runs.
ALIVE_SECONDS = 1.0


def parse(record: bytes, *, cursor: str, gap: bool) -> LogLine:
    """One record of the file without its newline. What is not in the CRI form is passed on whole, as standard error."""
    parts = record.split(b" ", 3)
    if len(parts) < 3 or parts[1] not in (b"stdout", b"stderr") or parts[2] not in (b"F", b"P"):
        return LogLine("stderr", datetime.now(UTC), record, cursor, gap=gap)
    stream: Literal["stdout", "stderr"] = "stdout" if parts[1] == b"stdout" else "stderr"
    text = parts[3] if len(parts) == 4 else b""
    return LogLine(stream, _stamp(parts[0]), text, cursor, partial=parts[2] == b"P", gap=gap)


def _stamp(text: bytes) -> datetime:
    """conmon writes nine digits of a second; Python keeps six."""
    try:
        head, _, rest = text.decode().partition(".")
        digits = rest[:9] if rest[:9].isdigit() else "0"
        zone = rest[9:] or "+00:00"
        return datetime.fromisoformat(f"{head}.{digits[:6].ljust(6, '0')}{zone}").astimezone(UTC)
    except ValueError:
        return datetime.now(UTC)


@dataclass
class _File:
    """A file that has stood at the log's name. `gap`: others may have stood there before it that were never seen."""

    file: BinaryIO
    inode: int
    gap: bool


class Reader:
    """Reads one log file from a cursor on; blocking, so it is called in a thread or on a local file only."""

    def __init__(self, path: Path, since: str = "") -> None:
        self.path = path
        self.file: BinaryIO | None = None
        self.inode = 0
        self.offset = 0
        self.gap = False
        self.rest = b""
        self.check: int | None = None
        self._before = b""
        self._waiting: deque[_File] = deque()
        self._lock = threading.Lock()
        self.seen_at = 0.0
        parts = since.split(":")
        if len(parts) == 3 and all(part.isdigit() for part in parts):
            self.inode, self.offset, self.check = int(parts[0]), int(parts[1]), int(parts[2])

    def read(self) -> list[LogLine]:
        """The complete records that have come since, at most about READ_BYTES of them; empty when there is nothing new."""
        if self.file is None and not self._open():
            return []
        while True:
            assert self.file is not None
            if data := self.file.read(READ_BYTES):
                return self._split(data)
            self.look()
            if not self._waiting:
                return []
            # conmon does not write to a file that it has renamed over, but it may have since we read.
            if data := self.file.read(READ_BYTES):
                return self._split(data)
            self._next_file()

    def look(self) -> None:
        """Open the file that stands at the log's name when it is a new one: once another is renamed over it, it is lost.

        From any thread.
        """
        with self._lock:
            self._look()

    def _look(self) -> None:
        if self.file is None:
            return
        newest = self._waiting[-1].inode if self._waiting else self.inode
        now, away = time.monotonic(), time.monotonic() - self.seen_at
        try:
            if self.path.stat().st_ino == newest:
                self.seen_at = now
                return
            file = self.path.open("rb", buffering=0)
        except FileNotFoundError:
            return
        # Only a follower that was away for as long as conmon takes to fill a file may have missed a whole one.
        gap = away > os.fstat(self.file.fileno()).st_size / CONMON_BYTES_PER_SECOND
        self._waiting.append(_File(file, os.fstat(file.fileno()).st_ino, gap))
        self.seen_at = now
        if len(self._waiting) > MAX_WAITING:
            self._waiting.popleft().file.close()
            self._waiting[0].gap = True

    def _next_file(self) -> None:
        assert self.file is not None
        with self._lock:
            self.file.close()
            found = self._waiting.popleft()
            # What follows the last newline was cut off by conmon's end of that file.
            self.gap = self.gap or found.gap or bool(self.rest)
            self.file, self.inode, self.offset = found.file, found.inode, 0
            self.rest = self._before = b""

    def _open(self) -> bool:
        try:
            file = self.path.open("rb", buffering=0)
        except FileNotFoundError:
            return False
        state = os.fstat(file.fileno())
        if self.inode and not self._is_ours(file, state):
            # Another file stands there: what was between our cursor and its first line is gone.
            self.gap, self.offset, self.rest = True, 0, b""
        self.inode, self.seen_at = state.st_ino, time.monotonic()
        start = max(0, self.offset - CHECK_BYTES)
        file.seek(start)
        self._before = file.read(self.offset - start)
        self.file = file
        return True

    def _is_ours(self, file: BinaryIO, state: os.stat_result) -> bool:
        """Whether the cursor points into this file."""
        if state.st_ino != self.inode or state.st_size < self.offset:
            return False
        start = max(0, self.offset - CHECK_BYTES)
        file.seek(start)
        return self.check is None or zlib.crc32(file.read(self.offset - start)) == self.check

    def _split(self, data: bytes) -> list[LogLine]:
        lines = []
        *records, self.rest = (self.rest + data).split(b"\n")
        for record in records:
            self._passed(record + b"\n")
            lines.append(parse(record, cursor=self._cursor(), gap=self.gap))
            self.gap = False
        if len(self.rest) > MAX_RECORD_BYTES:
            self._passed(self.rest)
            line = parse(self.rest, cursor=self._cursor(), gap=self.gap)
            lines.append(replace(line, partial=True))
            self.rest, self.gap = b"", False
        return lines

    def _passed(self, data: bytes) -> None:
        self.offset += len(data)
        self._before = (self._before + data)[-CHECK_BYTES:]

    def _cursor(self) -> str:
        return f"{self.inode}:{self.offset}:{zlib.crc32(self._before)}"

    def close(self) -> None:
        """Let the file go; the next read opens it again."""
        with self._lock:
            if self.file is not None:
                self.file.close()
            for waiting in self._waiting:
                waiting.file.close()
            self._waiting.clear()
            self.file, self.rest = None, b""


def tail_cursor(path: Path, lines: int) -> str:
    """The cursor from which the last `lines` records follow. Reads backwards in blocks, at most 8 MiB."""
    with path.open("rb") as file:
        inode = os.fstat(file.fileno()).st_ino
        end = position = file.seek(0, os.SEEK_END)
        data = b""
        while position > 0 and data.count(b"\n") <= lines and end - position < 8 * 1024 * 1024:
            step = min(64 * 1024, position)
            position -= step
            file.seek(position)
            data = file.read(step) + data
        parts = data.split(b"\n")
        kept = parts[-(lines + 1) :] if data.endswith(b"\n") else parts[-lines:]
        offset = end - len(b"\n".join(kept))
        start = max(0, offset - CHECK_BYTES)
        file.seek(start)
        return f"{inode}:{offset}:{zlib.crc32(file.read(offset - start))}"


async def follow(
    path: Path, *, since: str, on: bool, ended: Callable[[], Awaitable[bool]]
) -> AsyncIterator[LogLine]:
    """Records after `since`; with `on`, until `ended` says so and everything was read."""
    reader = Reader(path, since)
    loop = asyncio.get_running_loop()
    quiet, asked, finished = 0, loop.time(), False
    if on:
        _looker.add(reader)
    try:
        while True:
            lines = reader.read()
            for line in lines:
                yield line
            if lines:
                quiet = 0
                await asyncio.sleep(0)
                continue
            if not on or finished:
                return
            quiet += 1
            if loop.time() - asked > ALIVE_SECONDS:
                # One more read follows: lines may have come between the last read and the end.
                asked, finished = loop.time(), await ended()
                continue
            await asyncio.sleep(POLL_SECONDS if quiet < QUIET_AFTER_POLLS else QUIET_POLL_SECONDS)
    finally:
        _looker.remove(reader)
        reader.close()


class _Looker:
    """One thread that looks at the names of all followed logs. The loop may be busy for longer than conmon needs to fill a file."""

    def __init__(self) -> None:
        self._readers: set[Reader] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, reader: Reader) -> None:
        """Look for this reader from now on."""
        with self._lock:
            self._readers.add(reader)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="log-look", daemon=True)
                self._thread.start()

    def remove(self, reader: Reader) -> None:
        """Look for it no more."""
        with self._lock:
            self._readers.discard(reader)

    def _work(self) -> None:
        while True:
            with self._lock:
                readers = list(self._readers)
                if not readers:
                    self._thread = None
                    return
            for reader in readers:
                try:
                    reader.look()
                except OSError:
                    # Out of descriptors or the like: the next look may find them.
                    continue
            time.sleep(LOOK_SECONDS)


_looker = _Looker()
