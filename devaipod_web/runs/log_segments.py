"""The files of a container's log: segments of numbered records, closed ones compressed so that any line is found without the rest.

    <first line, 12 digits>.log          being written: records as they come
    <first line, 12 digits>.log.zst      closed: frames of about `BLOCK_BYTES` of whole records, and a table of where they begin

The table is a skippable frame (RFC 8878 §3.1.2), so `zstd -dc` reads an archive as one stream. Everything here blocks, and nothing holds
more than a block or two.
"""

from __future__ import annotations

import contextlib
import os
import struct
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import zstandard

#: Bytes of records that are compressed, read and held at once.
BLOCK_BYTES = 256 * 1024
_SKIPPABLE = 0x184D2A5D
_HEAD = struct.Struct("<II")
_ENTRY = struct.Struct("<QQ")
_FOOT = struct.Struct("<I4s")
_TAG = b"dvpl"


def listed(place: Path) -> list[tuple[int, Path]]:
    """(first line, path) of each segment in order; of one that is there twice the uncompressed."""
    found: dict[int, Path] = {}
    try:
        names = sorted((path.name for path in place.iterdir()), reverse=True)
    except (FileNotFoundError, NotADirectoryError):
        return []
    for name in names:
        number, _, suffix = name.partition(".")
        if number.isdigit() and suffix in ("log", "log.zst"):
            found[int(number)] = place / name
    return sorted(found.items())


def size_of(segments: list[tuple[int, Path]]) -> int:
    """Bytes of disk that they take; one that has just gone counts nothing."""
    total = 0
    for _, path in segments:
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


def compress(path: Path) -> None:
    """Replace a closed segment by its compressed form; a crash in between leaves the one or the other, or both whole."""
    target = path.with_name(path.name + ".zst")
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with path.open("rb") as source, draft.open("wb") as out:
            _write_archive(source, out, first=int(path.name.partition(".")[0]))
        draft.replace(target)
    except OSError:
        # No room for the compressed copy: the segment stays as it is.
        draft.unlink(missing_ok=True)
        return
    path.unlink(missing_ok=True)


def _write_archive(source: BinaryIO, out: BinaryIO, *, first: int) -> None:
    compressor = zstandard.ZstdCompressor(level=3)
    table, offset = [], 0
    for block in _whole_records(source):
        table.append(_ENTRY.pack(first, offset))
        offset += out.write(compressor.compress(block))
        first += block.count(b"\n")
    foot = b"".join(table) + _FOOT.pack(len(table), _TAG)
    out.write(_HEAD.pack(_SKIPPABLE, len(foot)) + foot)


def _whole_records(source: BinaryIO) -> Iterator[bytes]:
    """Pieces of a file that end with a record; what follows the last newline is torn and left out."""
    rest = b""
    while data := source.read(BLOCK_BYTES):
        end = data.rfind(b"\n") + 1
        if end:
            yield rest + data[:end]
            rest = data[end:]
        else:
            rest += data


class Segment:
    """An open segment. Its blocks are whole records; `next_block` goes on through them and returns b"" where there is no more now."""

    def __init__(self, first: int, path: Path) -> None:
        self.first, self.path = first, path
        self._file = path.open("rb")
        self._is_archive = path.suffix == ".zst"
        self._table = self._read_table() if self._is_archive else []
        self._index = 0
        self._offset = 0

    def close(self) -> None:
        """Let the file go."""
        self._file.close()

    def seek(self, number: int) -> int:
        """Go to the block that has line `number`, and return the number of that block's first line."""
        if self._is_archive:
            firsts = [first for first, _ in self._table]
            self._index = max(bisect_right(firsts, number) - 1, 0)
            return firsts[self._index] if firsts else self.first
        at, self._offset = self.first, 0
        while at < number:
            block = self._raw_block()
            lines = block.count(b"\n")
            if not block or at + lines > number:
                break
            at, self._offset = at + lines, self._offset + len(block)
        return at

    def next_block(self) -> bytes:
        """The next whole records; empty at the end, for now when the segment is still written to."""
        if not self._is_archive:
            block = self._raw_block()
            self._offset += len(block)
            return block
        if self._index >= len(self._table):
            return b""
        begin, self._index = self._table[self._index][1], self._index + 1
        more = self._table[self._index :]
        self._file.seek(begin)
        # One frame alone: the decompressor's own readers go on into the next ones.
        frame = self._file.read(more[0][1] - begin) if more else self._file.read()
        return zstandard.ZstdDecompressor().decompressobj().decompress(frame)

    def last_block(self) -> bytes:
        """The records at the end: at least the last one."""
        if self._is_archive:
            self._index = max(len(self._table) - 1, 0)
            return self.next_block()
        size = self._file.seek(0, os.SEEK_END)
        back = BLOCK_BYTES
        while True:
            start = max(size - back, 0)
            self._file.seek(start)
            data = self._file.read(size - start)
            data = data[: data.rfind(b"\n") + 1]
            begin = 0 if start == 0 else data.find(b"\n") + 1
            if start == 0 or 0 < begin < len(data):
                return data[begin:]
            back *= 2

    def _raw_block(self) -> bytes:
        """Whole records from the present place on, without going on."""
        self._file.seek(self._offset)
        want = BLOCK_BYTES
        while True:
            data = self._file.read(want)
            end = data.rfind(b"\n") + 1
            if end or len(data) < want:
                return data[:end]
            # A record longer than a block.
            want *= 2
            self._file.seek(self._offset)

    def _read_table(self) -> list[tuple[int, int]]:
        """(first line, offset) of each frame. An archive without a table is one frame."""
        size = self._file.seek(0, os.SEEK_END)
        with contextlib.suppress(OSError, struct.error, ValueError):
            self._file.seek(-_FOOT.size, os.SEEK_END)
            count, tag = _FOOT.unpack(self._file.read(_FOOT.size))
            length = count * _ENTRY.size + _FOOT.size
            if tag == _TAG and length + _HEAD.size <= size:
                self._file.seek(-length - _HEAD.size, os.SEEK_END)
                magic, told = _HEAD.unpack(self._file.read(_HEAD.size))
                if (magic, told) == (_SKIPPABLE, length):
                    return list(_ENTRY.iter_unpack(self._file.read(count * _ENTRY.size)))
        return [(self.first, 0)]


def cut_torn_record(place: Path) -> None:
    """Take away what a killed writer left: drafts of archives, and what follows the last whole record of the open segment."""
    for draft in place.glob(".*"):
        draft.unlink(missing_ok=True)
    segments = listed(place)
    if not segments or segments[-1][1].suffix == ".zst":
        return
    path = segments[-1][1]
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        at, keep = end, 0
        while at > 0 and not keep:
            step = min(BLOCK_BYTES, at)
            at -= step
            file.seek(at)
            found = file.read(step).rfind(b"\n")
            keep = at + found + 1 if found >= 0 else 0
        if keep != end:
            file.truncate(keep)
    if keep == 0:
        path.unlink()
