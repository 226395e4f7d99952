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
from pods.sidecar.outbox import Outbox
from pods.sidecar.protocol import EventKind, RunConfig

if TYPE_CHECKING:
    from acp.connection import Connection

PROTOCOL_VERSION = 1
INITIALIZE_SECONDS = 60
SESSION_SECONDS = 120
#: After a cancel the agent must end its turn (ACP, prompt-turn); one that does not is given up.
CANCEL_SECONDS = 10
BIG_FRAME = 1024 * 1024
JUNK_CHARACTERS = 2000
JSONRPC_NO_METHOD = -32601
#: Kinds that pass even when the run's limit of events is used up.
ALWAYS = frozenset(
    {
        *(
            EventKind.TURN_STARTED,
            EventKind.TURN_ENDED,
            EventKind.WORK_STAGED,
            EventKind.WORK_FAILED,
        ),
        *(EventKind.AGENT_EXITED, EventKind.AGENT_REFUSED, EventKind.SESSION_STARTED),
        *(EventKind.COMMAND_APPLIED, EventKind.COMMAND_REFUSED, EventKind.DROPPED),
        *(
            EventKind.PERMISSION_REQUESTED,
            EventKind.PERMISSION_RESOLVED,
            EventKind.AGENT_INITIALIZED,
        ),
    }
)


class AgentRefused(RuntimeError):
    """The agent said no, spoke another protocol, or said nothing in time."""

    def __init__(self, stage: str, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.stage = stage
        self.code = code


class AgentGone(RuntimeError):
    """The agent closed its end."""


class Recorder:
    """Writes the agent's events to the outbox, within the run's limits."""

    def __init__(self, outbox: Outbox, config: RunConfig) -> None:
        self.outbox = outbox
        self._events_left = config["max_events"]
        self._bytes_left = config["max_event_bytes"]
        self._dropped = 0
        self.silent = False

    async def put(self, kind: EventKind, payload: dict[str, Any], raw: Any = None) -> None:
        """Store an event; one beyond the limits is counted, and said once."""
        if self.silent and kind not in ALWAYS:
            return
        payload = translate.bounded(payload)
        size = len(json.dumps(payload)) + (len(json.dumps(raw)) if raw is not None else 0)
        self._events_left -= 1
        self._bytes_left -= size
        if (self._events_left < 0 or self._bytes_left < 0) and kind not in ALWAYS:
            self._dropped += 1
            if self._dropped == 1:
                reason = (
                    "The run's limit of events is used up; what the agent says is no longer kept."
                )
                await self.outbox.put(
                    EventKind.DROPPED, {"reason": reason, "count": 1, "bytes": size}
                )
            return
        await self.outbox.put(kind, payload, raw=raw)


class Transport:
    """What the SDK's `Connection` reads and writes: JSON-RPC frames, one a line (ACP, transports)."""

    def __init__(self, lines: Lines, writer: Writer, session: Session) -> None:
        self._lines = lines
        self._writer = writer
        self._session = session

    async def send(self, message: dict[str, Any]) -> None:
        """Write one frame."""
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
            if message is None:
                await self._session.junk(line)
            elif message.get("method") == "session/update" and "id" not in message:
                await self._session.update(message, len(line))
            elif await self._session.pass_on(message):
                return message

    async def _parse(self, line: bytes) -> dict[str, Any] | None:
        try:
            if len(line) > BIG_FRAME:
                value = await asyncio.to_thread(json.loads, line)
            else:
                value = json.loads(line)
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
        self.gone = asyncio.Event()
        self._merger = Merger(recorder.put)
        self._transport = Transport(lines, writer, self)
        self._questions: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._capabilities: dict[str, Any] = {}
        self._connection: Connection | None = None

    # --- what comes from the agent --------------------------------------------------------------------------

    async def update(self, frame: dict[str, Any], size: int) -> None:
        """One session/update."""
        params = frame.get("params")
        update = params.get("update") if isinstance(params, dict) else None
        if not isinstance(update, dict):
            await self.junk(json.dumps(frame)[:JUNK_CHARACTERS].encode())
            return
        piece = translate.chunk(update)
        if piece is not None:
            kind, message_id, text = piece
            await self._merger.add(kind, message_id, text)
            return
        await self._merger.flush()
        kind, payload = translate.payload(update)
        await self.recorder.put(kind, payload, translate.raw_frame(frame, size))

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

    async def pass_on(self, message: dict[str, Any]) -> bool:
        """Whether the SDK's connection is to see this message. A question is stored here, in its place among the updates."""
        await self._merger.flush()
        if message.get("method") != "session/request_permission" or "id" not in message:
            return True
        params = message.get("params")
        params = params if isinstance(params, dict) else {}
        call = params.get("toolCall")
        options = params.get("options")
        request_id = secrets.token_hex(8)
        params["_request_id"] = request_id
        message["params"] = params
        self._questions[request_id] = asyncio.get_running_loop().create_future()
        await self.recorder.put(
            EventKind.PERMISSION_REQUESTED,
            {
                "request_id": request_id,
                "tool_call": translate.tool_call(call if isinstance(call, dict) else {}),
                "options": [
                    {
                        "id": str(option.get("optionId", ""))[:120],
                        "name": str(option.get("name", ""))[:200],
                        "kind": str(option.get("kind", ""))[:40],
                    }
                    for option in (options if isinstance(options, list) else [])[:10]
                    if isinstance(option, dict)
                ],
            },
        )
        return True

    async def _handle(self, method: str, params: Any, is_notification: bool) -> Any:
        """Requests of the agent. We offer it no files and no terminal, so permissions are the only ones."""
        from acp.exceptions import RequestError

        if method == "session/request_permission" and isinstance(params, dict):
            request_id = params["_request_id"]
            outcome = await self._questions[request_id]
            self._questions.pop(request_id, None)
            await self.recorder.put(
                EventKind.PERMISSION_RESOLVED,
                {
                    "request_id": request_id,
                    "outcome": outcome["outcome"],
                    "option_id": outcome.get("optionId", ""),
                },
            )
            return {"outcome": outcome}
        if is_notification:
            await self.recorder.put(EventKind.ACP_OTHER, {"method": method[:100]})
            return None
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
                "initialize",
                f"the agent speaks version {version} of the Agent Client Protocol, and we speak {PROTOCOL_VERSION}",
            )
        self._capabilities = answer.get("agentCapabilities") or {}
        info = answer.get("agentInfo") or {}
        await self.recorder.put(
            EventKind.AGENT_INITIALIZED,
            {
                "name": str(info.get("title") or info.get("name") or ""),
                "version": str(info.get("version", "")),
                "protocol_version": version,
                "capabilities": self._capabilities,
            },
        )
        how = await self._take_up(session_id) if session_id else ""
        if not how:
            answer = await self._ask(
                "session/new", self._session_params(), stage="session", seconds=SESSION_SECONDS
            )
            self.session_id = str(answer.get("sessionId", ""))
            how = "new"
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

    async def _take_up(self, session_id: str) -> str:
        """Resume or load an earlier session; returns how, or an empty string when neither works."""
        params = {"sessionId": session_id, **self._session_params()}
        resume = (self._capabilities.get("sessionCapabilities") or {}).get("resume") is not None
        ways = [("session/resume", "resumed", resume)]
        ways.append(("session/load", "loaded", bool(self._capabilities.get("loadSession"))))
        for method, how, offered in ways:
            if not offered:
                continue
            # Updates before the answer are history that is stored already.
            self.recorder.silent = True
            try:
                await self._ask(method, params, stage="session", seconds=SESSION_SECONDS)
            except AgentRefused:
                continue
            finally:
                await self._merger.flush()
                self.recorder.silent = False
            self.session_id = session_id
            return how
        return ""

    async def prompt(self, text: str) -> str:
        """One turn; returns ACP's stop reason. Raises AgentRefused, AgentGone."""
        answer = await self._ask(
            "session/prompt",
            {"sessionId": self.session_id, "prompt": [{"type": "text", "text": text}]},
            stage="prompt",
            seconds=None,
        )
        await self._merger.flush()
        return str(answer.get("stopReason", "end_turn"))[:40]

    async def cancel(self) -> None:
        """Ask the agent to end its turn; open questions are answered as cancelled (ACP, prompt-turn: cancellation)."""
        if self._connection is None or not self.session_id or self.gone.is_set():
            return
        await self._connection.send_notification("session/cancel", {"sessionId": self.session_id})
        for request_id in list(self._questions):
            self.answer(request_id, {"outcome": "cancelled"})

    def answer(self, request_id: str, outcome: dict[str, Any]) -> bool:
        """Answer a question of the agent's; False when there is none of that id."""
        future = self._questions.get(request_id)
        if future is None or future.done():
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
