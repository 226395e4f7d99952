"""Reading a container's log file: records, cursors, new files under the old name."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from pods import podman_logs
from pods.podman_logs import Reader, parse, tail_cursor


def record(number: int, *, mark: str = "F") -> bytes:
    """A record as conmon writes it."""
    return b"2026-11-23T21:00:00.%09d+00:00 stdout %s line %d\n" % (
        number * 1_000_000,
        mark.encode(),
        number,
    )


def texts(path: Path, since: str = "") -> list[bytes]:
    """What a new reader finds."""
    reader, found = Reader(path, since), []
    while lines := reader.read():
        found += [line.text for line in lines]
    return found


def test_a_record_has_its_stream_time_and_part_mark() -> None:
    line = parse(b"2026-11-23T22:30:01.123456789+01:00 stderr P some text", cursor="c", gap=False)
    assert line.stream == "stderr"
    assert line.at == datetime(2026, 11, 23, 21, 30, 1, 123456, tzinfo=UTC)
    assert (line.text, line.partial) == (b"some text", True)


@pytest.mark.parametrize(
    "text", [b"", b"junk", b"\xff\x00\x01", b"a b c d", b"x stdout F", b"x stdout Q y"]
)
def test_what_is_no_record_is_passed_on_whole(text: bytes) -> None:
    line = parse(text, cursor="c", gap=False)
    assert line.text in (text, b"")


def test_half_a_record_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(record(1) + record(2)[:20])
    reader = Reader(path)
    assert [line.text for line in reader.read()] == [b"line 1"]
    with path.open("ab") as file:
        file.write(record(2)[20:])
    assert [line.text for line in reader.read()] == [b"line 2"]


def test_the_file_may_come_later(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "log")
    assert reader.read() == []
    (tmp_path / "log").write_bytes(record(1))
    assert len(reader.read()) == 1


@pytest.mark.parametrize("speed", [1, 200_000_000])
def test_a_new_file_is_read_after_the_old_one_and_a_gap_is_said_where_another_may_have_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speed: int
) -> None:
    # At one byte a second nothing can have been missed; at the real speed so small a file can have been.
    monkeypatch.setattr(podman_logs, "CONMON_BYTES_PER_SECOND", speed)
    path = tmp_path / "log"
    path.write_bytes(record(1))
    reader = Reader(path)
    lines = reader.read()
    with path.open("ab") as file:
        file.write(record(2))
        (tmp_path / "new").write_bytes(record(3))
        (tmp_path / "new").rename(path)
    for _ in range(4):
        lines += reader.read()
    assert [line.text for line in lines] == [b"line 1", b"line 2", b"line 3"]
    assert [line.gap for line in lines] == [False, False, speed > 1]


def test_files_that_podman_discards_are_read_when_they_were_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This machine may be slow between two looks; the files are small.
    monkeypatch.setattr(podman_logs, "CONMON_BYTES_PER_SECOND", 1)
    path, n = tmp_path / "log", 0
    reader, lines = Reader(path), []
    path.write_bytes(record(0))
    lines += reader.read()
    for _ in range(podman_logs.MAX_WAITING):
        n += 1
        (tmp_path / "new").write_bytes(record(n))
        (tmp_path / "new").rename(path)
        reader.look()
    while found := reader.read():
        lines += found
    assert [line.text for line in lines] == [b"line %d" % m for m in range(n + 1)]
    assert not any(line.gap for line in lines)
    # One more than may wait: the oldest of them is given up, and that is said.
    for _ in range(podman_logs.MAX_WAITING + 1):
        n += 1
        (tmp_path / "new").write_bytes(record(n))
        (tmp_path / "new").rename(path)
        reader.look()
    later = []
    while found := reader.read():
        later += found
    assert [line.text for line in later][-1] == b"line %d" % n
    assert len(later) == podman_logs.MAX_WAITING
    assert [line.gap for line in later] == [True] + [False] * (len(later) - 1)


def test_a_cursor_into_a_file_that_is_gone_gives_a_gap_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(record(1) + record(2))
    cursor = Reader(path).read()[0].cursor
    (tmp_path / "new").write_bytes(record(8) + record(9))
    (tmp_path / "new").rename(path)
    lines = Reader(path, cursor).read()
    assert [(line.text, line.gap) for line in lines] == [(b"line 8", True), (b"line 9", False)]


def test_a_cursor_is_not_fooled_by_an_inode_that_is_used_again(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"".join(record(n) for n in range(5)))
    cursor = Reader(path).read()[2].cursor
    with path.open("r+b") as file:  # the same inode with other content, and longer
        file.write(b"".join(record(n) for n in range(50, 60)))
    lines = Reader(path, cursor).read()
    assert lines[0].gap
    assert lines[0].text == b"line 50"


@pytest.mark.parametrize("cursor", ["x", "1:2", "1:2:3:4", "::", "-1:5:0", "99999999999:1:2"])
def test_a_cursor_that_is_none_of_ours_starts_from_the_beginning(
    tmp_path: Path, cursor: str
) -> None:
    path = tmp_path / "log"
    path.write_bytes(record(1))
    assert texts(path, cursor) == [b"line 1"]


def test_the_tails_cursor_leaves_exactly_that_many_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"".join(record(n) for n in range(3000)))
    for many in (0, 1, 7, 2999, 3000, 5000):
        assert len(texts(path, tail_cursor(path, many))) == min(many, 3000)


def test_a_record_without_end_is_passed_on_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"2026-11-23T21:00:00.000000000+00:00 stdout F " + b"x" * 3_000_000 + b"\n")
    reader, lines = Reader(path), []
    for _ in range(100):
        lines += reader.read()
    assert sum(len(line.text) for line in lines) >= 2_999_000
    assert [line.partial for line in lines].count(False) == 1
