"""One record of a container's log: a JSON object on a line of a segment.

`n` (number, from 1), `at`, `s` (o or e), `t` (text), `c` (the backend's cursor), and `p` (goes on in the next record) or `g` (the backend
discarded lines before this one) where they apply.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from devaipod_web.runs.log_segments import Segment
from pods.spec import LogLine

#: Longer lines are stored as several records, all but the last marked partial.
MAX_TEXT_BYTES = 64 * 1024
#: `json.dumps` with these arguments would make an encoder a line: a third of the whole cost.
_as_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


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


def pieces(line: LogLine) -> Iterator[tuple[str, bool]]:
    """A line cut into texts of at most `MAX_TEXT_BYTES` between characters, each with whether it goes on."""
    data = line.text
    while len(data) > MAX_TEXT_BYTES:
        cut = MAX_TEXT_BYTES
        # Not in the middle of a UTF-8 character: its further bytes begin with the bits 10.
        while cut > MAX_TEXT_BYTES - 4 and data[cut] & 0xC0 == 0x80:
            cut -= 1
        yield data[:cut].decode("utf-8", "replace"), True
        data = data[cut:]
    yield data.decode("utf-8", "replace"), line.partial


def stamp(at: datetime) -> str:
    """A time as records have it."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def encode(row: StoredLine, cursor: str) -> bytes:
    """The record of a line, with its newline."""
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
    return _as_json(record).encode() + b"\n"


def parse(raw: bytes) -> StoredLine | None:
    """The line of a record, or None when it is none."""
    try:
        record = json.loads(raw.decode())
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


def last_of(segments: list[tuple[int, Path]]) -> dict[str, str | int] | None:
    """The last record of these segments that can be read, or None."""
    for first, path in reversed(segments):
        try:
            segment = Segment(first, path)
        except FileNotFoundError:
            # Compressed since it was listed.
            segment = Segment(first, path.with_name(path.name + ".zst"))
        block = segment.last_block()
        segment.close()
        for raw in reversed(block.splitlines()):
            try:
                found: dict[str, str | int] = json.loads(raw)
            except ValueError:
                continue
            return found
    return None
