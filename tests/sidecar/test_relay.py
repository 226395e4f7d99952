"""The relay as it runs in its pod: a process of its own, a control plane on loopback, sidecars as TCP clients."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
from collections.abc import AsyncIterator

import pytest

from pods.sidecar import relay_greeting
from pods.sidecar.mux import Stream
from pods.sidecar.relay import CROWDED, MAX_PER_PEER, StreamPipe
from tests.sidecar.relaying import HOST, TOKEN, Relay
from tests.sidecar.rig import until


@pytest.fixture
async def relay(tmp_path) -> AsyncIterator[Relay]:
    relay = Relay(tmp_path)
    await relay.start()
    yield relay
    await relay.stop()


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)
    await stream.end()


async def test_a_sidecar_reaches_the_control_plane_and_its_address_is_told(relay):
    peers = []

    async def accept(stream: Stream) -> None:
        peers.append(stream.peer)
        await echo(stream)

    await relay.control(accept)
    reader, writer = await relay.dial()
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    writer.write_eof()
    assert await reader.read() == b""
    address, port = writer.get_extra_info("sockname")
    assert f"{address} {port}" in peers


async def test_nobody_is_taken_without_a_control_plane(relay):
    assert not relay.listens()
    control = await relay.control(echo)
    assert relay.listens()
    control.cancel()
    await until(lambda: not relay.listens(), 5, "the port to close")


async def test_a_wrong_token_is_refused_by_both_sides(relay):
    with pytest.raises(relay_greeting.GreetingRefused, match="the relay has another token"):
        await relay.control(echo, token="another")
    pipe = await relay.pipe()
    await pipe.write(b"devaipod-relay 1 " + b"0" * 64 + b" one\n")
    assert (await pipe.read()).startswith(b"devaipod-relay 1 ")
    await pipe.write(b"0" * 64 + b"\n")
    assert await closed(pipe)
    assert "another token" in relay.log
    assert not relay.listens()


@pytest.mark.parametrize(
    "said", [b"GET / HTTP/1.1\r\n\r\n", b"x" * 1000, b"devaipod-relay 1 short\n", b"\0\n"]
)
async def test_who_greets_wrongly_is_hung_up_on(relay, said):
    pipe = await relay.pipe()
    await pipe.write(said)
    assert await closed(pipe)


async def closed(pipe: StreamPipe) -> bool:
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionError):
            while await pipe.read():
                pass
    return True


async def test_another_version_is_told(relay):
    async def old(reader, writer):
        await reader.readline()
        writer.write(b"devaipod-relay 0 " + b"0" * 64 + b" " + b"0" * 64 + b"\n")

    async with await asyncio.start_server(old, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        pipe = StreamPipe(*await asyncio.open_connection("127.0.0.1", port))
        with pytest.raises(relay_greeting.GreetingRefused, match="version 0, and not 1"):
            await relay_greeting.greet(pipe, TOKEN, "one")
        pipe.close()


async def test_a_new_forward_of_the_same_process_takes_over_and_the_old_ones_connections_end(relay):
    await relay.control(echo)
    reader, writer = await relay.dial()
    writer.write(b"x")
    assert await reader.readexactly(1) == b"x"
    await relay.control(echo)
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    reader, writer = await relay.dial()
    writer.write(b"y")
    assert await reader.readexactly(1) == b"y"


async def test_another_process_is_there_beside_it_and_the_newest_gets_new_connections(relay):
    def says(word: bytes):
        async def accept(stream: Stream) -> None:
            await stream.read()
            await stream.write(word)
            await stream.read()

        return accept

    async def ask() -> tuple[bytes, asyncio.StreamReader]:
        reader, writer = await relay.dial()
        writer.write(b"who")
        lines.append(writer)
        return await reader.readexactly(1), reader

    lines: list[asyncio.StreamWriter] = []
    await relay.control(says(b"1"), process="one")
    first, reader = await ask()
    two = await relay.control(says(b"2"), process="two")
    second, _ = await ask()
    assert (first, second) == (b"1", b"2")
    assert not reader.at_eof()
    two.cancel()
    await until(lambda: relay.log.count("went away") == 1, 5, "the second to leave")
    assert (await ask())[0] == b"1"
    assert not reader.at_eof()


async def test_50_mb_go_up_and_come_down_whole(relay):
    await relay.control(echo)
    reader, writer = await relay.dial()
    data = os.urandom(1 << 20) * 50

    async def send() -> None:
        for at in range(0, len(data), 1 << 20):
            writer.write(data[at : at + (1 << 20)])
            await writer.drain()
        writer.write_eof()

    sending = asyncio.create_task(send())
    digest, size = hashlib.sha256(), 0
    async with asyncio.timeout(60):
        while part := await reader.read(1 << 20):
            digest.update(part)
            size += len(part)
    await sending
    assert size == len(data)
    assert digest.digest() == hashlib.sha256(data).digest()


async def test_an_answer_that_is_dropped_after_its_end_arrives_whole(relay):
    async def answer(stream: Stream) -> None:
        await stream.read()
        await stream.write(b"x" * 3_000_000)
        await stream.end()

    await relay.control(answer)
    reader, writer = await relay.dial()
    writer.write(b"give")
    await asyncio.sleep(0.3)
    async with asyncio.timeout(10):
        assert len(await reader.read()) == 3_000_000


async def test_a_sidecar_that_does_not_read_delays_nobody(relay):
    async def accept(stream: Stream) -> None:
        if await stream.read() == b"pour":
            while True:
                await stream.write(b"x" * 100_000)
        await stream.write(b"here")
        await stream.end()

    await relay.control(accept)
    _, stuck = await relay.dial()
    stuck.write(b"pour")
    await asyncio.sleep(0.3)
    for _ in range(20):
        reader, writer = await relay.dial()
        writer.write(b"ask")
        async with asyncio.timeout(1):
            assert await reader.read() == b"here"
        writer.close()
    stuck.transport.abort()


async def test_a_flood_of_one_address_is_bounded_and_others_get_through(relay):
    held = []

    async def accept(stream: Stream) -> None:
        held.append(stream)
        await echo(stream)

    await relay.control(accept)
    flood = [await relay.dial() for _ in range(MAX_PER_PEER + 30)]
    await until(lambda: len(held) >= MAX_PER_PEER, 5, "the first ones")
    await asyncio.sleep(0.2)
    assert sum(not stream.closed.is_set() for stream in held) <= MAX_PER_PEER
    reader, writer = await asyncio.open_connection(HOST, relay.port, local_addr=("127.0.0.3", 0))
    writer.write(b"me too")
    async with asyncio.timeout(2):
        assert await reader.readexactly(6) == b"me too"
    for _, one in flood:
        one.transport.abort()
    await until(lambda: sum(not s.closed.is_set() for s in held) == 1, 5, "the flood to end")


async def test_many_addresses_that_hold_what_they_get_shut_nobody_out(relay):
    await relay.control(echo)
    held = []
    for number in range(10, 10 + CROWDED // MAX_PER_PEER + 2):
        for _ in range(MAX_PER_PEER):
            held.append(
                await asyncio.open_connection(HOST, relay.port, local_addr=(f"127.0.1.{number}", 0))
            )
    for number in range(100, 110):
        reader, writer = await asyncio.open_connection(
            HOST, relay.port, local_addr=(f"127.0.1.{number}", 0)
        )
        writer.write(b"me too")
        async with asyncio.timeout(5):
            assert await reader.readexactly(6) == b"me too"
    for _, one in held:
        one.transport.abort()


async def test_hostile_frames_end_the_control_planes_pipe_and_the_next_one_serves(relay):
    pipe = await relay.pipe()
    await relay_greeting.greet(pipe, TOKEN, "one")
    await pipe.write(b"\x02\x00\x00\x00\x09\xff\xff\xff\xff")
    assert await closed(pipe)
    await relay.control(echo)
    reader, writer = await relay.dial()
    writer.write(b"z")
    assert await reader.readexactly(1) == b"z"


async def test_it_ends_on_sigterm(relay):
    await relay.control(echo)
    await relay.dial()
    relay.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(5):
        assert await relay.process.wait() == 0
