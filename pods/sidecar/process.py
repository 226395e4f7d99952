"""A program without a protocol in the agent's container: started by a word to its entry, its end learned from the entry.

The entry's side is `pods/command.py`. What the program writes is its container's log and does not pass through here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

from pods.sidecar import fifo
from pods.sidecar.fifo import Lines, Oversize, Writer
from pods.sidecar.protocol import ENTRY_EXIT, ENTRY_READY, ENTRY_RUN, SIGNALS

#: A line of the entry is a word and a number; what is longer is not the entry's.
MAX_LINE_BYTES = 4096
#: Input that a program has not read yet. A pipe holds 64 KiB, and a program that never reads must hold up nobody.
INPUT_SECONDS = 5.0
SIGNAL_SECONDS = 1.0
EXIT_CODES = range(256)


class NotRead(Exception):
    """The program does not read its standard input, which is full."""


class Process:
    """The program of one attempt, from its entry's first word to its container's end. Raises fifo.NotAFifo."""

    def __init__(self, stdio: Path) -> None:
        self.exit_code: int | None = None
        self.ended = asyncio.Event()
        self._lines = Lines(fifo.open_fifo(stdio / "out", os.O_RDONLY), limit=MAX_LINE_BYTES)
        self._words = Writer(fifo.open_fifo(stdio / "in", os.O_RDWR))
        self._stdin = Writer(fifo.open_fifo(stdio / "stdin", os.O_RDWR))

    async def ready(self) -> bool:
        """Wait until the entry has found the program; False when the container ended without a word of it."""
        await self._lines.wait_writer()
        while (line := await self._next()) is not None:
            if line == ENTRY_READY:
                return True
        self.ended.set()
        return False

    async def run(self) -> int | None:
        """Have the program run and return its exit code, or None when its container ended without saying one."""
        await self._words.write(f"{ENTRY_RUN}\n".encode())
        while (line := await self._next()) is not None:
            word, _, number = line.partition(" ")
            if word == ENTRY_EXIT and number.isdecimal() and int(number) in EXIT_CODES:
                self.exit_code = int(number)
        self.ended.set()
        return self.exit_code

    async def signal(self, name: str) -> None:
        """Send a signal to all of the program's processes, when it still runs."""
        assert name in SIGNALS
        if self.ended.is_set():
            return
        # A program can fill this FIFO, too: then its container's end must do.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SIGNAL_SECONDS):
                await self._words.write(f"{name}\n".encode())

    async def write(self, text: str) -> None:
        """Write to the program's standard input. Raises NotRead when there is no room for it within INPUT_SECONDS."""
        try:
            async with asyncio.timeout(INPUT_SECONDS):
                await self._stdin.write(text.encode("utf-8", "replace"))
        except TimeoutError:
            raise NotRead("The command does not read its standard input, which is full.") from None

    async def end(self, *, seconds: float) -> None:
        """Ask the program to end (SIGTERM), and kill it when it has not after this time."""
        for name, patience in (("TERM", seconds), ("KILL", 2.0)):
            await self.signal(name)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self.ended.wait()
                    return

    async def _next(self) -> str | None:
        while True:
            try:
                line = await self._lines.next()
            except Oversize:
                continue
            return None if line is None else line.decode("ascii", "replace").strip()
