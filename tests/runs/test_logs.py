from __future__ import annotations

import asyncio
import json
import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest

from devaipod_web.runs import logs, logs_hub
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
    writer = logs.Writer(*place)
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
    logs.Writer(*place).append([line(1), line(2)])
    writer = logs.Writer(*place)
    assert (writer.last, writer.cursor) == (2, "7:2")
    writer.append([line(3)])
    assert numbers(logs.read(*place, after=0, limit=10)) == [1, 2, 3]


def test_a_torn_last_line_is_cut_and_written_again(place):
    writer = logs.Writer(*place)
    writer.append([line(1), line(2)])
    writer.close()
    (segment,) = writer.folder.iterdir()
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-9])
    again = logs.Writer(*place)
    assert (again.last, again.cursor) == (1, "7:1")
    again.append([line(2)])
    assert segment.read_bytes() == whole


def test_a_log_of_one_torn_line_begins_again(place):
    writer = logs.Writer(*place)
    writer.append([line(1)])
    (segment,) = writer.folder.iterdir()
    segment.write_bytes(b'{"n":1,"a')
    assert logs.Writer(*place).last == 0


def test_segments_are_closed_compressed_and_read_over_their_borders(place, monkeypatch):
    monkeypatch.setattr(logs, "SEGMENT_BYTES", 2_000)
    writer = logs.Writer(*place)
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
    more = logs.Writer(*place)
    more.append([line(101)])
    assert numbers(logs.read(*place, after=99, limit=10)) == [100, 101]


def test_a_crash_while_compressing_leaves_the_log_whole(place):
    writer = logs.Writer(*place)
    writer.append([line(1), line(2)])
    writer.close()
    (segment,) = writer.folder.iterdir()
    # Both forms are there: killed after the rename, before the unlink.
    kept = segment.read_bytes()
    logs.compress(segment)
    segment.write_bytes(kept)
    assert numbers(logs.read(*place, after=0, limit=10)) == [1, 2]
    assert logs.Writer(*place).last == 2


def test_long_lines_are_split_between_characters_and_marked(place):
    text = ("é" * 100_000).encode()
    stored = logs.Writer(*place).append([line(1, b"a" + text)])
    assert [row.partial for row in stored] == [True] * (len(stored) - 1) + [False]
    assert "".join(row.text for row in stored) == "a" + "é" * 100_000
    assert all(len(row.text.encode()) <= logs.MAX_TEXT_BYTES for row in stored)


def test_a_gap_of_the_backend_is_kept(place):
    logs.Writer(*place).append([line(1), line(9, gap=True)])
    assert [row.gap for row in logs.read(*place, after=0, limit=9)] == [False, True]


def test_a_log_has_a_bound(place, monkeypatch):
    monkeypatch.setattr(logs, "MAX_CONTAINER_BYTES", 1_000)
    writer = logs.Writer(*place)
    with pytest.raises(logs.LogFull):
        for n in range(1, 100):
            writer.append([line(n)])
    assert 0 < writer.last < 30


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
    writer = logs.Writer(*place)
    writer.append([line(n) for n in range(1, 51)])
    async with logs_hub.subscribe(*place, after=20) as feed:
        reading = asyncio.create_task(take(feed, 80))
        for n in range(51, 101):
            logs_hub.publish(*place, writer.append([line(n)]))  # type: ignore[call-arg]
            await asyncio.sleep(0.001)
        assert await asyncio.wait_for(reading, 5) == list(range(21, 101))


async def test_without_a_number_a_viewer_begins_now(place):
    writer = logs.Writer(*place)
    writer.append([line(1)])
    async with logs_hub.subscribe(*place) as feed:
        logs_hub.publish(*place, writer.append([line(2)]))  # type: ignore[call-arg]
        assert await asyncio.wait_for(take(feed, 1), 2) == [2]


async def test_lines_of_another_process_are_found_in_the_store(place):
    async with logs_hub.subscribe(*place, after=0) as feed:
        logs.Writer(*place).append([line(1), line(2)])
        assert await asyncio.wait_for(take(feed, 2), 5) == [1, 2]


async def test_many_viewers_share_the_same_text_and_a_slow_one_catches_up(place):
    writer = logs.Writer(*place)
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
