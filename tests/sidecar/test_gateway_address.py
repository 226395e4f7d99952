"""Where a sidecar looks for the gateway."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from pods.sidecar import gateway, link
from pods.sidecar.link import gateway_address
from pods.sidecar.outbox import Outbox


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DEVAIPOD_GATEWAY_DIR", str(tmp_path))
    monkeypatch.delenv("DEVAIPOD_GATEWAY", raising=False)
    return tmp_path


def test_the_mounted_socket_is_it_where_nothing_else_is_said(folder):
    assert gateway_address() == ("/run/devaipod/gateway.sock", "http://gateway")


def test_a_relay_that_moved_is_found_at_the_next_dial(folder, monkeypatch):
    monkeypatch.setenv("DEVAIPOD_GATEWAY", "http://10.1.2.3:8401")
    assert gateway_address() == ("", "http://10.1.2.3:8401")
    (folder / "url").write_text("http://10.1.2.9:8401\n")
    assert gateway_address() == ("", "http://10.1.2.9:8401")


@pytest.mark.parametrize("said", [b"", b"\xff\xfe", b"file:///etc/passwd", b"nonsense"])
def test_what_is_no_address_is_not_believed(folder, monkeypatch, said):
    monkeypatch.setenv("DEVAIPOD_GATEWAY", "http://10.1.2.3:8401")
    (folder / "url").write_bytes(said)
    assert gateway.url() == "http://10.1.2.3:8401"


async def test_an_address_that_takes_the_call_and_says_nothing_is_dialled_anew(folder, monkeypatch):
    monkeypatch.setattr(link, "DIAL", aiohttp.ClientTimeout(total=0.2))
    dials = asyncio.Queue[bytes]()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dials.put_nowait(await reader.readline())
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    monkeypatch.setenv("DEVAIPOD_GATEWAY", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    ours = link.Link(
        Outbox(folder / "events"),
        token="token",
        last_command=lambda: 0,
        on_command=lambda _: asyncio.sleep(0),
    )
    dialling = asyncio.create_task(ours.run())
    try:
        for _ in range(2):
            assert await asyncio.wait_for(dials.get(), 20) == b"GET /sidecar HTTP/1.1\r\n"
    finally:
        dialling.cancel()
        await asyncio.gather(dialling, return_exceptions=True)
        server.close()
