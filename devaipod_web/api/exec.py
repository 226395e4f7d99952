"""`/api/devaipod/pods/{name}/exec`: a program in a pod's agent container over a websocket, for the page and for `devaipod attach`.

Binary frames carry bytes both ways. Text frames are JSON: the client sends `{"resize": [rows, columns]}` and, without a terminal,
`{"eof": true}`; the server sends `{"exit": code}` at the end, or `{"error": …, "next_step": …}`, and closes with a code of `Close`
and its reason. The address takes `argv` (again and again; none: a shell), `tty=0`, `term`, and the size at the start, `rows` and
`columns`.

A client that says `{"ack": 0}` gets both ways paced: it then says `{"ack": bytes}` for what it has shown and has at most `WINDOW_BYTES`
before it, and hears `{"ack": bytes}` for what the program has taken and keeps at most as much on the way. Without, the connection itself
is the pace. Nothing here grows with what is written: the pod is read only when the last piece has gone out, and more input
than `WINDOW_BYTES` waits in the connection.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any
from urllib.parse import parse_qs

import structlog
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django.http import Http404

from devaipod_web import db
from devaipod_web.accounts import callers
from devaipod_web.accounts.models import User
from devaipod_web.accounts.permissions import LEAST_ROLE, ROUTES, may, role_of
from devaipod_web.api import reach
from devaipod_web.api.problems import CONTENT_TYPE, Problem, document
from devaipod_web.runs import backends, terminals
from devaipod_web.runs.models import RunPod
from devaipod_web.runs.terminals import Close, End
from pods import terminal
from pods.errors import BackendError
from pods.spec import AGENT

log = structlog.get_logger("devaipod.terminals")

ROUTE = "ws:exec"
CHECK_SECONDS = 2.0
#: A frame of input; a longer paste comes in several.
MAX_INPUT_BYTES = 32 * 1024
MAX_CONTROL_CHARACTERS = 1024
#: Bytes on the way in each direction: some tenth of a second of a fast terminal.
WINDOW_BYTES = 512 * 1024
#: Input that a program has taken is acknowledged in pieces of this size.
ACK_BYTES = 16 * 1024
#: A client that takes nothing, or a terminal whose program takes no input, for this long ends the session. (A pipe may wait.)
STALLED_SECONDS = 15.0
MAX_SIZE = 1000
MAX_ARGUMENTS = 256
TERM = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,39}")


class TerminalConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]
    """One program in one pod's agent container, for one person."""

    route = ROUTE

    async def dispatch(self, message: dict[str, Any]) -> None:
        """Every key is a message: none is to cost channels' look at database connections, which this door does not use."""
        await getattr(self, message["type"].replace(".", "_"))(message)

    async def connect(self) -> None:
        """Check, accept, and begin."""
        self.life: asyncio.Task[None] | None = None
        try:
            self.caller, self.user, self.pod = await db.read(_admit, self.scope)
        except Problem as problem:
            await self._refuse(problem)
            return
        await self.accept()
        refusal = terminals.refusal(self.pod)
        if refusal is not None and refusal.code is not None:
            await self.close(refusal.code, refusal.reason)
            return
        self.key = ""
        self.program: terminal.Terminal | None = None
        self.started, self.over = asyncio.Event(), asyncio.get_running_loop().create_future()
        self.inputs: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.room_for_input = asyncio.Event()
        self.bytes_in = self.bytes_taken = self.bytes_out = 0
        self.acknowledged: int | None = None
        self.acknowledgement = asyncio.Event()
        self.touched = time.monotonic()
        terminals.take_place(self.pod)
        self.life = asyncio.create_task(self._live(), name=f"terminal {self.pod.name}")

    async def disconnect(self, code: int) -> None:
        """The client has gone, or was sent away: wait until the program is ended and the audit log says so."""
        if self.life is not None:
            self._end(End(None, "The client left."))
            await asyncio.shield(self.life)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Input or a control frame. With a window of input waiting, nothing more is read from the client."""
        if self.life is None:
            return
        await self.started.wait()
        if self.program is None or self.over.done():
            return
        self.touched = time.monotonic()
        if bytes_data is None:
            await self._control(self.program, text_data or "")
        elif len(bytes_data) > MAX_INPUT_BYTES:
            self._end(End(Close.TOO_BIG, f"A frame of input has at most {MAX_INPUT_BYTES} bytes."))
        else:
            self.bytes_in += len(bytes_data)
            self.inputs.put_nowait(bytes_data)
            while self.bytes_in - self.bytes_taken > WINDOW_BYTES and not self.over.done():
                self.room_for_input.clear()
                await self.room_for_input.wait()

    async def _control(self, program: terminal.Terminal, text: str) -> None:
        match _parsed(text):
            case {"resize": [int(rows), int(columns)]} if (
                0 < rows <= MAX_SIZE and 0 < columns <= MAX_SIZE
            ):
                try:
                    await program.resize(rows, columns)
                except BackendError as error:
                    log.info("terminal.not_resized", pod=self.pod.name, reason=error.message)
            case {"ack": int(count)} if count >= 0:
                self.acknowledged = min((self.acknowledged or 0) + count, self.bytes_out)
                self.acknowledgement.set()
            case {"eof": True}:
                self.inputs.put_nowait(None)
            case _:
                self._end(End(Close.NOT_UNDERSTOOD, "This text frame is not understood."))

    def _end(self, end: End) -> None:
        if not self.over.done():
            self.over.set_result(end)
        self.room_for_input.set()

    # --- from the accepted handshake to the audit log's last word ------------------------------------------------

    async def _live(self) -> None:
        began = time.monotonic()
        try:
            await self._start()
            self.started.set()
            works = (self._pump(), self._feed(), self._watch())
            tasks = [asyncio.create_task(work) for work in works]
            end = await self.over
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._say_goodbye(end)
            if self.program is not None:
                await self.program.close()
        except Exception as error:
            log.exception("terminal.failed", pod=self.pod.name)
            end = End(None, f"A fault of the server: {type(error).__name__}")
            self._end(end)
            await self.close(1011, "The server failed.")
        finally:
            terminals.give_place_back(self.pod)
            self.started.set()
        counts = {"bytes_in": self.bytes_in, "bytes_out": self.bytes_out}
        seconds = time.monotonic() - began
        await db.write(
            terminals.closed, self.key, self.pod, self.user, end, seconds=seconds, **counts
        )
        log.info("terminal.closed", pod=self.pod.name, who=self.user.username, reason=end.reason)

    async def _start(self) -> None:
        given = parse_qs(self.scope.get("query_string", b"").decode("latin-1"))
        self.is_tty = given.get("tty", ["1"])[0] != "0"
        size = _size(given.get("rows", [""])[0], given.get("columns", [""])[0])
        argv, term = given.get("argv", [])[:MAX_ARGUMENTS], given.get("term", [""])[0]
        # First the audit log: nothing is done that does not stand there.
        self.key = await db.write(terminals.opened, self.pod, self.user, argv)
        log.info("terminal.opened", pod=self.pod.name, who=self.user.username)
        try:
            self.program = await terminal.open_terminal(
                backends.of_target(self.pod.target),
                self.pod.name,
                AGENT,
                argv,
                tty=self.is_tty,
                term=term if TERM.fullmatch(term) else terminal.DEFAULT_TERM,
                size=size,
            )
        except (BackendError, ValueError) as error:
            told = {"error": str(error)[:1000], "next_step": getattr(error, "next_step", "")[:500]}
            await self.send(text_data=json.dumps(told))
            self._end(End(Close.NOT_STARTED, "The container started no program."))

    async def _pump(self) -> None:
        """The program's output to the client, no faster than it takes it."""
        program = self.program
        if program is None:
            return
        try:
            while data := await program.read():
                await self._room()
                self.bytes_out += len(data)
                async with asyncio.timeout(STALLED_SECONDS):
                    await self.send(bytes_data=data)
                self.touched = time.monotonic()
            code = await program.wait()
            self._end(End(Close.ENDED, "The program has ended.", code))
        except TimeoutError:
            self._end(End(Close.STALLED, "The client takes no output."))
        except OSError:
            self._end(End(Close.POD_GONE, "The connection to the container broke."))
        except Exception:
            # Sending to a client that has just gone; `disconnect` follows, and if not, this is the end.
            self._end(End(None, "The client left."))

    async def _feed(self) -> None:
        """The client's input to the program, no faster than it takes it."""
        program, acknowledged = self.program, 0
        if program is None:
            return
        try:
            while True:
                data = await self.inputs.get()
                if data is None:
                    await program.end_input()
                    continue
                async with asyncio.timeout(STALLED_SECONDS if self.is_tty else None):
                    await program.write(data)
                self.bytes_taken += len(data)
                self.room_for_input.set()
                if self.acknowledged is not None and self.bytes_taken - acknowledged >= ACK_BYTES:
                    await self.send(text_data=json.dumps({"ack": self.bytes_taken - acknowledged}))
                    acknowledged = self.bytes_taken
        except TimeoutError:
            self._end(End(Close.STALLED, "The program takes no input."))
        except OSError:
            # The program is gone, or the client: `_pump` or `disconnect` says so. What still comes is dropped.
            self.bytes_taken = self.bytes_in
            self.room_for_input.set()

    async def _room(self) -> None:
        while self.acknowledged is not None and self.bytes_out - self.acknowledged >= WINDOW_BYTES:
            self.acknowledgement.clear()
            await self.acknowledgement.wait()

    async def _watch(self) -> None:
        """End the session when its person may not have it any more, its pod has ended, or nothing was said for long."""
        idle = settings.TERMINAL_IDLE.total_seconds()
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            must = await db.read(terminals.still, self.caller, ROUTES[ROUTE], self.pod)
            if must is None and time.monotonic() - self.touched > idle:
                must = End(Close.IDLE, f"Nothing was typed or shown for {idle / 60:.0f} minutes.")
            if must is not None:
                self._end(must)
                return

    async def _say_goodbye(self, end: End) -> None:
        if end.code is None:
            return
        try:
            async with asyncio.timeout(STALLED_SECONDS):
                if end.code is Close.ENDED:
                    await self.send(text_data=json.dumps({"exit": end.exit_code}))
                await self.close(int(end.code), end.reason)
        except Exception as error:
            log.info("terminal.goodbye_unheard", pod=self.pod.name, reason=type(error).__name__)

    async def _refuse(self, problem: Problem) -> None:
        """Refuse the handshake with the API's problem document (ASGI's extension "websocket.http.response")."""
        if "websocket.http.response" not in (self.scope.get("extensions") or {}):
            await self.close(4000 + problem.status)
            return
        answer = document(
            problem.status, problem.code, problem.message, next_step=problem.next_step
        )
        headers = [(b"content-type", CONTENT_TYPE.encode())]
        kind = "websocket.http.response"
        await self.base_send(
            {"type": f"{kind}.start", "status": problem.status, "headers": headers}
        )
        await self.base_send({"type": f"{kind}.body", "body": answer.content})


def _admit(scope: dict[str, Any]) -> tuple[callers.Caller, User, RunPod]:
    """Who asks for which pod. Raises Problem: 401 for nobody, 403 without the role, 404 for strangers and unknown pods."""
    caller = callers.of(scope)
    user = caller.user()
    if user is None:
        raise Problem(
            401,
            "token-refused" if callers.bearer(scope["headers"]) else "not-signed-in",
            "This needs a session or a token that counts.",
            next_step="Send `Authorization: Bearer dvp_…`; `devaipod token create` makes one.",
        )
    pod = terminals.find(scope["url_route"]["kwargs"]["name"])
    permission = ROUTES[ROUTE]
    if pod is None or role_of(user) is None:
        raise Problem(404, "not-found", "There is no such pod.")
    if not may(user, permission):
        needed = LEAST_ROLE[permission]
        raise Problem(
            403,
            "role-needed",
            f"This needs the role {needed}; {user} has {role_of(user)}.",
            next_step="Ask a manager.",
        )
    try:
        reach.check(user, ROUTE, {"name": pod.name})
    except Http404:
        raise Problem(404, "not-found", "There is no such pod.") from None
    return caller, user, pod


def _size(rows: str, columns: str) -> tuple[int, int] | None:
    """What the address says of the terminal's size; None when it says nothing that can be."""
    figures = [int(word) for word in (rows, columns) if re.fullmatch(r"[0-9]{1,4}", word)]
    if len(figures) == 2 and all(0 < figure <= MAX_SIZE for figure in figures):
        return figures[0], figures[1]
    return None


def _parsed(text: str) -> Any:
    if len(text) > MAX_CONTROL_CHARACTERS:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
