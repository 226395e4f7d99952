"""Container logs on disk: append-only segments that survive a `kill -9` and are read by line number.

    logs/<run key>/<pod name>/<container>/<first line, 12 digits>.log    8 MiB each, `.log.zst` when closed

One JSON object a line: `n` (number, from 1, gapless), `at`, `s` (o or e), `t` (text), `c` (the backend's cursor), and `p`
(goes on in the next record) or `g` (the backend discarded lines before this one) where they apply. The cursor lies with the
line, so that a killed server goes on exactly after the last line that it stored; a torn last line is cut when the log is opened
again. Lines of a segment are consecutive, so a line is found by counting.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import zstandard

from devaipod_web import home
from pods.spec import LogLine

SEGMENT_BYTES = 8 * 1024 * 1024
#: Longer lines are stored as several records, all but the last marked partial.
MAX_TEXT_BYTES = 64 * 1024
#: Bytes of one container's log that are kept, uncompressed.
MAX_CONTAINER_BYTES = 256 * 1024 * 1024
MAX_READ = 5_000
_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,62})")
#: More than a record of `MAX_TEXT_BYTES` can take once JSON has escaped it.
_LONGEST_RECORD = 8 * MAX_TEXT_BYTES


@dataclass(frozen=True)
class StoredLine:
    """One record of a log. `at` is RFC 3339 in UTC.

    `partial`: the line goes on in the next record. `gap`: lines before it are lost.
    """

    n: int
    at: str
    stream: str
    text: str
    partial: bool = False
    gap: bool = False


class LogFull(Exception):
    """The container's log has reached `MAX_CONTAINER_BYTES`; what comes after is not stored."""


def folder(run_key: str, pod_name: str, container: str) -> Path:
    """Where a container's segments lie. Raises ValueError for names that are none of ours."""
    for name in (run_key, pod_name, container):
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a name of a run, pod or container")
    return home.run_logs_dir(run_key) / pod_name / container


def read(
    run_key: str, pod_name: str, container: str, *, after: int, limit: int
) -> list[StoredLine]:
    """The lines after number `after`, in order, at most `limit` (and at most `MAX_READ`). Empty when there are none.

    Blocking: call it in a thread.
    """
    limit = min(limit, MAX_READ)
    place = folder(run_key, pod_name, container)
    for _ in range(3):
        try:
            return _read(place, after=max(after, 0), limit=limit)
        except FileNotFoundError:
            # A segment was compressed between the listing and the opening: look again.
            continue
    return []


def _read(place: Path, *, after: int, limit: int) -> list[StoredLine]:
    found: list[StoredLine] = []
    segments = _segments(place)
    for index, (first, path) in enumerate(segments):
        if index + 1 < len(segments) and segments[index + 1][0] <= after + 1:
            continue
        skip = max(after + 1 - first, 0)
        for raw in _records(path, skip=skip):
            line = _parse(raw)
            if line is not None and line.n > after:
                found.append(line)
            if len(found) >= limit:
                return found
    return found


def tail(run_key: str, pod_name: str, container: str, *, limit: int) -> list[StoredLine]:
    """The last `limit` lines. Blocking."""
    last = last_number(run_key, pod_name, container)
    return read(run_key, pod_name, container, after=max(last - limit, 0), limit=limit)


def last_number(run_key: str, pod_name: str, container: str) -> int:
    """The number of the last line, 0 when there is none. Blocking."""
    for _ in range(3):
        try:
            end = _last_record(folder(run_key, pod_name, container))
        except FileNotFoundError:
            continue
        return int(end["n"]) if end else 0
    return 0


def containers(run_key: str) -> list[tuple[str, str]]:
    """(pod name, container) of every log that the run has, in the order of the attempts. Blocking."""
    if not _NAME.fullmatch(run_key):
        return []
    top = home.run_logs_dir(run_key)
    if not top.is_dir():
        return []
    found = [
        (pod.name, container.name)
        for pod in top.iterdir()
        if pod.is_dir()
        for container in pod.iterdir()
        if container.is_dir()
    ]
    return sorted(found, key=lambda pair: (_attempt(pair[0]), pair))


def _attempt(pod_name: str) -> int:
    number = pod_name.rpartition("-")[2]
    return int(number) if number.isdigit() else 0


class Writer:
    """Appends to one container's log. One writer a log, used by one thread at a time; everything blocks."""

    def __init__(self, run_key: str, pod_name: str, container: str) -> None:
        self.folder = folder(run_key, pod_name, container)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file: io.FileIO | None = None
        self._size = 0
        self._path: Path | None = None
        self._cut_torn_line()
        end = _last_record(self.folder)
        self.last = int(end["n"]) if end else 0
        self.cursor = str(end["c"]) if end else ""
        self._total = sum(path.stat().st_size for _, path in _segments(self.folder))

    def append(self, lines: Iterable[LogLine]) -> list[StoredLine]:
        """Store lines and return them as they are stored.

        Raises LogFull at the log's bound, and OSError (ENOSPC) when the disk is full: nothing of the batch is stored then and
        the writer stays usable.
        """
        if self._total >= MAX_CONTAINER_BYTES:
            raise LogFull
        stored: list[StoredLine] = []
        records: list[bytes] = []
        for line in lines:
            for piece, partial in _pieces(line):
                number = self.last + len(stored) + 1
                row = StoredLine(
                    n=number,
                    at=_stamp(line.at),
                    stream=line.stream,
                    text=piece,
                    partial=partial,
                    gap=line.gap and not (stored and stored[-1].partial),
                )
                stored.append(row)
                records.append(_encode(row, line.cursor))
        if not stored:
            return []
        data = b"".join(records)
        self._write(data, first=stored[0].n)
        self.last, self.cursor = stored[-1].n, json.loads(records[-1])["c"]
        self._total += len(data)
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
            segments = _segments(self.folder)
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
            compress(path)

    def close(self, *, finished: bool = False) -> None:
        """Let go of the file; with `finished` nothing more will come and the last segment is compressed too."""
        if finished:
            self._open_path_for_closing()
            self._close_segment()
        elif self._file is not None:
            self._file.close()
            self._file = None

    def _open_path_for_closing(self) -> None:
        if self._path is None:
            segments = _segments(self.folder)
            if segments and segments[-1][1].suffix == ".log":
                self._path = segments[-1][1]

    def _cut_torn_line(self) -> None:
        for draft in self.folder.glob(".*"):
            draft.unlink(missing_ok=True)
        segments = _segments(self.folder)
        if not segments or segments[-1][1].suffix == ".zst":
            return
        path = segments[-1][1]
        with path.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(size - _LONGEST_RECORD, 0)
            file.seek(start)
            rest = file.read()
            if not rest.endswith(b"\n"):
                file.truncate(start + rest.rfind(b"\n") + 1)
        if path.stat().st_size == 0:
            path.unlink()


def compress(path: Path) -> None:
    """Replace a closed segment by its compressed form; a crash in between leaves the one or the other, or both whole."""
    target = path.with_name(path.name + ".zst")
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with path.open("rb") as source, draft.open("wb") as out:
            zstandard.ZstdCompressor(level=3).copy_stream(source, out)
        draft.replace(target)
    except OSError:
        # No room for the compressed copy: the segment stays as it is.
        draft.unlink(missing_ok=True)
        return
    path.unlink(missing_ok=True)


def _segments(place: Path) -> list[tuple[int, Path]]:
    """(first line, path) of each segment in order; of one that is there twice the uncompressed."""
    if not place.is_dir():
        return []
    found: dict[int, Path] = {}
    for path in sorted(place.iterdir(), reverse=True):
        number, _, suffix = path.name.partition(".")
        if number.isdigit() and suffix in ("log", "log.zst"):
            found[int(number)] = path
    return sorted(found.items())


def _records(path: Path, *, skip: int) -> Iterator[bytes]:
    """The whole records of a segment after the first `skip`."""
    with path.open("rb") as raw:
        if path.suffix == ".zst":
            with zstandard.ZstdDecompressor().stream_reader(raw) as stream:
                data = stream.readall()
        else:
            data = raw.read()
    position = 0
    for _ in range(skip):
        end = data.find(b"\n", position)
        if end < 0:
            return
        position = end + 1
    while (end := data.find(b"\n", position)) >= 0:
        yield data[position:end]
        position = end + 1


def _last_record(place: Path) -> dict[str, str | int] | None:
    segments = _segments(place)
    for _, path in reversed(segments):
        if path.suffix == ".zst":
            data = b"\n".join(_records(path, skip=0)) + b"\n"
        else:
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(size - _LONGEST_RECORD, 0))
                data = file.read()
        for raw in reversed(data[: data.rfind(b"\n") + 1].splitlines()):
            try:
                found: dict[str, str | int] = json.loads(raw)
            except ValueError:
                continue
            return found
    return None


def _pieces(line: LogLine) -> Iterator[tuple[str, bool]]:
    data = line.text
    while len(data) > MAX_TEXT_BYTES:
        cut = MAX_TEXT_BYTES
        # Not in the middle of a UTF-8 character: its further bytes begin with the bits 10.
        while cut > MAX_TEXT_BYTES - 4 and data[cut] & 0xC0 == 0x80:
            cut -= 1
        yield data[:cut].decode("utf-8", "replace"), True
        data = data[cut:]
    yield data.decode("utf-8", "replace"), line.partial


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _encode(row: StoredLine, cursor: str) -> bytes:
    record: dict[str, str | int] = {
        "n": row.n,
        "at": row.at,
        "s": "o" if row.stream == "stdout" else "e",
        "t": row.text,
        "c": cursor,
    }
    if row.partial:
        record["p"] = 1
    if row.gap:
        record["g"] = 1
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _parse(raw: bytes) -> StoredLine | None:
    try:
        record = json.loads(raw)
        return StoredLine(
            n=int(record["n"]),
            at=str(record["at"]),
            stream="stdout" if record["s"] == "o" else "stderr",
            text=str(record["t"]),
            partial=bool(record.get("p")),
            gap=bool(record.get("g")),
        )
    except (ValueError, KeyError, TypeError):
        return None
