"""Events on disk until the gateway has acknowledged them: numbered, in order, none lost by a crash of either side.

A folder of segments, each named by its first `source_seq`, one JSON event a line. The last segment always stays, so that the
numbering goes on after everything was acknowledged. When what is not acknowledged exceeds the bound, `put` waits, and
with it whoever reads the agent.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from pods.sidecar.protocol import Event

#: Not acknowledged bytes above which `put` waits.
MAX_BYTES = 64 * 1024 * 1024
SEGMENT_BYTES = 4 * 1024 * 1024
#: One event's line at most; the caller cuts payloads well below.
MAX_LINE = 4 * 1024 * 1024
#: Not acknowledged events above which `put` waits: each costs memory for its place.
MAX_EVENTS = 50_000
SYNC_SECONDS = 1.0


@dataclass(frozen=True)
class _Place:
    seq: int
    path: Path
    offset: int
    length: int


class Outbox:
    """The events of one attempt. Not safe across processes; one event loop owns it."""

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.last_seq = 0
        self.acked = 0
        self.waiting_bytes = 0
        self._places: deque[_Place] = deque()
        self._file: BinaryIO | None = None
        self._path = folder / f"{1:020d}.ndjson"
        self._size = 0
        self._news: asyncio.Event = asyncio.Event()
        self._room: asyncio.Event = asyncio.Event()
        self._room.set()
        self._dirty = False
        folder.mkdir(parents=True, exist_ok=True)
        self._recover()

    def _recover(self) -> None:
        segments = sorted(self.folder.glob("*.ndjson"))
        for path in segments:
            first = int(path.stem)
            self.last_seq = max(self.last_seq, first - 1)
            data = path.read_bytes()
            whole = data.rfind(b"\n") + 1
            if whole != len(data):  # a line that a crash tore
                os.truncate(path, whole)
            offset = 0
            for line in data[:whole].splitlines(keepends=True):
                self.last_seq += 1
                self._places.append(_Place(self.last_seq, path, offset, len(line)))
                self.waiting_bytes += len(line)
                offset += len(line)
        if segments:
            self._path = segments[-1]
            self._size = self._path.stat().st_size
        self._measure()

    async def put(
        self, kind: str, payload: dict[str, Any], *, raw: Any = None, urgent: bool = False
    ) -> int:
        """Number and store an event and return its number; waits while the outbox is full, unless `urgent`."""
        # No lock: what is urgent must not queue behind those who wait for room, or the one who takes
        # acknowledgements would wait for himself.
        while not urgent and not self._room.is_set():
            await self._room.wait()
        event: Event = {
            "source_seq": self.last_seq + 1,
            "kind": str(kind),
            "v": 1,
            "at": datetime.now(UTC).isoformat(),
            "payload": payload,
        }
        if raw is not None:
            event["raw"] = raw
        line = _line(event)
        if len(line) > MAX_LINE:
            event["payload"] = {"truncated": True, "bytes": len(line)}
            event.pop("raw", None)
            line = _line(event)
        self._append(line)
        return self.last_seq

    def _append(self, line: bytes) -> None:
        if self._size >= SEGMENT_BYTES:
            self._close_file()
            self._path = self.folder / f"{self.last_seq + 1:020d}.ndjson"
            self._size = 0
        if self._file is None:
            self._file = self._path.open("ab", buffering=0)
        self._file.write(line)
        self.last_seq += 1
        self._places.append(_Place(self.last_seq, self._path, self._size, len(line)))
        self._size += len(line)
        self.waiting_bytes += len(line)
        self._dirty = True
        self._measure()
        self._news.set()

    def batch(self, after: int, *, limit: int, max_bytes: int) -> list[bytes]:
        """The stored lines behind `after`, at most `limit` and, beyond the first, `max_bytes` of them."""
        lines: list[bytes] = []
        size = 0
        skip = max(0, after - self._places[0].seq + 1) if self._places else 0
        file: BinaryIO | None = None
        opened: Path | None = None
        try:
            for index in range(skip, min(len(self._places), skip + limit)):
                place = self._places[index]
                size += place.length
                if lines and size > max_bytes:
                    break
                if place.path != opened:
                    if file is not None:
                        file.close()
                    file, opened = place.path.open("rb"), place.path
                assert file is not None
                file.seek(place.offset)
                lines.append(file.read(place.length))
        finally:
            if file is not None:
                file.close()
        return lines

    def ack(self, seq: int) -> None:
        """Everything up to `seq` is committed over there: let it go."""
        if seq > self.last_seq:
            # Our disk was lost and the gateway knows more than we do: go on behind its number.
            self._close_file()
            self.last_seq = seq
            self._path = self.folder / f"{seq + 1:020d}.ndjson"
            self._size = 0
        if seq > self.acked:
            self.acked = seq
            (self.folder / "acked").write_text(str(seq))
        while self._places and self._places[0].seq <= seq:
            place = self._places.popleft()
            self.waiting_bytes -= place.length
            if place.path != self._path and (
                not self._places or self._places[0].path != place.path
            ):
                place.path.unlink(missing_ok=True)
        self._measure()

    def _measure(self) -> None:
        if self.waiting_bytes >= self.max_bytes or len(self._places) >= MAX_EVENTS:
            self._room.clear()
        else:
            self._room.set()

    async def wait_news(self, after: int) -> None:
        """Wait until there is an event behind `after`."""
        while self.last_seq <= after:
            self._news.clear()
            await self._news.wait()

    async def wait_acked(self, seconds: float) -> bool:
        """Wait until everything is acknowledged; False when that took longer than `seconds`."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while self._places and loop.time() < end:
            await asyncio.sleep(0.02)
        return not self._places

    async def keep_synced(self) -> None:
        """Have the disk hold what was written, once a second: a crash of the host loses no more than that."""
        while True:
            await asyncio.sleep(SYNC_SECONDS)
            if not self._dirty or self._file is None:
                continue
            self._dirty = False
            descriptor = os.dup(self._file.fileno())
            try:
                await asyncio.to_thread(os.fdatasync, descriptor)
            finally:
                os.close(descriptor)

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None

    def close(self) -> None:
        """Close the file; what is in it stays."""
        self._close_file()


def _line(event: Event) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"
