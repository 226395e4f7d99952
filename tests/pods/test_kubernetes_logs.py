"""From what the API sends of a log to lines: stamps, pieces, cursors, gaps."""

from __future__ import annotations

import pytest

from pods.kubernetes_logs import Cursor, Splitter, in_utc, read_cursor
from pods.spec import LogLine


def line(number: int, text: bytes = b"", *, stamp: int | None = None) -> bytes:
    """A line as a kubelet writes it."""
    at = number if stamp is None else stamp
    return b"2026-11-28T12:00:00.%09dZ %s\n" % (at, text or b"line %d" % number)


def after(cursor: str) -> Splitter:
    """A reader that goes on after a cursor."""
    return Splitter("agent", read_cursor(cursor))


def texts(lines: list[LogLine]) -> list[bytes]:
    return [one.text for one in lines]


def test_lines_come_whole_however_they_are_cut() -> None:
    data = b"".join(line(n) for n in range(50))
    for size in (1, 7, 4096):
        splitter, found = Splitter("agent", None), []
        for at in range(0, len(data), size):
            found += splitter.feed(data[at : at + size])
        assert texts(found) == [b"line %d" % n for n in range(50)]
        assert found[3].at.isoformat() == "2026-11-28T12:00:00+00:00"


def test_what_ends_without_a_newline_is_a_line() -> None:
    splitter = Splitter("agent", None)
    assert splitter.feed(line(1)[:-1]) == []
    assert texts(splitter.end()) == [b"line 1"]


def test_a_node_that_follows_no_more_logs_says_so_and_that_is_no_line() -> None:
    """What a kubelet answers when its user has no inotify instance left: the lines there are, then this."""
    splitter = Splitter("agent", None)
    said = b"failed to create fsnotify watcher: too many open files"
    assert texts(splitter.feed(line(1) + said)) == [b"line 1"]
    assert splitter.end() == [] and splitter.refused
    splitter.again()
    assert not splitter.refused
    splitter.feed(line(1) + b"2026-11-28T12:00:09Z " + said + b"\n")
    assert splitter.end() == [] and not splitter.refused


def test_a_cursor_passes_over_what_was_read_also_among_equal_stamps() -> None:
    data = b"".join(line(n, stamp=n // 3) for n in range(12))
    everything = Splitter("agent", None).feed(data)
    for place in range(12):
        again = after(everything[place].cursor).feed(data)
        assert texts(again) == texts(everything[place + 1 :])
        assert not any(one.gap for one in again)
        assert [one.cursor for one in again] == [one.cursor for one in everything[place + 1 :]]


def test_a_cursor_whose_line_is_gone_gives_a_gap_once() -> None:
    cursor = Splitter("agent", None).feed(line(3))[0].cursor
    rest = after(cursor).feed(line(7) + line(8))
    assert [(one.text, one.gap) for one in rest] == [(b"line 7", True), (b"line 8", False)]


def test_a_reconnect_goes_on_after_the_last_line() -> None:
    splitter = Splitter("agent", None)
    data = b"".join(line(n) for n in range(10))
    first = splitter.feed(data[:200])
    splitter.again()
    rest = splitter.feed(data)
    assert texts(first + rest) == [b"line %d" % n for n in range(10)]


def test_a_long_line_of_an_old_kubelet_loses_the_stamps_within_it() -> None:
    piece = b"x" * 16384
    data = line(1, piece)[:-1] + line(2, piece)[:-1] + line(3, b"end")
    found = Splitter("agent", None).feed(data)
    assert texts(found) == [piece, piece, b"end"]
    assert [one.partial for one in found] == [True, True, False]
    assert texts(after(found[0].cursor).feed(data)) == [piece, b"end"]


def test_a_long_line_of_a_new_kubelet_comes_in_pieces() -> None:
    found = Splitter("agent", None).feed(line(1, b"y" * 150_000))
    assert b"".join(texts(found)) == b"y" * 150_000
    assert [one.partial for one in found] == [True, True, False]


def test_a_stamp_that_the_program_wrote_is_its_text() -> None:
    text = b"2026-11-28T12:00:00.000000009Z forged"
    assert texts(Splitter("agent", None).feed(line(1, text))) == [text]


def test_words_of_the_kubelet_itself_are_not_of_the_log() -> None:
    assert Splitter("agent", None).feed(b"unable to retrieve container logs for x\n") == []


@pytest.mark.parametrize(
    ("stamp", "utc"),
    [
        ("2026-11-28T12:00:00.5Z", "2026-11-28T12:00:00.500000000Z"),
        ("2026-11-28T13:30:00.000000001+01:30", "2026-11-28T12:00:00.000000001Z"),
        ("2026-11-28T12:00:00Z", "2026-11-28T12:00:00.000000000Z"),
        ("2026-11-28T09:00:00.25-03:00", "2026-11-28T12:00:00.250000000Z"),
        ("", ""),
    ],
)
def test_stamps_compare_as_texts(stamp: str, utc: str) -> None:
    assert in_utc(stamp) == utc


@pytest.mark.parametrize(
    "text",
    ["", "x", "agent/now/1", "agent/2026-11-28T12:00:00Z/x", "/2026-11-28T12:00:00Z/1", "1:2:3"],
)
def test_a_cursor_that_is_none_of_ours_is_none(text: str) -> None:
    assert read_cursor(text) is None
    cursor = Cursor("prepare", "2026-11-28T12:00:00.000000001Z", 3)
    assert read_cursor(str(cursor)) == cursor
