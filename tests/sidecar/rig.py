"""A sidecar process with everything around it real: a gateway on a Unix socket that speaks the protocol, git http-backend, FIFOs, an agent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from pods.sidecar.protocol import PROTOCOL_VERSION
from tests.e2e.installation import ROOT, free_port, git, make_upstream

BACKEND = "/usr/lib/git-core/git-http-backend"
AGENT = ROOT / "tests" / "agents" / "scripted.py"
RUN = "abcdefghij"
BRANCH = f"agent/{RUN}/work"


class Gateway:
    """The gateway's side of the protocol. Events are kept by number; `hold_acks` keeps back acknowledgements."""

    def __init__(self, folder: Path, repository: Path) -> None:
        self.socket = folder / "gateway.sock"
        self.repository = repository
        self.events: list[dict[str, Any]] = []
        self.config: dict[str, Any] = {}
        self.commands: list[dict[str, Any]] = []
        self.hellos: list[dict[str, Any]] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.hold_acks = False
        self.doubles = 0
        self._live: web.WebSocketResponse | None = None
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on a new socket file."""
        self.socket.parent.mkdir(parents=True, exist_ok=True)
        app = web.Application(client_max_size=1 << 30)
        app.router.add_get("/sidecar", self._sidecar)
        app.router.add_route("*", "/git/repo.git/{rest:.*}", self._git)
        app.router.add_route("*", "/llm/{rest:.*}", self._llm)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        self.socket.unlink(missing_ok=True)
        await web.UnixSite(self._runner, str(self.socket)).start()

    async def stop(self) -> None:
        """Go away as a control plane does that is restarted."""
        if self._live is not None:
            await self._live.close()
        if self._runner is not None:
            await self._runner.cleanup()
        self._runner = None

    @property
    def acked(self) -> int:
        """The highest contiguous number."""
        return self.events[-1]["source_seq"] if self.events else 0

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Payloads of the events of one kind."""
        return [event["payload"] for event in self.events if event["kind"] == kind]

    async def command(self, kind: str, **payload: Any) -> dict[str, Any]:
        """Queue a command and send it when a sidecar is connected."""
        number = len(self.commands) + 1
        command = {
            "type": "command",
            "id": f"cmd{number:07d}",
            "number": number,
            "kind": kind,
            "payload": payload,
        }
        self.commands.append(command)
        if self._live is not None and not self._live.closed:
            await self._live.send_json(command)
        return command

    async def wait(
        self, kind: str, seconds: float = 60, count: int = 1, **match: Any
    ) -> dict[str, Any]:
        """The payload of the `count`-th event of a kind with these values."""

        def found() -> dict[str, Any] | None:
            hits = [p for p in self.of(kind) if match.items() <= p.items()]
            return hits[count - 1] if len(hits) >= count else None

        payload: dict[str, Any] = await until(
            found, seconds, f"{kind} {match}; there are {[e['kind'] for e in self.events][-30:]}"
        )
        return payload

    async def _sidecar(self, request: web.Request) -> web.WebSocketResponse:
        assert request.headers["Authorization"] in ("Bearer control-token", "Bearer second-token")
        socket = web.WebSocketResponse(max_msg_size=64 << 20)
        await socket.prepare(request)
        self._live = socket
        self.hellos.append(json.loads((await socket.receive()).data))
        await socket.send_json(
            {
                "type": "welcome",
                "protocol": PROTOCOL_VERSION,
                "acked": self.acked,
                "config": self.config,
            }
        )
        done = {p["command"] for k in ("command.applied", "command.refused") for p in self.of(k)}
        for command in self.commands:
            if command["id"] not in done:
                await socket.send_json(command)
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            said = json.loads(message.data)
            if said["type"] == "ping":
                await socket.send_json({"type": "pong"})
            if said["type"] == "events":
                self._take(said["events"])
                if not self.hold_acks:
                    with contextlib.suppress(ConnectionError):
                        await socket.send_json({"type": "ack", "source_seq": self.acked})
        return socket

    def _take(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            if event["source_seq"] <= self.acked:
                self.doubles += 1
                continue
            assert event["source_seq"] == self.acked + 1, "a gap"
            self.events.append(event)

    async def _llm(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.raw_path, dict(request.headers)))
        body = await request.read()
        if "slow" in request.path:
            answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await answer.prepare(request)
            for n in range(3):
                await answer.write(f"data: {n}\n\n".encode())
                await asyncio.sleep(0.2)
            return answer
        return web.json_response({"bytes": len(body)})

    async def _git(self, request: web.Request) -> web.Response:
        self.requests.append((request.method, request.raw_path, dict(request.headers)))
        assert request.headers["Authorization"] == "Bearer data-token"
        body = await request.read()
        process = await asyncio.create_subprocess_exec(
            BACKEND,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={
                "GIT_PROJECT_ROOT": str(self.repository),
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": "/" + request.match_info["rest"],
                "REQUEST_METHOD": request.method,
                "QUERY_STRING": request.query_string,
                "CONTENT_TYPE": request.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
                "REMOTE_USER": "run",
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "http.receivepack",
                "GIT_CONFIG_VALUE_0": "true",
                "PATH": os.environ["PATH"],
            },
        )
        out, _ = await process.communicate(body)
        head, _, rest = out.partition(b"\r\n\r\n")
        headers, status = {}, 200
        for line in head.decode().splitlines():
            name, _, value = line.partition(": ")
            if name == "Status":
                status = int(value.split()[0])
            else:
                headers[name] = value
        return web.Response(status=status, body=rest, headers=headers)


class Rig:
    """Folders as the pod's mounts, the sidecar's process, and the agent's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        bare = make_upstream(folder / "forge")
        self.gateway = Gateway(folder / "s", bare)
        self.base = git("rev-parse", "main", cwd=bare)
        self.repository = bare
        self.workspace = folder / "workspace"
        self.port = free_port()
        self.sidecar: asyncio.subprocess.Process | None = None
        self.agent: asyncio.subprocess.Process | None = None
        for name in ("workspace", "stdio", "token", "state"):
            (folder / name).mkdir()
        (folder / "token" / "control").write_text("control-token\n")
        (folder / "token" / "data").write_text("data-token\n")
        self.gateway.config = {
            "run": RUN,
            "pod": "devaipod-sample-abcdefghij-1",
            "attempt": 1,
            "workspace": str(self.workspace),
            "remote": "/git/repo.git",
            "base": self.base,
            "branch": BRANCH,
            "author_name": "devaipod agent",
            "author_email": "agent@devaipod.invalid",
            "resume": False,
            "session_id": "",
            "mcp_servers": [],
            "agent": "scripted",
            "max_events": 200_000,
            "max_event_bytes": 512 << 20,
            "push_bytes": 64 << 20,
        }

    async def start_sidecar(self, **env: str) -> None:
        """Start the program as the pod does, with the mounts' places in its environment."""
        log = (self.folder / "sidecar.log").open("ab")
        self.sidecar = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "pods.sidecar",
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "DEVAIPOD_SOCKET_DIR": str(self.gateway.socket.parent),
                "DEVAIPOD_STATE_DIR": str(self.folder / "state"),
                "DEVAIPOD_STDIO_DIR": str(self.folder / "stdio"),
                "DEVAIPOD_TOKEN_DIR": str(self.folder / "token"),
                "DEVAIPOD_PROXY_PORT": str(self.port),
                **env,
            },
        )

    async def start_agent(self, program: str = "") -> None:
        """Start the agent as its container's entry does: FIFOs as standard input and output."""
        command = program or f"{sys.executable} {AGENT}"
        self.agent = await asyncio.create_subprocess_exec(
            "sh",
            "-c",
            f"exec {command} <{self.folder}/stdio/in >{self.folder}/stdio/out",
            stderr=(self.folder / "agent.log").open("ab"),
            env={**os.environ, "OPENAI_BASE_URL": f"http://127.0.0.1:{self.port}/llm/v1"},
        )

    async def start(self) -> None:
        """Everything up to a session."""
        await self.gateway.start()
        await self.start_sidecar()
        await self.gateway.wait("workspace.ready")
        await self.start_agent()
        await self.gateway.wait("session.started")

    async def prompt(self, text: str, turn: int = 1, seconds: float = 60) -> dict[str, Any]:
        """Play a turn to the end and return the payload of `work.staged`."""
        await self.gateway.command("prompt", turn=turn, text=text)
        await self.gateway.wait("turn.ended", seconds, turn=turn)
        return await self.gateway.wait("work.staged", seconds, turn=turn)

    async def stop(self) -> None:
        """End both processes and the gateway."""
        for process in (self.sidecar, self.agent):
            if process is not None and process.returncode is None:
                process.send_signal(signal.SIGKILL)
                await process.wait()
        await self.gateway.stop()

    def log(self) -> str:
        """What the sidecar printed."""
        path = self.folder / "sidecar.log"
        return path.read_text() if path.exists() else ""

    def pushed(self, path: str = "", ref: str = BRANCH) -> str:
        """Names of the files on a pushed branch, or one file's text."""
        if path:
            return git("show", f"{ref}:{path}", cwd=self.repository)
        return git("ls-tree", "-r", "--name-only", ref, cwd=self.repository)


async def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Wait until `condition` returns something true and return it."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        found = condition()
        if found is not None and found is not False:  # an empty payload is found, too
            return found
        await asyncio.sleep(0.02)
    raise AssertionError(f"waited {seconds} s for {what}")
