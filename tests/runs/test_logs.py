from __future__ import annotations

import asyncio
import itertools
import json
import random
import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest
import zstandard

from devaipod_web.runs import log_records, log_segments, log_writer, logs, logs_hub
from pods.spec import LogLine

START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def line(n: int, text: bytes | None = None, **more) -> LogLine:
    words = text if text is not None else f"line {n}".encode()
    return LogLine("stdout", START + timedelta(milliseconds=n), words, cursor=f"7:{n}", **more)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("DEVAIPOD_HOME", str(tmp_path))
    return ("runkey", "devaipod-shop-runkey-1", "agent")


def numbers(found):
    return [row.n for row in found]


def test_lines_come_back_as_they_were_by_number(place):
    writer = log_writer.Writer(*place)
    stored = writer.append(
        [line(1), line(2, b"caf\xc3\xa9\x1b[31m", partial=True), line(3, b"\xff")]
    )
    assert numbers(stored) == [1, 2, 3]
    found = logs.read(*place, after=0, limit=10)
    assert found == stored
    assert found[1].text == "café\x1b[31m"
    assert found[1].partial
    assert found[2].text == "\ufffd"
    assert found[0].at == "2026-01-02T03:04:05.679901+00:00"
    assert numbers(logs.read(*place, after=1, limit=1)) == [2]
    assert logs.last_number(*place) == 3
    assert numbers(logs.tail(*place, limit=2)) == [2, 3]
    assert logs.containers("runkey") == [(place[1], "agent")]


def test_a_new_writer_goes_on_after_the_last_line_and_knows_the_backends_cursor(place):
    log_writer.Writer(*place).append([line(1), line(2)])
    writer = log_writer.Writer(*place)
    assert (writer.last, writer.cursor) == (2, "7:2")
    writer.append([line(3)])
    assert numbers(logs.read(*place, after=0, limit=10)) == [1, 2, 3]


def test_a_torn_last_line_is_cut_and_written_again(place):
    writer = log_writer.Writer(*place)
    writer.append([line(1), line(2)])
    writer.close()
    (segment,) = writer.folder.iterdir()
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-9])
    again = log_writer.Writer(*place)
    assert (again.last, again.cursor) == (1, "7:1")
    again.append([line(2)])
    assert segment.read_bytes() == whole


def test_a_log_of_one_torn_line_begins_again(place):
    writer = log_writer.Writer(*place)
    writer.append([line(1)])
    (segment,) = writer.folder.iterdir()
    segment.write_bytes(b'{"n":1,"a')
    assert log_writer.Writer(*place).last == 0


def test_segments_are_closed_compressed_and_read_over_their_borders(place, monkeypatch):
    monkeypatch.setattr(log_writer, "SEGMENT_BYTES", 2_000)
    writer = log_writer.Writer(*place)
    for n in range(1, 101):
        writer.append([line(n)])
    writer.close(finished=True)
    names = sorted(path.name for path in writer.folder.iterdir())
    assert len(names) > 3
    assert all(name.endswith(".log.zst") for name in names)
    assert numbers(logs.read(*place, after=0, limit=1000)) == list(range(1, 101))
    for after in range(100):
        assert numbers(logs.read(*place, after=after, limit=3)) == list(
            range(after + 1, min(after + 4, 101))
        )
    assert logs.last_number(*place) == 100
    more = log_writer.Writer(*place)
    more.append([line(101)])
    assert numbers(logs.read(*place, after=99, limit=10)) == [100, 101]


def test_a_crash_while_compressing_leaves_the_log_whole(place):
    writer = log_writer.Writer(*place)
    writer.append([line(1), line(2)])
    writer.close()
    (segment,) = writer.folder.iterdir()
    # Both forms are there: killed after the rename, before the unlink.
    kept = segment.read_bytes()
    log_segments.compress(segment)
    segment.write_bytes(kept)
    assert numbers(logs.read(*place, after=0, limit=10)) == [1, 2]
    assert log_writer.Writer(*place).last == 2


def test_long_lines_are_split_between_characters_and_marked(place):
    text = ("é" * 100_000).encode()
    stored = log_writer.Writer(*place).append([line(1, b"a" + text)])
    assert [row.partial for row in stored] == [True] * (len(stored) - 1) + [False]
    assert "".join(row.text for row in stored) == "a" + "é" * 100_000
    assert all(len(row.text.encode()) <= log_records.MAX_TEXT_BYTES for row in stored)


def test_a_gap_of_the_backend_is_kept(place):
    log_writer.Writer(*place).append([line(1), line(9, gap=True)])
    assert [row.gap for row in logs.read(*place, after=0, limit=9)] == [False, True]


def test_a_log_that_is_too_long_keeps_its_beginning_and_its_end_and_says_where_lines_are_missing(
    place, monkeypatch
):
    monkeypatch.setattr(log_writer, "SEGMENT_BYTES", 2_000)
    monkeypatch.setattr(log_writer, "MAX_CONTAINER_BYTES", 6_000)
    writer = log_writer.Writer(*place)
    for n in range(1, 2_001):
        writer.append([line(n, random.Random(n).randbytes(20).hex().encode())])
    writer.close(finished=True)
    assert writer.has_discarded
    assert logs.size(*place) <= 7_000
    found = logs.read(*place, after=0, limit=5_000)
    kept = numbers(found)
    assert kept[0] == 1
    assert kept[-1] == 2_000
    holes = [row.n for before, row in itertools.pairwise(found) if row.n != before.n + 1]
    assert len(holes) == 1
    assert [row.n for row in found if row.gap] == holes
    # Backwards and from inside the hole it is the same.
    assert logs.read_before(*place, before=2_001, limit=5_000) == found
    assert logs.read(*place, after=holes[0] - 5, limit=3) == found[kept.index(holes[0]) :][:3]
    assert logs.read_before(*place, before=holes[0], limit=3) == found[: kept.index(holes[0])][-3:]
    assert logs.read_before(*place, before=holes[0] + 1, limit=1)[0].gap
    assert log_writer.Writer(*place).last == 2_000


def test_a_page_of_a_log_reads_a_block_and_not_the_log(place, monkeypatch):
    monkeypatch.setattr(log_segments, "BLOCK_BYTES", 4_000)
    writer = log_writer.Writer(*place)
    for n in range(1, 3_001, 100):
        writer.append([line(m) for m in range(n, n + 100)])
    opened: list[int] = []
    whole = log_segments.Segment.next_block

    def counted(self):
        opened.append(1)
        return whole(self)

    monkeypatch.setattr(log_segments.Segment, "next_block", counted)
    for is_closed in (False, True):
        if is_closed:
            writer.close(finished=True)
        for after in (0, 1, 1499, 2990):
            opened.clear()
            assert numbers(logs.read(*place, after=after, limit=5)) == list(
                range(after + 1, after + 6)
            )
            assert len(opened) <= 2, (is_closed, after)
        assert numbers(logs.tail(*place, limit=500)) == list(range(2_501, 3_001))
        for before in (1, 2, 700, 3_001, 9_999):
            assert (
                numbers(logs.read_before(*place, before=before, limit=10))
                == list(
                    range(max(before if before < 3_001 else 3_001, 1) - 10, min(before, 3_001))
                )[-min(10, before - 1) :]
                or before == 1
            )


def test_a_reader_goes_on_over_the_writers_segments_and_misses_nothing(place, monkeypatch):
    monkeypatch.setattr(log_writer, "SEGMENT_BYTES", 1_500)
    writer = log_writer.Writer(*place)
    reader = logs.Reader(*place)
    seen: list[int] = []
    for n in range(1, 400):
        writer.append([line(n)])
        if n % 3 == 0:
            seen += numbers(reader.read(5))
    writer.close(finished=True)
    while lines := reader.read(7):
        seen += numbers(lines)
    assert seen == list(range(1, 400))
    reader.close()


def test_a_reading_ends_after_so_many_characters_and_goes_on_with_the_next_line(place):
    log_writer.Writer(*place).append([line(n, b"x" * 10_000) for n in range(1, 31)])
    assert numbers(logs.read(*place, after=0, limit=100, characters=25_000)) == [1, 2, 3]
    assert numbers(logs.tail(*place, limit=100, characters=25_000)) == [29, 30]
    assert numbers(logs.read_before(*place, before=29, limit=100, characters=5_000)) == [28]


def test_an_archive_of_the_first_version_without_a_table_is_read(place):
    writer = log_writer.Writer(*place)
    writer.append([line(n) for n in range(1, 200)])
    writer.close()
    (segment,) = writer.folder.iterdir()
    packed = zstandard.ZstdCompressor().compress(segment.read_bytes())
    segment.with_name(segment.name + ".zst").write_bytes(packed)
    segment.unlink()
    assert numbers(logs.read(*place, after=150, limit=10)) == list(range(151, 161))
    assert numbers(logs.tail(*place, limit=2)) == [198, 199]


def test_an_archive_is_plain_zstd_for_other_programs(place, monkeypatch):
    monkeypatch.setattr(log_segments, "BLOCK_BYTES", 1_000)
    writer = log_writer.Writer(*place)
    writer.append([line(n) for n in range(1, 200)])
    writer.close()
    (segment,) = writer.folder.iterdir()
    whole = segment.read_bytes()
    log_segments.compress(segment)
    with (
        segment.with_name(segment.name + ".zst").open("rb") as file,
        zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as stream,
    ):
        assert stream.read() == whole


def test_what_a_killed_process_left_is_archived_later(place):
    writer = log_writer.Writer(*place)
    writer.append([line(1), line(2)])
    writer.close()
    (segment,) = writer.folder.iterdir()
    segment.write_bytes(segment.read_bytes() + b'{"n":3,"torn')
    (writer.folder / f".{segment.name}.123").write_bytes(b"half an archive")
    assert logs.unarchived() == [place[:2]]
    assert logs.archive(*place[:2]) == 1
    assert [path.suffix for path in writer.folder.iterdir()] == [".zst"]
    assert numbers(logs.read(*place, after=0, limit=9)) == [1, 2]
    assert logs.unarchived() == []
    assert logs.archive(*place[:2]) == 0


@pytest.mark.parametrize("name", ["../../etc", "", "a/b", "A", "x" * 80])
def test_names_that_are_none_reach_no_file(place, name):
    with pytest.raises(ValueError, match="not a name"):
        logs.read(name, "pod", "agent", after=0, limit=1)
    assert logs.containers(name) == []


async def take(feed, count):
    found = []
    async for batch in feed:
        assert [row["n"] for row in json.loads(batch.encoded)] == numbers(batch.lines)
        found += numbers(batch.lines)
        if len(found) >= count:
            return found
    return found


async def test_a_viewer_sees_what_was_and_what_comes_without_gap_or_double(place):
    writer = log_writer.Writer(*place)
    writer.append([line(n) for n in range(1, 51)])
    async with logs_hub.subscribe(*place, after=20) as feed:
        reading = asyncio.create_task(take(feed, 80))
        for n in range(51, 101):
            logs_hub.publish(*place, writer.append([line(n)]))  # type: ignore[call-arg]
            await asyncio.sleep(0.001)
        assert await asyncio.wait_for(reading, 5) == list(range(21, 101))


async def test_without_a_number_a_viewer_begins_now(place):
    writer = log_writer.Writer(*place)
    writer.append([line(1)])
    async with logs_hub.subscribe(*place) as feed:
        logs_hub.publish(*place, writer.append([line(2)]))  # type: ignore[call-arg]
        assert await asyncio.wait_for(take(feed, 1), 2) == [2]


async def test_lines_of_another_process_are_found_in_the_store(place):
    async with logs_hub.subscribe(*place, after=0) as feed:
        log_writer.Writer(*place).append([line(1), line(2)])
        assert await asyncio.wait_for(take(feed, 2), 5) == [1, 2]


async def test_many_viewers_share_the_same_text_and_a_slow_one_catches_up(place):
    writer = log_writer.Writer(*place)
    seen: list[set[int]] = []

    async def view(slow: bool) -> list[int]:
        found: list[int] = []
        async with logs_hub.subscribe(*place, after=0) as feed:
            async for batch in feed:
                found += numbers(batch.lines)
                if len(found) <= 600:
                    seen.append({id(batch)})
                if slow:
                    await asyncio.sleep(0.02)
                if found[-1] >= 2_000:
                    return found
        return found

    tracemalloc.start()
    viewers = [asyncio.create_task(view(n == 0)) for n in range(50)]
    await asyncio.sleep(0)
    for n in range(1, 2_001, 10):
        logs_hub.publish(*place, writer.append([line(m) for m in range(n, n + 10)]))  # type: ignore[call-arg]
        await asyncio.sleep(0.002)
    for found in await asyncio.wait_for(asyncio.gather(*viewers), 30):
        assert found == list(range(1, 2_001))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50 * 500_000
    assert not logs_hub.hub._channels


async def test_one_endless_line_fills_neither_ring_nor_pages(place):
    writer = log_writer.Writer(*place)
    name = place
    async with logs_hub.subscribe(*place, after=0) as feed:
        channel = logs_hub.hub._channels[name]
        heard = 0
        for _ in range(40):
            part = [line(1, b"x" * 8_000, partial=True) for _ in range(100)]
            logs_hub.publish(*place, writer.append(part))  # type: ignore[call-arg]
            await asyncio.sleep(0)
        while heard < 4_000:
            batch = await asyncio.wait_for(anext(feed), 5)
            heard += len(batch.lines)
            assert len(batch.encoded) < 300_000
            for row in json.loads(batch.encoded):
                assert (len(row["text"]), row["length"]) == (logs_hub.SHOWN_CHARACTERS, 8_000)
        weights = sum(kept.weight for kept in channel.ring)
        assert weights <= logs_hub.RING_CHARACTERS
    assert heard == 4_000


async def test_a_flood_that_outruns_its_viewers_is_read_from_the_store(place, monkeypatch):
    monkeypatch.setattr(logs_hub, "PENDING_LINES", 50)
    writer = log_writer.Writer(*place)
    async with logs_hub.subscribe(*place, after=0) as feed:
        for n in range(1, 2_001, 100):
            logs_hub.publish(*place, writer.append([line(m) for m in range(n, n + 100)]))  # type: ignore[call-arg]
        assert await asyncio.wait_for(take(feed, 2_000), 10) == list(range(1, 2_001))
