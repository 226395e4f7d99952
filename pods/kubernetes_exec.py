"""A process in a running container, over the API server's websocket (protocol v4.channel.k8s.io).

Each message begins with its channel: 0 input, 1 and 2 output, 3 the end as a Status object, 4 the terminal's size. The protocol
has no word for the end of the input, takes no environment, and tells a terminal's size when the program runs already. So the program is
begun by `sh`, which sets both first; without a terminal the input goes through it in counted pieces, and a count of 0 is its end.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp

from pods.errors import BackendError, BackendUnavailable, PodNotFound, StartFailed
from pods.kubernetes_client import KubeClient

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
#: The API server's own buffers are of this order; larger messages are cut by it.
MAX_MESSAGE_BYTES = 32 * 1024
END_SECONDS = 10

#: $1: how many variables, then those, then the program.
_ENVIRONMENT = 'n=$1; shift; while [ "$n" -gt 0 ]; do export "$1"; shift; n=$((n-1)); done; '
_TERMINAL = 'stty rows "$1" cols "$2" 2>/dev/null; shift 2; exec "$@"'
#: What feeds the program stands in the background with our input as its own (of itself it would have none), and holds none of its outputs:
#: it must not keep the session open when the program has ended.
_FED = 'exec 3<&0; { { while IFS= read -r n && [ "$n" -gt 0 ]; do head -c "$n"; done; } <&3 3<&- 2>/dev/null & } | "$@" 3<&-'


def argv_of(
    argv: Sequence[str],
    *,
    tty: bool,
    size: tuple[int, int] | None,
    env: Mapping[str, str] | None,
) -> list[str]:
    """What is executed so that the program has its variables, its terminal's size, and an end of its input."""
    variables = [f"{name}={value}" for name, value in (env or {}).items()]
    words = [str(len(variables)), *variables]
    if not tty:
        return ["sh", "-c", _ENVIRONMENT + _FED, "sh", *words, *argv]
    if size is None:
        return ["sh", "-c", _ENVIRONMENT + 'exec "$@"', "sh", *words, *argv]
    return [
        *("sh", "-c", _ENVIRONMENT + _TERMINAL, "sh", *words),
        *(str(size[0]), str(size[1]), *argv),
    ]


class KubeExec:
    """An `ExecSession` on a cluster."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, *, tty: bool) -> None:
        self._socket, self._tty = socket, tty
        self._code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._sending = asyncio.Lock()

    async def read(self) -> bytes:
        """The next output; empty at the end."""
        while True:
            message = await self._socket.receive()
            if message.type is aiohttp.WSMsgType.TEXT:
                channel, data = ord(message.data[:1] or "\0"), message.data[1:].encode()
            elif message.type is aiohttp.WSMsgType.BINARY:
                channel, data = (message.data or b"\0")[0], message.data[1:]
            else:
                self._ended(None)
                return b""
            if channel in (STDOUT, STDERR) and data:
                return bytes(data)
            if channel == ERROR and data:
                self._ended(data)

    async def write(self, data: bytes) -> None:
        """Send input."""
        async with self._sending:
            for at in range(0, len(data), MAX_MESSAGE_BYTES):
                piece = data[at : at + MAX_MESSAGE_BYTES]
                head = b"" if self._tty else b"%d\n" % len(piece)
                await self._send(STDIN, head + piece)

    async def end_input(self) -> None:
        """Say that no more input comes."""
        if not self._tty:
            async with self._sending:
                await self._send(STDIN, b"0\n")

    async def resize(self, rows: int, columns: int) -> None:
        """Tell the terminal's size, in characters."""
        await self._send(RESIZE, json.dumps({"Width": columns, "Height": rows}).encode())

    async def wait(self) -> int:
        """Wait for the end and return the exit code. Raises BackendUnavailable when the connection went before it was told."""
        while not self._code.done():
            await self.read()
        return await self._code

    async def close(self) -> None:
        """Drop the connection at once; safe to repeat."""
        transport = self._socket.get_extra_info("socket") and self._transport()
        if transport is not None:
            # Not `close`: it would wait for a program that takes no input to take what is still to be written.
            transport.abort()
        self._ended(None)

    def _transport(self) -> asyncio.WriteTransport | None:
        connection = self._socket._response.connection
        return connection.transport if connection is not None else None

    async def _send(self, channel: int, data: bytes) -> None:
        try:
            await self._socket.send_bytes(bytes([channel]) + data)
        except (aiohttp.ClientError, ConnectionError) as error:
            raise BackendUnavailable("The program's connection is gone.") from error

    def _ended(self, status: bytes | None) -> None:
        if self._code.done():
            return
        if status is None:
            self._code.set_exception(
                BackendUnavailable("The connection ended before the program's exit code was told.")
            )
            self._code.exception()  # told to whoever waits; nobody need
            return
        try:
            self._code.set_result(exit_code(json.loads(status)))
        except BackendError as error:
            self._code.set_exception(error)
            self._code.exception()


def exit_code(status: Mapping[str, Any]) -> int:
    """The exit code in the Status object that ends a session. Raises StartFailed where there is none."""
    if status.get("status") == "Success":
        return 0
    for cause in (status.get("details") or {}).get("causes") or ():
        if cause.get("reason") == "ExitCode":
            return int(cause.get("message", -1))
    raise StartFailed(f"The program could not be run: {status.get('message', '')}"[:1000])


async def start(
    client: KubeClient,
    pod: str,
    container: str,
    argv: Sequence[str],
    *,
    tty: bool,
    size: tuple[int, int] | None,
    env: Mapping[str, str] | None,
) -> KubeExec:
    """Start a program in a running container. Raises PodNotFound, StartFailed, BackendUnavailable."""
    words = argv_of(argv, tty=tty, size=size, env=env)
    params = [
        *(("container", container), ("stdin", "true"), ("stdout", "true")),
        *(("stderr", "false" if tty else "true"), ("tty", "true" if tty else "false")),
        *(("command", word) for word in words),
    ]
    try:
        socket = await client.websocket(f"{client.pods}/{pod}/exec", params)
    except (PodNotFound, BackendUnavailable):
        raise
    except BackendError as error:
        raise StartFailed(error.message, next_step=error.next_step) from error
    session = KubeExec(socket, tty=tty)
    if tty and size is not None:
        await session.resize(*size)
    return session
