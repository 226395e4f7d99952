"""A process in a running container, over podman's hijacked connection.

`POST /exec/{id}/start` turns the connection into a raw stream: with a terminal both outputs come as they are, without
one each piece has an 8-byte header (stream, three zeros, length in network order), the form that Docker's API documents.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

from pods.errors import BackendUnavailable, StartFailed
from pods.podman_client import NEXT_STEP, PodmanClient, to_error

READ_BYTES = 64 * 1024
HEADER_BYTES = 8
START_SECONDS = 20
#: Between looks at whether a process whose output ended has really gone.
WAIT_POLL_SECONDS = 0.05
#: A frame longer than this is not one of podman's.
MAX_FRAME_BYTES = 16 * 1024 * 1024


class PodmanExec:
    """An `ExecSession` of podman's."""

    def __init__(
        self,
        client: PodmanClient,
        identity: str,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        *,
        tty: bool,
    ) -> None:
        self._client, self._id, self._tty = client, identity, tty
        self._reader, self._writer = streams

    async def read(self) -> bytes:
        """The next output; empty at the end."""
        if self._tty:
            return await self._reader.read(READ_BYTES)
        try:
            header = await self._reader.readexactly(HEADER_BYTES)
            length = int.from_bytes(header[4:], "big")
            if length > MAX_FRAME_BYTES:
                return b""
            return await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""

    async def write(self, data: bytes) -> None:
        """Send input."""
        self._writer.write(data)
        await self._writer.drain()

    async def end_input(self) -> None:
        """Close the sending half of the connection."""
        self._writer.write_eof()

    async def resize(self, rows: int, columns: int) -> None:
        """Tell the terminal's size, in characters."""
        await self._client.post(f"/exec/{self._id}/resize", params={"h": rows, "w": columns})

    async def wait(self) -> int:
        """Wait for the end and return the exit code."""
        while True:
            state = await self._client.get(f"/exec/{self._id}/json")
            if not state.get("Running"):
                return int(state.get("ExitCode", -1))
            await asyncio.sleep(WAIT_POLL_SECONDS)

    async def close(self) -> None:
        """Drop the connection; safe to repeat."""
        # Not `close`: it would wait for a program that takes no input to take what is still to be written.
        self._writer.transport.abort()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


async def start(
    client: PodmanClient, identity: str, *, tty: bool, size: tuple[int, int] | None = None
) -> PodmanExec:
    """Start the created exec session `identity` and take its connection over. Raises StartFailed, BackendUnavailable."""
    how: dict[str, object] = {"Detach": False, "Tty": tty}
    if tty and size is not None:
        # A size that is told later can be lost: a shell's line editor reads the size at its start and sets what it has read.
        how["h"], how["w"] = size
    try:
        streams = await asyncio.wait_for(_hijack(client.socket, identity, how), START_SECONDS)
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        raise BackendUnavailable(
            f"podman's API service at {client.socket} did not start the process ({type(error).__name__}).",
            next_step=NEXT_STEP,
        ) from error
    return PodmanExec(client, identity, streams, tty=tty)


async def _hijack(
    socket: Path, identity: str, how: Mapping[str, object]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(str(socket), limit=READ_BYTES)
    body = json.dumps(how).encode()
    writer.write(
        f"POST /v4.0.0/libpod/exec/{identity}/start HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n"
        f"Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    await writer.drain()
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    if status not in (101, 200):
        said = await reader.read(READ_BYTES)
        writer.close()
        error = to_error(status, said)
        raise StartFailed(error.message, next_step=error.next_step)
    return reader, writer
