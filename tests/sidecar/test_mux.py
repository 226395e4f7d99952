"""Streams in one pipe: whole, in order, in turn, and safe from the other side."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pods.sidecar import mux as mux_module
from pods.sidecar.mux import (
    CHUNK_BYTES,
    HEADER,
    MAX_STREAMS,
    WINDOW_BYTES,
    Frame,
    Frames,
    Kind,
    Mux,
    PipeBroken,
    Stream,
    StreamCut,
)
from tests.sidecar.pipes import Hand, muxes, pipe_pair

frames = st.builds(
    Frame,
    st.sampled_from(Kind),
    st.integers(0, 0xFFFF_FFFF),
    st.binary(max_size=300),
)


@given(st.lists(frames, max_size=20), st.lists(st.integers(1, 40), min_size=1, max_size=40))
def test_frames_are_the_same_however_they_are_cut(sent, cuts):
    whole = b"".join(frame.encode() for frame in sent)
    reader, at, n = Frames(), 0, 0
    came: list[Frame] = []
    while at < len(whole):
        size = cuts[n % len(cuts)]
        came += reader.feed(whole[at : at + size])
        at, n = at + size, n + 1
    assert came == sent


@given(st.binary(max_size=400))
def test_any_bytes_are_frames_or_break_the_pipe(data):
    reader = Frames()
    try:
        came = list(reader.feed(data))
    except PipeBroken:
        return
    whole = b"".join(frame.encode() for frame in came)
    assert data.startswith(whole)


def test_a_huge_length_is_refused_at_the_header():
    with pytest.raises(PipeBroken, match="at most"):
        list(Frames().feed(HEADER.pack(Kind.DATA, 1, 0xFFFF_FFFF)))


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)
    await stream.end()


async def all_of(stream: Stream) -> bytes:
    parts = []
    while data := await stream.read():
        parts.append(data)
    return b"".join(parts)


async def test_bytes_come_back_whole_and_the_end_is_told():
    async with muxes(echo) as (opens, accepts):
        stream = opens.open("10.0.0.7 1234")
        await stream.write(b"one")
        assert await stream.read() == b"one"
        await stream.end()
        assert await stream.read() == b""
        assert stream.closed.is_set()
        assert opens.streams == accepts.streams == 0


async def test_the_peer_is_told():
    peers = []

    async def accept(stream: Stream) -> None:
        peers.append(stream.peer)
        await stream.end()

    async with muxes(accept) as (opens, _):
        assert await opens.open("10.0.0.7 1234").read() == b""
    assert peers == ["10.0.0.7 1234"]


async def test_what_was_said_before_the_end_is_not_lost_when_the_stream_is_dropped_after_it():
    async def accept(stream: Stream) -> None:
        await stream.write(b"x" * 200_000)
        await stream.end()  # and its return drops the stream

    async with muxes(accept) as (opens, _):
        stream = opens.open("a 1")
        await asyncio.sleep(0.1)
        assert len(await all_of(stream)) == 200_000
        with pytest.raises(StreamCut):
            await stream.write(b"more")


async def test_50_mb_go_through_whole():
    data = os.urandom(1 << 20) * 50

    async def accept(stream: Stream) -> None:
        digest = hashlib.sha256()
        while part := await stream.read():
            digest.update(part)
        await stream.write(digest.digest())
        await stream.end()

    async with muxes(accept) as (opens, _):
        stream = opens.open("a 1")
        began = time.monotonic()
        await stream.write(data)
        await stream.end()
        assert await all_of(stream) == hashlib.sha256(data).digest()
        assert time.monotonic() - began < 20


async def test_200_streams_at_once():
    async def one(opens: Mux, number: int) -> bytes:
        stream = opens.open(f"a {number}")
        await stream.write(str(number).encode() * 5000)
        await stream.end()
        return await all_of(stream)

    async with muxes(echo) as (opens, accepts):
        answers = await asyncio.gather(*(one(opens, number) for number in range(200)))
        assert answers == [str(number).encode() * 5000 for number in range(200)]
        assert opens.streams == accepts.streams == 0


async def test_a_slow_reader_delays_nobody_else_and_holds_no_more_than_its_window():
    slow: list[Stream] = []

    async def accept(stream: Stream) -> None:
        if stream.peer.startswith("slow"):
            slow.append(stream)
            await asyncio.sleep(60)
        await echo(stream)

    async with muxes(accept) as (opens, _):
        stuck = opens.open("slow 1")
        writing = asyncio.create_task(stuck.write(b"x" * (4 * WINDOW_BYTES)))
        await asyncio.sleep(0.2)
        assert not writing.done()
        assert slow[0]._unread == WINDOW_BYTES
        for _ in range(20):
            stream = opens.open("quick 1")
            async with asyncio.timeout(1):
                await stream.write(b"hello")
                assert await stream.read() == b"hello"
            await stream.end()
        writing.cancel()


async def test_a_reset_is_told_with_its_reason():
    async def accept(stream: Stream) -> None:
        stream.reset("no such thing here")

    async with muxes(accept) as (opens, _):
        with pytest.raises(StreamCut, match="no such thing here"):
            await opens.open("a 1").read()
        assert opens.streams == 0


async def test_a_broken_pipe_cuts_every_stream():
    near, far = await pipe_pair()
    opens = Mux(near)
    running = asyncio.create_task(opens.run())
    stream = opens.open("a 1")
    reading = asyncio.create_task(stream.read())
    await asyncio.sleep(0.05)
    far.close()
    with pytest.raises(PipeBroken):
        await running
    with pytest.raises(StreamCut, match="the pipe broke"):
        await reading
    with pytest.raises(StreamCut, match="the pipe broke"):
        opens.open("a 2")


async def test_silence_breaks_the_pipe(monkeypatch):
    monkeypatch.setattr(mux_module, "PING_SECONDS", 0.05)
    monkeypatch.setattr(mux_module, "SILENCE_SECONDS", 0.2)
    near, _far = await pipe_pair()
    async with asyncio.timeout(2):
        with pytest.raises(PipeBroken, match="nothing was heard"):
            await Mux(near).run()


async def test_pings_keep_an_idle_pipe(monkeypatch):
    monkeypatch.setattr(mux_module, "PING_SECONDS", 0.05)
    monkeypatch.setattr(mux_module, "SILENCE_SECONDS", 0.3)
    async with muxes(echo) as (opens, _):
        await asyncio.sleep(1)
        stream = opens.open("a 1")
        await stream.write(b"still there")
        assert await stream.read() == b"still there"


# --- Hostile frames -------------------------------------------------------------------------------------------


async def wait_for_ever(stream: Stream) -> None:
    await asyncio.sleep(60)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ([(99, 1, b"")], "kind 99"),
        ([(Kind.DATA, 7, b"x")], "nobody opened"),
        ([(Kind.DATA, 0, b"x")], "nobody opened"),
        ([(Kind.OPEN, 0, b"a 1")], "opened after"),
        ([(Kind.OPEN, 5, b"a 1"), (Kind.OPEN, 5, b"a 1")], "opened after 5"),
        ([(Kind.OPEN, 5, b"a 1"), (Kind.OPEN, 4, b"a 1")], "opened after 5"),
        ([(Kind.OPEN, 1, b"a 1"), (Kind.WINDOW, 1, b"\0\0\0\1")], "more window"),
        ([(Kind.OPEN, 1, b"a 1"), (Kind.WINDOW, 1, b"\1")], "no number"),
        ([(Kind.OPEN, 1, b"a 1"), (Kind.END, 1, b""), (Kind.DATA, 1, b"x")], "after the end"),
        (
            [(Kind.OPEN, 1, b"a 1")]
            + [(Kind.DATA, 1, b"x" * CHUNK_BYTES)] * (WINDOW_BYTES // CHUNK_BYTES + 1),
            "more than its window",
        ),
    ],
)
async def test_what_breaks_the_rules_breaks_the_pipe(said, words):
    near, far = await pipe_pair()
    running = asyncio.create_task(Mux(near, accept=wait_for_ever).run())
    hand = Hand(far)
    for kind, stream, payload in said:
        await hand.say(kind, stream, payload)
    async with asyncio.timeout(5):
        with pytest.raises(PipeBroken, match=words):
            await running


async def test_only_the_relay_opens_streams():
    near, far = await pipe_pair()
    running = asyncio.create_task(Mux(near).run())
    await Hand(far).say(Kind.OPEN, 1, b"a 1")
    with pytest.raises(PipeBroken, match="none may be"):
        await running


async def test_bytes_of_a_stream_that_has_ended_are_dropped():
    near, far = await pipe_pair()

    async def accept(stream: Stream) -> None:
        stream.reset("enough")

    running = asyncio.create_task(Mux(near, accept=accept).run())
    hand = Hand(far)
    await hand.say(Kind.OPEN, 1, b"a 1")
    assert (await hand.hear()).kind is Kind.RESET
    for _ in range(100):
        await hand.say(Kind.DATA, 1, b"x" * CHUNK_BYTES)
    await hand.say(Kind.PING)
    assert (await hand.hear()).kind is Kind.PONG
    running.cancel()


async def test_a_flood_of_opens_is_refused_one_by_one_and_the_first_ones_stay():
    near, far = await pipe_pair()
    mux = Mux(near, accept=wait_for_ever)
    running = asyncio.create_task(mux.run())
    hand = Hand(far)
    for number in range(1, MAX_STREAMS + 51):
        await hand.say(Kind.OPEN, number, b"a 1")
    refused = [await hand.hear() for _ in range(50)]
    assert {frame.kind for frame in refused} == {Kind.RESET}
    assert refused[0].stream == MAX_STREAMS + 1
    assert mux.streams == MAX_STREAMS
    running.cancel()


async def test_who_asks_and_does_not_read_loses_the_pipe():
    near, far = await pipe_pair()
    mux = Mux(near, accept=wait_for_ever)
    running = asyncio.create_task(mux.run())
    hand = Hand(far)

    async def flood() -> None:
        number = 0
        while True:
            number += 1
            await hand.say(Kind.OPEN, number, b"a 1")

    flooding = asyncio.create_task(flood())
    async with asyncio.timeout(20):
        with pytest.raises(PipeBroken):
            await running
    flooding.cancel()
    await asyncio.gather(flooding, return_exceptions=True)
    assert len(mux._waiting) <= mux_module.MAX_WAITING


async def test_pings_are_answered_once_until_the_answer_has_left():
    near, far = await pipe_pair()
    mux = Mux(near)
    running = asyncio.create_task(mux.run())
    hand = Hand(far)
    for _ in range(1000):
        await hand.say(Kind.PING)
    assert (await hand.hear()).kind is Kind.PONG
    assert len(mux._waiting) <= 1
    running.cancel()
