"""The ACP session with the agent: its updates become events in order, its questions wait for commands.

The SDK's `Connection` carries requests and answers. Notifications do not go through it (it runs each in a task of its own
and lost their order, and dropped kinds that it did not know): the transport takes them out, frame by frame, and waits for room in
the outbox before it reads on.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from typing import TYPE_CHECKING, Any

from pods.sidecar import translate
from pods.sidecar.fifo import Lines, Oversize, Writer
from pods.sidecar.merge import Merger
from pods.sidecar.protocol import EventKind, RunConfig
from pods.sidecar.recorder import Recorder

if TYPE_CHECKING:
    from acp.connection import Connection

PROTOCOL_VERSION = 1
INITIALIZE_SECONDS = 60
SESSION_SECONDS = 120
#: After a cancel the agent must end its turn (ACP, prompt-turn); one that does not is given up.
CANCEL_SECONDS = 10
BIG_FRAME = 1024 * 1024
JUNK_CHARACTERS = 2000
#: Questions of the agent that may be open at once; each is a task here and a row there.
MAX_QUESTIONS = 32
JSONRPC_NO_METHOD = -32601
JSONRPC_INTERNAL = -32603
#: Updates that say something beside the message that is being written.
BESIDE = frozenset({EventKind.USAGE, EventKind.MODE, EventKind.COMMANDS})
CANCELLED = {"outcome": {"outcome": "cancelled"}}


class AgentRefused(RuntimeError):
    """The agent said no, spoke another protocol, or said nothing in time."""

    def __init__(self, stage: str, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.stage = stage
        self.code = code


class AgentGone(RuntimeError):
    """The agent closed its end."""


class Transport:
    """What the SDK's `Connection` reads and writes: JSON-RPC frames, one a line (ACP, transports)."""

    def __init__(self, lines: Lines, writer: Writer, session: Session) -> None:
        self._lines = lines
        self._writer = writer
        self._session = session
        self._history_until: int | None = None

    async def send(self, message: dict[str, Any]) -> None:
        """Write one frame."""
        if message.get("method") == "session/load":
            # Updates before the answer are history that an earlier attempt has stored.
            self._history_until = message["id"]
        await self._writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    async def receive(self) -> dict[str, Any] | None:
        """The next request or answer; updates are stored on the way. None when the agent is gone."""
        while True:
            try:
                line = await self._lines.next()
            except Oversize as error:
                await self._session.oversize(error.size, error.head)
                continue
            if line is None:
                await self._session.agent_gone()
                return None
            if not line.strip():
                continue
            message = await self._parse(line)
            found = await self._sort(message, line) if message is not None else None
            if message is None:
                await self._session.junk(line)
            if found is not None:
                return found

    async def _sort(self, message: dict[str, Any], line: bytes) -> dict[str, Any] | None:
        """Store what is to be stored, and return what the SDK is to see: well-formed requests and answers."""
        method, identity = message.get("method"), message.get("id")
        if method is None:
            return await self._answer(message, line)
        if not isinstance(method, str) or not (identity is None or type(identity) in (int, str)):
            await self._session.junk(line)
            return None
        if identity is not None:
            return await self._session.question({**message, "method": method[:200]}, len(line))
        if self._history_until is not None and method == "session/update":
            return None
        await self._session.update(message, len(line))
        return None

    async def _answer(self, message: dict[str, Any], line: bytes) -> dict[str, Any] | None:
        """An answer in a shape that the SDK reads: it would stop reading over another."""
        identity, error = message.get("id"), message.get("error")
        if type(identity) is not int or not ("result" in message or "error" in message):
            await self._session.junk(line)
            return None
        if identity == self._history_until:
            self._history_until = None
        # What the agent said before its answer is numbered before what follows from the answer.
        await self._session.flush()
        if "result" in message:
            return {"id": identity, "result": message["result"]}
        known = error if isinstance(error, dict) else {"message": str(error)[:500]}
        code = known.get("code")
        return {
            "id": identity,
            "error": {
                "code": code if type(code) is int else JSONRPC_INTERNAL,
                "message": str(known.get("message", "The agent gave no reason."))[:2000],
                "data": known.get("data"),
            },
        }

    async def _parse(self, line: bytes) -> dict[str, Any] | None:
        try:
            if len(line) > BIG_FRAME:
                value = await asyncio.to_thread(_load, line)
            else:
                value = _load(line)
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) and ("method" in value or "id" in value) else None

    async def close(self) -> None:
        """The FIFOs stay open: the pod's end closes them."""


class Session:
    """One agent process from `initialize` on."""

    def __init__(self, config: RunConfig, recorder: Recorder, lines: Lines, writer: Writer) -> None:
        self.config = config
        self.recorder = recorder
        self.session_id = ""
        self.cancelling = False
        self.gone = asyncio.Event()
        self._merger = Merger(recorder.put, prefix=f"m{config['attempt']}.")
        self._transport = Transport(lines, writer, self)
        self._questions: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._offered: dict[str, set[str]] = {}
        self._capabilities: dict[str, Any] = {}
        self._connection: Connection | None = None
        self._plan: list[dict[str, str]] = []

    # --- what comes from the agent --------------------------------------------------------------------------

    async def update(self, frame: dict[str, Any], size: int) -> None:
        """One notification, a session/update as a rule; another kind is stored as it is."""
        params = frame.get("params")
        update = params.get("update") if isinstance(params, dict) else None
        if frame.get("method") != "session/update" or not isinstance(update, dict):
            update = {"sessionUpdate": None, "method": frame.get("method"), "params": params}
        piece = translate.chunk(update)
        if piece is not None:
            kind, message_id, text = piece
            await self._merger.add(kind, message_id[:100], text)
            return
        kind, payload = translate.payload(update)
        # A note beside the message does not end it.
        await self._merger.flush(ends=kind not in BESIDE)
        await self.recorder.put(kind, payload, translate.raw_frame(frame, size), size=size)
        plan = translate.planned(update)
        if plan and plan != self._plan:
            self._plan = plan
            await self.recorder.put(EventKind.PLAN, {"entries": plan})

    async def flush(self) -> None:
        """Number the text that waits."""
        await self._merger.flush()

    async def junk(self, line: bytes) -> None:
        """A line that is no JSON-RPC."""
        await self._merger.flush()
        text = line[:JUNK_CHARACTERS].decode("utf-8", "replace")
        await self.recorder.put(EventKind.AGENT_JUNK, {"line": text, "bytes": len(line)})

    async def oversize(self, size: int, head: bytes) -> None:
        """A frame above the limit, passed over."""
        await self._merger.flush()
        await self.recorder.put(
            EventKind.AGENT_OVERSIZE, {"bytes": size, "head": head.decode("utf-8", "replace")}
        )

    async def agent_gone(self) -> None:
        """The agent closed its end."""
        await self._merger.flush()
        self.gone.set()

    async def question(self, message: dict[str, Any], size: int) -> dict[str, Any] | None:
        """A request of the agent, for the SDK. A question is stored here, in its place among the updates."""
        await self._merger.flush()
        if message["method"] != "session/request_permission":
            return message
        if len(self._questions) >= MAX_QUESTIONS:
            await self._transport.send({"jsonrpc": "2.0", "id": message["id"], "result": CANCELLED})
            return None
        params = message.get("params")
        params = params if isinstance(params, dict) else {}
        call = params.get("toolCall")
        options = params.get("options")
        request_id = secrets.token_hex(8)
        offered = [
            {
                "id": str(option.get("optionId", ""))[:120],
                "name": str(option.get("name", ""))[:200],
                "kind": str(option.get("kind", ""))[:40],
            }
            for option in (options if isinstance(options, list) else [])[:10]
            if isinstance(option, dict)
        ]
        self._questions[request_id] = asyncio.get_running_loop().create_future()
        self._offered[request_id] = {option["id"] for option in offered}
        await self.recorder.put(
            EventKind.PERMISSION_REQUESTED,
            {
                "request_id": request_id,
                "tool_call": translate.tool_call(call if isinstance(call, dict) else {}),
                "options": offered,
            },
            size=size,
        )
        return {**message, "params": {"_request_id": request_id}}

    async def _handle(self, method: str, params: Any, is_notification: bool) -> Any:
        """Requests of the agent. We offer it no files and no terminal, so permissions are the only ones."""
        from acp.exceptions import RequestError

        if method == "session/request_permission" and isinstance(params, dict):
            request_id = params["_request_id"]
            try:
                outcome = await self._questions[request_id]
            finally:
                self._questions.pop(request_id, None)
                self._offered.pop(request_id, None)
            await self.recorder.put(
                EventKind.PERMISSION_RESOLVED,
                {
                    "request_id": request_id,
                    "outcome": outcome["outcome"],
                    "option_id": outcome.get("optionId", ""),
                },
            )
            return {"outcome": outcome}
        raise RequestError(JSONRPC_NO_METHOD, f"Method not found: {method[:100]}")

    # --- what goes to the agent -----------------------------------------------------------------------------

    async def open(self, session_id: str) -> None:
        """`initialize`, then resume or load `session_id`, or a new session. Raises AgentRefused, AgentGone."""
        from acp.connection import Connection

        self._connection = Connection(self._handle, self._transport)
        answer = await self._ask(
            "initialize",
            {
                "protocolVersion": PROTOCOL_VERSION,
                "clientCapabilities": {
                    "fs": {"readTextFile": False, "writeTextFile": False},
                    "terminal": False,
                },
                "clientInfo": {"name": "devaipod", "title": "devaipod", "version": "1"},
            },
            stage="initialize",
            seconds=INITIALIZE_SECONDS,
        )
        version = answer.get("protocolVersion")
        if version != PROTOCOL_VERSION:
            raise AgentRefused(
                "version",
                f"the agent speaks version {version} of the Agent Client Protocol, and we speak {PROTOCOL_VERSION}",
            )
        self._capabilities = _dict(answer.get("agentCapabilities"))
        info = _dict(answer.get("agentInfo"))
        await self.recorder.put(
            EventKind.AGENT_INITIALIZED,
            {
                "name": str(info.get("title") or info.get("name") or ""),
                "version": str(info.get("version", "")),
                "protocol_version": version,
                "capabilities": self._capabilities,
            },
        )
        await self._authenticate(answer)
        how, answer = await self._take_up(session_id) if session_id else ("", {})
        if not how:
            answer = await self._ask(
                "session/new", self._session_params(), stage="session", seconds=SESSION_SECONDS
            )
            self.session_id = str(answer.get("sessionId", ""))
            how = "new"
        await self._set_mode(answer)
        await self.recorder.put(
            EventKind.SESSION_STARTED,
            {
                "session_id": self.session_id,
                "how": how,
                "context_lost": bool(session_id) and how == "new",
            },
        )

    def _session_params(self) -> dict[str, Any]:
        return {"cwd": self.config["workspace"], "mcpServers": self.config["mcp_servers"]}

    async def _authenticate(self, offered: dict[str, Any]) -> None:
        """Choose the run's way to authenticate where the agent offers it. Nothing secret is sent: the gateway holds the keys.

        An agent that refuses is heard again when it is asked for a session: some refuse here and work all the same.
        """
        method = self.config.get("auth_method", "")
        methods = offered.get("authMethods")
        known = {_dict(one).get("id") for one in (methods if isinstance(methods, list) else [])}
        if not method or method not in known:
            return
        try:
            await self._ask(
                "authenticate", {"methodId": method}, stage="session", seconds=SESSION_SECONDS
            )
        except AgentRefused as error:
            await self._note(f"The agent did not take the authentication {method}: {error}")

    async def _set_mode(self, answer: dict[str, Any]) -> None:
        """Put the session into the mode that the run's permission policy means, unless it is in it."""
        mode = self.config.get("session_mode", "")
        modes = _dict(answer.get("modes"))
        if not mode or modes.get("currentModeId") == mode:
            return
        offered = modes.get("availableModes")
        ids = [_dict(one).get("id") for one in (offered if isinstance(offered, list) else [])]
        why = f"it offers {', '.join(map(str, ids))}" if ids else "it offers none"
        if mode in ids:
            try:
                await self._ask(
                    "session/set_mode",
                    {"sessionId": self.session_id, "modeId": mode},
                    stage="session",
                    seconds=SESSION_SECONDS,
                )
            except AgentRefused as error:
                why = str(error)
            else:
                return
        await self._note(f"The agent is not in its session mode {mode}: {why}.")

    async def _note(self, message: str) -> None:
        await self.recorder.put(
            EventKind.SIDECAR_NOTE, {"level": "warning", "message": message[:1000]}
        )

    async def _take_up(self, session_id: str) -> tuple[str, dict[str, Any]]:
        """Resume or load an earlier session; returns how and the answer, or an empty string when neither works."""
        params = {"sessionId": session_id, **self._session_params()}
        resume = _dict(self._capabilities.get("sessionCapabilities")).get("resume") is not None
        ways = [("session/resume", "resumed", resume)]
        ways.append(("session/load", "loaded", bool(self._capabilities.get("loadSession"))))
        for method, how, offered in ways:
            if not offered:
                continue
            try:
                answer = await self._ask(method, params, stage="session", seconds=SESSION_SECONDS)
            except AgentRefused:
                continue
            self.session_id = session_id
            return how, answer
        return "", {}

    async def prompt(self, text: str) -> str:
        """One turn; returns ACP's stop reason. Raises AgentRefused, AgentGone."""
        self.cancelling = False
        try:
            answer = await self._ask(
                "session/prompt",
                {"sessionId": self.session_id, "prompt": [{"type": "text", "text": text}]},
                stage="prompt",
                seconds=None,
            )
        except AgentRefused:
            if not self.cancelling:
                raise
            return "cancelled"  # some agents answer a cancelled prompt with an error
        finally:
            self._close_questions()
        return str(answer.get("stopReason") or "end_turn")[:40]

    async def cancel(self) -> None:
        """Ask the agent to end its turn; open questions are answered as cancelled (ACP, prompt-turn: cancellation)."""
        if self._connection is None or not self.session_id or self.gone.is_set():
            return
        self.cancelling = True
        await self._connection.send_notification("session/cancel", {"sessionId": self.session_id})
        self._close_questions()

    def _close_questions(self) -> None:
        for request_id in list(self._questions):
            self.answer(request_id, {"outcome": "cancelled"})

    def answer(self, request_id: str, outcome: dict[str, Any]) -> bool:
        """Answer a question of the agent's; False when there is none of that id."""
        future = self._questions.get(request_id)
        if future is None or future.done():
            return False
        if "optionId" in outcome and outcome["optionId"] not in self._offered[request_id]:
            return False
        future.set_result(outcome)
        return True

    async def _ask(
        self, method: str, params: dict[str, Any], *, stage: str, seconds: float | None
    ) -> dict[str, Any]:
        from acp.exceptions import RequestError

        assert self._connection is not None
        request = asyncio.ensure_future(self._connection.send_request(method, params))
        gone = asyncio.ensure_future(self.gone.wait())
        started = time.monotonic()
        try:
            await asyncio.wait(
                {request, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if request.done():
                answer = request.result()
                return answer if isinstance(answer, dict) else {}
        except RequestError as error:
            raise AgentRefused(stage, str(error)[:1000], int(error.code or 0)) from error
        except ConnectionError as error:
            raise AgentGone(str(error)) from error
        finally:
            request.cancel()
            gone.cancel()
        if self.gone.is_set():
            raise AgentGone("the agent closed its end")
        raise AgentRefused(
            stage, f"no answer to {method} within {time.monotonic() - started:.0f} s"
        )


def _load(line: bytes) -> Any:
    value = json.loads(line, parse_constant=_no_number)
    brackets = line.count(b"[") + line.count(b"{")
    return translate.flattened(value) if brackets > translate.MAX_DEPTH else value


def _no_number(_: str) -> None:
    """NaN and the infinities are no JSON; the next reader may refuse them."""


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
