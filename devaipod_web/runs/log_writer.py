"""Writes one container's log: whole batches or nothing, segment after segment, within a bound of disk."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path

from devaipod_web.runs import log_segments
from devaipod_web.runs.log_records import StoredLine, encode, last_of, pieces, stamp
from devaipod_web.runs.logs import folder
from pods.spec import LogLine

SEGMENT_BYTES = 8 * 1024 * 1024
#: Bytes of disk that one container's log may take; closed segments are compressed.
MAX_CONTAINER_BYTES = 256 * 1024 * 1024
#: Segments at the beginning that stay whatever comes after.
KEEP_FIRST_SEGMENTS = 2


class Writer:
    """Appends to one container's log. One writer a log, used by one thread at a time; everything blocks."""

    def __init__(self, run_key: str, pod_name: str, container: str) -> None:
        self.folder = folder(run_key, pod_name, container)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file: io.FileIO | None = None
        self._size = 0
        self._path: Path | None = None
        log_segments.cut_torn_record(self.folder)
        end = last_of(log_segments.listed(self.folder))
        self.last = int(end["n"]) if end else 0
        self.cursor = str(end["c"]) if end else ""
        #: Whether this writer has made a hole in the log's middle.
        self.has_discarded = False

    def append(self, lines: Iterable[LogLine]) -> list[StoredLine]:
        """Store lines and return them as they are stored.

        Raises OSError (ENOSPC) when the disk is full: nothing of the batch is stored then and the writer stays usable.
        """
        stored: list[StoredLine] = []
        records: list[bytes] = []
        cursor = self.cursor
        for line in lines:
            for piece, partial in pieces(line):
                number = self.last + len(stored) + 1
                row = StoredLine(
                    n=number,
                    at=stamp(line.at),
                    stream=line.stream,
                    text=piece,
                    partial=partial,
                    gap=line.gap and not (stored and stored[-1].partial),
                )
                stored.append(row)
                records.append(encode(row, line.cursor))
            cursor = line.cursor
        if not stored:
            return []
        self._write(b"".join(records), first=stored[0].n)
        self.last, self.cursor = stored[-1].n, cursor
        if self._size >= SEGMENT_BYTES:
            self._close_segment()
        return stored

    def _write(self, data: bytes, *, first: int) -> None:
        file = self._open(first)
        written = 0
        try:
            while written < len(data):
                written += file.write(data[written:]) or 0
        except OSError:
            # A torn batch must not stay: readers and the next writer count on whole lines.
            os.ftruncate(file.fileno(), self._size)
            raise
        self._size += written

    def _open(self, first: int) -> io.FileIO:
        if self._file is None:
            segments = log_segments.listed(self.folder)
            path = segments[-1][1] if segments else None
            if path is None or path.suffix == ".zst" or path.stat().st_size >= SEGMENT_BYTES:
                path = self.folder / f"{first:012d}.log"
            self._file = io.FileIO(path, "ab")
            self._path, self._size = path, path.stat().st_size
        return self._file

    def _close_segment(self) -> None:
        path = self._path
        if self._file is not None:
            self._file.close()
        self._file = self._path = None
        if path is not None:
            log_segments.compress(path)
            self._bound()

    def _bound(self) -> None:
        """Take whole segments from the middle until the log fits its bound."""
        segments = log_segments.listed(self.folder)
        while (
            len(segments) > KEEP_FIRST_SEGMENTS + 1
            and log_segments.size_of(segments) > MAX_CONTAINER_BYTES
        ):
            segments.pop(KEEP_FIRST_SEGMENTS)[1].unlink(missing_ok=True)
            self.has_discarded = True

    def close(self, *, finished: bool = False) -> None:
        """Let go of the file; with `finished` nothing more will come and the last segment is compressed too."""
        if self._file is not None:
            self._file.close()
        self._file = self._path = None
        if finished:
            for _, path in log_segments.listed(self.folder):
                if path.suffix == ".log":
                    log_segments.compress(path)
