"""Container logs on disk: numbered records that survive a `kill -9`, and are read by number however many there are.

    logs/<run key>/<pod name>/<container>/<segments>

`log_segments.py` has the files, `log_records.py` what a line of them is, `log_writer.py` writes them; here they are read. The backend's
cursor lies with each line, so that a killed server goes on exactly after the last line that it stored; a torn last line is cut when
the log is opened again.

A log may take `log_writer.MAX_CONTAINER_BYTES` of disk. Beyond that whole segments go from its middle: how it began and how it ended stay, and
the first line after the hole says `gap` to whoever reads. Numbers never change, so a number is a cursor for ever.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from devaipod_web import home
from devaipod_web.runs import log_segments
from devaipod_web.runs.log_records import MAX_TEXT_BYTES, StoredLine, last_of, parse
from devaipod_web.runs.log_segments import Segment

#: Most that one reading returns: lines, and characters of their text.
MAX_READ = 5_000
MAX_READ_CHARACTERS = 1024 * 1024
#: Lines that are read at once on the way back.
_STEP = 128
_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,62})")


def folder(run_key: str, pod_name: str, container: str) -> Path:
    """Where a container's segments lie. Raises ValueError for names that are none of ours."""
    for name in (run_key, pod_name, container):
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a name of a run, pod or container")
    return home.run_logs_dir(run_key) / pod_name / container


class Reader:
    """Reads a log from a number on, block by block, and goes on where it was; blocking, used by one thread at a time.

    It holds a block and an open file. A segment that is compressed or removed meanwhile is read to its end from that file.
    """

    def __init__(self, run_key: str, pod_name: str, container: str, *, after: int = 0) -> None:
        self.folder = folder(run_key, pod_name, container)
        #: The number of the last line that was returned.
        self.at = max(after, 0)
        self._segment: Segment | None = None
        self._block = b""
        self._position = self._skip = 0
        self._expected = self.at + 1

    def read(
        self,
        limit: int = MAX_READ,
        *,
        characters: int = MAX_READ_CHARACTERS,
        before: int | None = None,
    ) -> list[StoredLine]:
        """The next lines in order: at most `limit`, no more once they have `characters`, none from `before` on.

        Empty when there are none now; call again for what has come since.
        """
        found: list[StoredLine] = []
        taken = 0
        while (
            len(found) < limit and taken < characters and (raw := self._next_record()) is not None
        ):
            line = parse(raw)
            if line is None or line.n <= self.at:
                continue
            if before is not None and line.n >= before:
                break
            if line.n != self._expected:
                line = replace(line, gap=True)
            self.at, self._expected = line.n, line.n + 1
            taken += len(line.text)
            found.append(line)
        return found

    def close(self) -> None:
        """Let the file go; a further reading opens it again."""
        if self._segment is not None:
            self._segment.close()
        self._segment, self._block, self._position = None, b"", 0

    def _next_record(self) -> bytes | None:
        while True:
            end = self._block.find(b"\n", self._position)
            if end >= 0:
                raw, self._position = self._block[self._position : end], end + 1
                return raw
            if not self._next_block():
                return None

    def _next_block(self) -> bool:
        if self._segment is None and not self._open(self.at + 1):
            return False
        assert self._segment is not None
        block = self._segment.next_block()
        if not block:
            following = self._following(self._segment)
            # What was written between the last look and the next segment's beginning is still in this one.
            block = self._segment.next_block()
            if not block and following is None:
                return False
            if not block:
                self.close()
                return self._open(following or 0) and self._next_block()
        self._block, self._position = block, 0
        while self._skip and (end := block.find(b"\n", self._position)) >= 0:
            self._position, self._skip = end + 1, self._skip - 1
        return True

    def _following(self, segment: Segment) -> int | None:
        firsts = [first for first, _ in log_segments.listed(self.folder)]
        return next((first for first in firsts if first > segment.first), None)

    def _open(self, number: int) -> bool:
        """Open the segment that has line `number`, else the one after it, at the block of that line."""
        for _ in range(3):
            segments = log_segments.listed(self.folder)
            if not segments:
                return False
            at = max((i for i, (first, _) in enumerate(segments) if first <= number), default=0)
            try:
                self._segment = Segment(*segments[at])
            except FileNotFoundError:
                # It was compressed between the listing and the opening: look again.
                continue
            self._skip = max(number - self._segment.seek(number), 0)
            return True
        return False


def read(
    run_key: str,
    pod_name: str,
    container: str,
    *,
    after: int,
    limit: int,
    characters: int = MAX_READ_CHARACTERS,
) -> list[StoredLine]:
    """The lines after number `after`, in order, at most `limit` (and at most `MAX_READ`), fewer when they are long.

    Empty only when there are none. Blocking: call it in a thread.
    """
    reader = Reader(run_key, pod_name, container, after=after)
    try:
        return reader.read(min(limit, MAX_READ), characters=characters)
    finally:
        reader.close()


def read_before(
    run_key: str,
    pod_name: str,
    container: str,
    *,
    before: int,
    limit: int,
    characters: int = MAX_READ_CHARACTERS,
) -> list[StoredLine]:
    """The last lines before number `before`, in order, at most `limit`, fewer when they are long. Blocking."""
    segments = log_segments.listed(folder(run_key, pod_name, container))
    found: list[StoredLine] = []
    taken, end = 0, before
    for first, _ in reversed(segments):
        while end > first and len(found) < limit and taken < characters:
            start = max(first, end - min(_STEP, limit - len(found)))
            reader = Reader(run_key, pod_name, container, after=start - 1)
            lines = reader.read(end - start, characters=_STEP * MAX_TEXT_BYTES, before=end)
            reader.close()
            found, end = [*lines, *found], start
            taken += sum(len(line.text) for line in lines)
    while len(found) > 1 and taken > characters:
        taken -= len(found.pop(0).text)
    return _with_holes(found, segments)


def _with_holes(found: list[StoredLine], segments: list[tuple[int, Path]]) -> list[StoredLine]:
    """The same lines, those after a hole marked; a hole before the first of them is seen from the segment before its own."""
    marked, expected = [], found[0].n if found else 0
    firsts = [first for first, _ in segments]
    if expected > 1 and expected in firsts:
        at = firsts.index(expected)
        end = last_of(segments[at - 1 : at]) if at else None
        expected = int(end["n"]) + 1 if end else 1
    for line in found:
        marked.append(line if line.n == expected else replace(line, gap=True))
        expected = line.n + 1
    return marked


def tail(
    run_key: str,
    pod_name: str,
    container: str,
    *,
    limit: int,
    characters: int = MAX_READ_CHARACTERS,
) -> list[StoredLine]:
    """The last `limit` lines, fewer when they are long. Blocking."""
    end = last_number(run_key, pod_name, container) + 1
    return read_before(run_key, pod_name, container, before=end, limit=limit, characters=characters)


def last_number(run_key: str, pod_name: str, container: str) -> int:
    """The number of the last line, 0 when there is none. Blocking."""
    end = last_of(log_segments.listed(folder(run_key, pod_name, container)))
    return int(end["n"]) if end else 0


def size(run_key: str, pod_name: str, container: str) -> int:
    """Bytes of disk that the log takes. Blocking."""
    return log_segments.size_of(log_segments.listed(folder(run_key, pod_name, container)))


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


def archive(run_key: str, pod_name: str) -> int:
    """Compress what is left uncompressed of a pod's logs; returns how many segments that were. Nothing may write them any more.

    Safe to repeat: it finishes what a killed process did not. Blocking.
    """
    done = 0
    for pod, container in containers(run_key):
        if pod != pod_name:
            continue
        place = folder(run_key, pod, container)
        log_segments.cut_torn_record(place)
        for _, path in log_segments.listed(place):
            if path.suffix == ".log":
                log_segments.compress(path)
                done += 1
    return done


def unarchived() -> list[tuple[str, str]]:
    """(run key, pod name) of the pods of which some log is not compressed. Blocking."""
    found = home.run_logs_dir("x").parent.glob("*/*/*/*.log")
    return sorted({(path.parts[-4], path.parts[-3]) for path in found})


def _attempt(pod_name: str) -> int:
    number = pod_name.rpartition("-")[2]
    return int(number) if number.isdigit() else 0
