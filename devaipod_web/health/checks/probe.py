"""A question to a Unix socket or a TCP port, in HTTP, bounded in size; who asks bounds it in time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

MAX_BYTES = 64 * 1024


@dataclass(frozen=True)
class Answer:
    """What came: the status, the headers by their names in small letters, and the body."""

    status: int
    headers: dict[str, str]
    body: bytes


async def get(path: Path, target: str, *, host: str = "localhost") -> Answer:
    """The answer to `GET target` at a Unix socket. Raises OSError when nobody answers there, ValueError when it is no HTTP."""
    reader, writer = await asyncio.open_unix_connection(str(path), limit=MAX_BYTES)
    return await _ask(reader, writer, target, host=host)


async def get_at(address: str, port: int, target: str) -> Answer:
    """The same of a TCP port."""
    reader, writer = await asyncio.open_connection(address, port, limit=MAX_BYTES)
    return await _ask(reader, writer, target, host="localhost")


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str, *, host: str
) -> Answer:
    try:
        request = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        writer.write(request.encode())
        await writer.drain()
        answer = await reader.read(MAX_BYTES)
        while len(answer) < MAX_BYTES and (more := await reader.read(MAX_BYTES - len(answer))):
            answer += more
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/"):
        raise ValueError("it does not speak HTTP")
    pairs = (line.partition(":")[::2] for line in lines)
    return Answer(
        int(words[1]), {name.strip().lower(): value.strip() for name, value in pairs}, body
    )
