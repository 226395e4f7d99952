"""The relay as it runs in its pod, for tests: a process of its own, with its two ports."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

from pods.sidecar import relay_greeting
from pods.sidecar.mux import Mux
from pods.sidecar.relay import StreamPipe
from tests.e2e.installation import ROOT, free_port
from tests.sidecar.rig import until

TOKEN = "a-token-of-the-test"
HOST = "127.0.0.2"  # a pod's address that is not the one of its loopback port


class Relay:
    """The process and its ports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.control_port = free_port(), free_port()
        self.process: asyncio.subprocess.Process | None = None
        self._muxes: list[asyncio.Task[None]] = []

    async def start(self, token: str = TOKEN) -> None:
        (self.folder / "token").write_text(token + "\n")
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "pods.sidecar.relay",
            cwd=ROOT,
            stdout=(self.folder / "log").open("ab"),
            stderr=subprocess.STDOUT,
            env={
                "PATH": os.environ["PATH"],
                "DEVAIPOD_RELAY_TOKEN_FILE": str(self.folder / "token"),
                "DEVAIPOD_RELAY_HOST": HOST,
                "DEVAIPOD_RELAY_PORT": str(self.port),
                "DEVAIPOD_RELAY_CONTROL_PORT": str(self.control_port),
            },
        )
        await until(lambda: "waiting for the control plane" in self.log, 20, "the relay")

    @property
    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    async def pipe(self) -> StreamPipe:
        return StreamPipe(*await asyncio.open_connection("127.0.0.1", self.control_port))

    async def control(self, accept, token: str = TOKEN, process: str = "one") -> asyncio.Task[None]:
        """Dial as a control plane does and serve until the task is cancelled."""
        before = self.log.count("is there")
        pipe = await self.pipe()
        first = await relay_greeting.greet(pipe, token, process)
        task = asyncio.create_task(Mux(pipe, accept=accept, first=first).run())
        self._muxes.append(task)
        await asyncio.sleep(0)  # a task that is cancelled before its first step closes nothing
        await until(lambda: self.log.count("is there") > before, 5, "the sidecars' port")
        return task

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(HOST, self.port)

    def listens(self) -> bool:
        try:
            socket.create_connection((HOST, self.port), timeout=2).close()
        except OSError:
            return False
        return True

    async def stop(self) -> None:
        for task in self._muxes:
            task.cancel()
        await asyncio.gather(*self._muxes, return_exceptions=True)
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()
