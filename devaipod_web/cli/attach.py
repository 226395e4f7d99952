"""`devaipod attach`: this terminal, joined to a program in a pod's agent container over the exec websocket.

The local terminal is raw meanwhile and is put back whatever happens. Output is acknowledged once it is written, so that a slow reader
here (a pipe into `less`) holds the program there and not the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlencode

import typer

from devaipod_web.cli.client import API, Client, CliError, Refused, ServerGone, segment
from devaipod_web.cli.output import clean, note

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

READ_BYTES = 16 * 1024
#: Input on its way that the program has not taken yet.
WINDOW_BYTES = 256 * 1024
RUN_KEY = re.compile(r"[a-z2-7]{10}")
#: Three of these one after the other leave a program that does not answer (as `machinectl shell` has it).
ESCAPE = b"\x1d"
ESCAPE_TIMES = 3
#: Ended by a signal, as a shell says it.
INTERRUPTED = 130


class _Left(Exception):
    """The person left with the escape keys."""


def attach(
    target: Annotated[str, typer.Argument(metavar="RUN|POD", help="A run's key or a pod's name.")],
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- COMMAND…]", help="A program and its arguments; none: a shell."),
    ] = None,
) -> None:
    """A shell, or a program, in the agent's container of a run's pod. Ends with its exit status; Ctrl-] three times leaves it."""
    client = Client()
    pod = _pod(client, target)
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    query = [("argv", word) for word in command or []]
    query += [("tty", "1" if is_terminal else "0"), ("term", os.environ.get("TERM", ""))]
    if is_terminal:
        size = _size()
        query += [("rows", str(size.lines)), ("columns", str(size.columns))]
    address = client.url.replace("http", "ws", 1) + f"{API}/pods/{segment(pod)}/exec"
    with _raw() if is_terminal else contextlib.nullcontext():
        try:
            status = asyncio.run(_attach(client, f"{address}?{urlencode(query)}", is_terminal))
        except _Left:
            status = INTERRUPTED
    if is_terminal and status == INTERRUPTED:
        note("Left; the program there is ended.")
    raise typer.Exit(status)


def _pod(client: Client, target: str) -> str:
    if not RUN_KEY.fullmatch(target):
        return target
    pods = client.get(f"/runs/{segment(target)}")["pods"]
    if not pods:
        raise CliError(
            "The run has had no pod yet.",
            next_step=f"`devaipod show {target}` says what it waits for.",
        )
    return str(pods[-1])


@contextlib.contextmanager
def _raw() -> Iterator[None]:
    """Every key goes through while this lasts; before and after the terminal is as it was."""
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setraw(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


async def _attach(client: Client, address: str, is_terminal: bool) -> int:
    """Join both ends until the program has ended; returns its exit status. Raises CliError for every other end."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidHandshake, InvalidStatus

    headers = {"Authorization": f"Bearer {client.bearer}"}
    opening = connect(
        address, additional_headers=headers, compression=None, max_size=None, max_queue=None
    )
    try:
        socket = await opening.__aenter__()
    except InvalidStatus as error:
        raise _refused(error.response.body or b"", error.response.status_code) from error
    except (OSError, InvalidHandshake, TimeoutError) as error:
        raise ServerGone(
            f"The server at {client.url} does not answer ({type(error).__name__}).",
            next_step="Start it with `make up` in the checkout, or `devaipod serve`.",
        ) from error
    try:
        return await _Session(socket, is_terminal=is_terminal).run()
    finally:
        await socket.close()


def _refused(body: bytes | bytearray, status: int) -> Refused:
    try:
        problem = json.loads(body)
        detail, next_step = str(problem["detail"]), str(problem.get("next_step", ""))
    except (ValueError, KeyError, TypeError):
        detail, next_step = f"The server answered {status}.", ""
    return Refused(clean(detail), next_step=clean(next_step), code="", http_status=status)


class _Session:
    """One open websocket between this terminal and the program."""

    def __init__(self, socket: ClientConnection, *, is_terminal: bool) -> None:
        self.socket = socket
        self.is_terminal = is_terminal
        self.output: asyncio.Queue[bytes] = asyncio.Queue()
        self.told: dict[str, Any] = {}
        self.left = asyncio.Event()
        self.on_the_way = 0
        self.room = asyncio.Event()

    async def run(self) -> int:
        """Until the program, the connection or the person ends it."""
        loop = asyncio.get_running_loop()
        await self._tell({"ack": 0})
        if self.is_terminal:
            await self._tell_size()
            loop.add_signal_handler(signal.SIGWINCH, lambda: loop.create_task(self._tell_size()))
        keys = threading.Thread(target=self._read_keys, args=(loop,), name="keys", daemon=True)
        keys.start()
        writing = asyncio.create_task(self._write_output())
        receiving = asyncio.create_task(self._receive())
        leaving = asyncio.create_task(self.left.wait())
        try:
            await asyncio.wait({receiving, leaving, writing}, return_when=asyncio.FIRST_COMPLETED)
            if self.left.is_set():
                raise _Left
            if writing.done():
                # Nobody reads any more (`… | head -1`): that ends it, and the program with it.
                writing.result()
            await receiving
            # Everything that came is written before the end is told.
            await asyncio.wait(
                {writing, asyncio.create_task(self.output.join())},
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            for task in (writing, receiving, leaving):
                task.cancel()
            await asyncio.gather(writing, receiving, leaving, return_exceptions=True)
        return self._outcome()

    async def _receive(self) -> None:
        from websockets.exceptions import ConnectionClosed

        with contextlib.suppress(ConnectionClosed):
            async for data in self.socket:
                if isinstance(data, bytes):
                    self.output.put_nowait(data)
                    continue
                told = json.loads(data)
                if "ack" in told:
                    self.on_the_way -= told["ack"]
                    self.room.set()
                else:
                    self.told = told

    async def _write_output(self) -> None:
        while True:
            data = await self.output.get()
            await asyncio.to_thread(_write_all, data)
            await self._tell({"ack": len(data)})
            self.output.task_done()

    def _read_keys(self, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread: standard input may be anything, also what a loop can't watch. Waits for each piece to be sent."""
        escapes = 0
        with contextlib.suppress(RuntimeError, OSError, ValueError, ConnectionError):
            while data := os.read(sys.stdin.fileno(), READ_BYTES):
                escapes = escapes + 1 if data == ESCAPE else 0
                if self.is_terminal and escapes == ESCAPE_TIMES:
                    loop.call_soon_threadsafe(self.left.set)
                    return
                asyncio.run_coroutine_threadsafe(self._send(data), loop).result()
            asyncio.run_coroutine_threadsafe(self._tell({"eof": True}), loop).result()

    async def _send(self, data: bytes) -> None:
        from websockets.exceptions import ConnectionClosed

        with contextlib.suppress(ConnectionClosed):
            while self.on_the_way > WINDOW_BYTES:
                self.room.clear()
                await self.room.wait()
            await self.socket.send(data)
            self.on_the_way += len(data)

    async def _tell(self, message: dict[str, Any]) -> None:
        from websockets.exceptions import ConnectionClosed

        with contextlib.suppress(ConnectionClosed):
            await self.socket.send(json.dumps(message))

    async def _tell_size(self) -> None:
        size = _size()
        await self._tell({"resize": [size.lines, size.columns]})

    def _outcome(self) -> int:
        if "exit" in self.told:
            code = self.told["exit"]
            return code if isinstance(code, int) and 0 <= code <= 255 else 1
        if "error" in self.told:
            raise CliError(
                clean(self.told["error"]), next_step=clean(self.told.get("next_step", ""))
            )
        reason = clean(self.socket.close_reason or "The connection broke.")
        raise CliError(
            reason,
            next_step="Attach again for a new shell: `devaipod ps` lists what runs.",
        )


def _size() -> os.terminal_size:
    # Not `shutil`'s: COLUMNS and LINES may be another terminal's, or from before it was resized.
    return os.get_terminal_size(sys.stdout.fileno())


def _write_all(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(sys.stdout.fileno(), view) :]
