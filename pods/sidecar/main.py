"""The sidecar's life: dial, be told the run, make the workspace, open the FIFOs, serve the agent, stage the work.

Exit codes: 0 told to stop and everything acknowledged; 3 no workspace; 4 refused by the gateway; 5 the agent's side failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib
import os
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pods.sidecar import fifo, leftovers, making
from pods.sidecar.gitrun import GitFailed
from pods.sidecar.link import Link, Refused
from pods.sidecar.making import OUTPUT_CHARACTERS, folder
from pods.sidecar.outbox import MAX_BYTES, Outbox
from pods.sidecar.process import NotRead, Process
from pods.sidecar.protocol import COMMAND, CommandKind, EventKind, RunConfig, Tokens
from pods.sidecar.recorder import Recorder
from pods.sidecar.session import CANCEL_SECONDS, AgentGone, AgentRefused, Session
from pods.sidecar.state import State
from pods.sidecar.workspace import Workspace
from pods.spec import PROXY_PORT, STATE_DIR, STDIO_DIR, TOKEN_DIR

if TYPE_CHECKING:
    from pods.sidecar.proxy import Proxy

EXIT_NO_WORKSPACE = 3
EXIT_REFUSED = 4
EXIT_AGENT = 5
TOKEN_WAIT_SECONDS = 5.0
ACKNOWLEDGE_SECONDS = 10
TOLD_SECONDS = 1.0
#: A sidecar whose agent is gone waits to be told what becomes of the run.
ORPHAN_SECONDS = 120
STOP_CANCEL_SECONDS = 10
#: After SIGTERM the container has its own grace; staging must fit into it.
TERM_CANCEL_SECONDS = 2


def read_tokens(folder: Path) -> Tokens:
    """The run's two tokens, waiting a moment for a mount that is still being filled. Raises FileNotFoundError."""
    end = time.monotonic() + TOKEN_WAIT_SECONDS
    while True:
        try:
            control, data = ((folder / name).read_text().strip() for name in ("control", "data"))
            return Tokens(control=control, data=data)
        except FileNotFoundError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


class Sidecar:
    """One attempt of a run."""

    def __init__(self, tokens: Tokens) -> None:
        state_dir = folder("DEVAIPOD_STATE_DIR", STATE_DIR)
        # Numbers belong to the attempt, and so does its token.
        self.attempt = name = hashlib.sha256(tokens.control.encode()).hexdigest()[:16]
        self.state = State(state_dir / "state.json")
        self.outbox = Outbox(
            state_dir / "outbox" / name,
            max_bytes=int(os.environ.get("DEVAIPOD_OUTBOX_BYTES", MAX_BYTES)),
        )
        self.own = state_dir / "work.git"
        self.data_token = tokens.data
        self.link = Link(
            self.outbox,
            token=tokens.control,
            last_command=lambda: self.state.last_command,
            on_command=self.take,
        )
        self.turns: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.taken: set[int] = set()
        self.inputs: set[asyncio.Task[None]] = set()
        self.session: Session | None = None
        self.process: Process | None = None
        self.workspace: Workspace | None = None
        self.recorder: Recorder | None = None
        self.stopping = asyncio.Event()
        self.stop_command: dict[str, Any] | None = None
        self.quick = False
        self.turn = 0
        self.turn_running = False
        self.turn_open = False
        self.staged_head = ""

    async def run(self) -> int:
        """Everything, from the first dial to the last acknowledgement; returns the exit code."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._terminated)
        link = asyncio.create_task(self.link.run(), name="link")
        sync = asyncio.create_task(self.outbox.keep_synced(), name="sync")
        await asyncio.sleep(0)  # dial first: what the proxy imports comes while the gateway answers
        proxy = importlib.import_module("pods.sidecar.proxy")
        self.proxy: Proxy = proxy.Proxy(
            self.data_token, port=int(os.environ.get("DEVAIPOD_PROXY_PORT", PROXY_PORT))
        )
        await self.proxy.start()
        work = asyncio.create_task(self._work(), name="work")
        try:
            await asyncio.wait({link, work}, return_when=asyncio.FIRST_COMPLETED)
            if link.done() and not work.done():
                link.result()  # it ends by Refused alone
            return await work
        except Refused as error:
            print(f"refused: {error}", flush=True)
            return EXIT_REFUSED
        finally:
            for task in (work, link, sync):
                task.cancel()
            await asyncio.gather(work, link, sync, return_exceptions=True)
            await self.proxy.stop()
            self.outbox.close()

    def _terminated(self) -> None:
        self.quick = True
        self.stopping.set()

    async def _work(self) -> int:
        config = await self._until_stopped(self.link.config)
        if config is None:
            return 0
        await leftovers.carry_over(self.outbox)
        self.recorder = Recorder(self.outbox, config)
        made = asyncio.create_task(self._make_workspace(config), name="workspace")
        stopped = asyncio.create_task(self.stopping.wait())
        await asyncio.wait({made, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not made.done():
            # Told to stop while the clone was under way: no agent has been here, there is nothing to stage.
            made.cancel()
            await asyncio.gather(made, return_exceptions=True)
            await self._say_stopped()
            await self.outbox.wait_acked(ACKNOWLEDGE_SECONDS)
            return 0
        if not made.result():
            await self.outbox.wait_acked(ACKNOWLEDGE_SECONDS)
            return EXIT_NO_WORKSPACE
        # The SDK takes most of a second to import (pydantic builds its models): not while the clone passes through this
        # process, but when it is known over there that the agent may start, and while it does.
        await self.outbox.wait_acked(TOLD_SECONDS)
        stdio = folder("DEVAIPOD_STDIO_DIR", STDIO_DIR)
        if config["agent"] == COMMAND:
            serving = self._serve_command(stdio)
        else:
            await asyncio.to_thread(_import_acp)
            serving = self._serve_agent(config, stdio)
        agent = asyncio.create_task(serving, name="agent")
        await asyncio.wait({agent, stopped}, return_when=asyncio.FIRST_COMPLETED)
        code = 0
        if agent.done():
            code = agent.result()
            if not self.stopping.is_set():
                # What the supervisor makes of it comes as a stop, or as the pod's end.
                await asyncio.wait({stopped}, timeout=ORPHAN_SECONDS)
        else:
            await self._stop(agent)
        stopped.cancel()
        await self._say_stopped()
        await self.outbox.wait_acked(ACKNOWLEDGE_SECONDS)
        return 0 if self.stopping.is_set() else code

    async def _until_stopped(self, future: asyncio.Future[RunConfig]) -> RunConfig | None:
        stopped = asyncio.create_task(self.stopping.wait())
        stopped.add_done_callback(lambda _: future.done() or future.cancel())
        try:
            return await future
        except asyncio.CancelledError:
            if not self.stopping.is_set():
                raise
            return None
        finally:
            stopped.cancel()

    # --- the workspace --------------------------------------------------------------------------------------

    async def _make_workspace(self, config: RunConfig) -> bool:
        self.workspace = making.workspace_of(config, own=self.own, port=self.proxy.port)
        return await making.make(
            self.workspace, state=self.state, outbox=self.outbox, attempt=self.attempt
        )

    async def _stage(self, turn: int, *, again: bool = True) -> None:
        """Bring the work to the staging forge and say so; failing to is said as well, and nothing is lost by it.

        Without `again` it is not said again when nothing has changed since.
        """
        assert self.workspace is not None
        assert self.recorder is not None
        try:
            staged = await self.workspace.stage()
        except (GitFailed, OSError) as error:
            output = getattr(error, "output", "") or str(error)
            await self.recorder.put(
                EventKind.WORK_FAILED,
                {"message": str(error), "output": output[-OUTPUT_CHARACTERS:], "turn": turn},
            )
            return
        for words in staged.notes:
            await self.recorder.put(
                EventKind.SIDECAR_NOTE, {"level": "warning", "message": words[:1000]}
            )
        if not again and staged.head == self.staged_head:
            return
        self.staged_head = staged.head
        await self.recorder.put(
            EventKind.WORK_STAGED,
            {
                "head": staged.head,
                "base": self.workspace.config["base"],
                "commits": staged.commits,
                "snapshot": staged.snapshot,
                "pushed": staged.pushed,
                "turn": turn,
            },
        )

    # --- the agent ------------------------------------------------------------------------------------------

    async def _serve_agent(self, config: RunConfig, stdio: Path) -> int:
        """Open the session and play turns until the agent is gone; returns the exit code."""
        assert self.recorder is not None
        try:
            lines = fifo.Lines(fifo.open_fifo(stdio / "out", os.O_RDONLY))
            writer = fifo.Writer(fifo.open_fifo(stdio / "in", os.O_RDWR))
        except fifo.NotAFifo as error:
            await self.recorder.put(
                EventKind.AGENT_REFUSED, {"stage": "initialize", "message": str(error), "code": 0}
            )
            return EXIT_AGENT
        self.session = session = Session(config, self.recorder, lines, writer)
        try:
            await self._wait_for_agent(session, lines, config)
            while True:
                await self._play(session, await self._next_turn(session))
        except AgentRefused as error:
            await self.recorder.put(
                EventKind.AGENT_REFUSED,
                {"stage": error.stage, "message": str(error), "code": error.code},
            )
            await self._stage(self.turn)
            return EXIT_AGENT
        except AgentGone:
            await self._stage(self.turn)
            await self.recorder.put(EventKind.AGENT_EXITED, {})
            return EXIT_AGENT

    async def _wait_for_agent(self, session: Session, lines: fifo.Lines, config: RunConfig) -> None:
        """`initialize` waits in the FIFO until the agent is started; its time runs from there."""
        earlier = config["session_id"] or self.state.session_id
        await lines.wait_writer()
        await session.open(earlier)
        self.state.session_id = session.session_id
        self.state.save()

    async def _next_turn(self, session: Session) -> dict[str, Any]:
        waiting = asyncio.ensure_future(self.turns.get())
        gone = asyncio.ensure_future(session.gone.wait())
        try:
            await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
            raise AgentGone("the agent closed its end")
        finally:
            waiting.cancel()
            gone.cancel()

    async def _play(self, session: Session, command: dict[str, Any]) -> None:
        """One turn: the prompt, what the agent does, and the staging of what it left."""
        assert self.recorder is not None
        payload = command["payload"]
        self.turn = int(payload.get("turn") or 0)
        started = time.monotonic()
        text = str(payload.get("text", ""))
        await self.recorder.put(EventKind.TURN_STARTED, {"turn": self.turn, "text": text[:2000]})
        await self._applied(command)
        self.turn_running = self.turn_open = True
        self.staged_head = ""
        try:
            reason = await session.prompt(text)
        finally:
            self.turn_running = False
        seconds = round(time.monotonic() - started, 3)
        await self.recorder.put(
            EventKind.TURN_ENDED, {"turn": self.turn, "stop_reason": reason, "seconds": seconds}
        )
        self.turn_open = False
        await self.recorder.say_dropped()
        await self._stage(self.turn)

    # --- a command ------------------------------------------------------------------------------------------

    async def _serve_command(self, stdio: Path) -> int:
        """Have the run's program run once, say how it ended, stage, and wait to be told to stop; returns the exit code."""
        assert self.recorder is not None
        try:
            self.process = process = Process(stdio)
        except fifo.NotAFifo as error:
            await self.recorder.put(
                EventKind.AGENT_REFUSED, {"stage": "initialize", "message": str(error), "code": 0}
            )
            return EXIT_AGENT
        if not self.state.ended and not await process.ready():
            await self.recorder.put(EventKind.AGENT_EXITED, {})
            return EXIT_AGENT
        await self.recorder.put(
            EventKind.SESSION_STARTED, {"session_id": "", "how": "new", "context_lost": False}
        )
        while True:
            command = await self.turns.get()
            self.turn = int(command["payload"].get("turn") or 0)
            await self.recorder.put(EventKind.TURN_STARTED, {"turn": self.turn, "text": ""})
            await self._applied(command)
            await self._execute(process)
            await self._stage(self.turn)

    async def _execute(self, process: Process) -> None:
        assert self.recorder is not None
        self.turn_running = self.turn_open = True
        started = time.monotonic()
        if not self.state.ended:
            code = await process.run()
            # Before it is said: an attempt that finds this does not run the program a second time.
            self.state.ended = {} if code is None else {"exit_code": code}
            self.state.save()
        self.turn_running = False
        seconds = round(time.monotonic() - started, 3)
        await self.recorder.put(
            EventKind.TURN_ENDED,
            {"turn": self.turn, "stop_reason": "exited", "seconds": seconds, **self.state.ended},
        )
        self.turn_open = False

    async def _stop(self, agent: asyncio.Task[int]) -> None:
        """Cancel the turn, give the agent a moment, and stage what is there."""
        seconds = TERM_CANCEL_SECONDS if self.quick else STOP_CANCEL_SECONDS
        if self.turn_running:
            if self.process is not None:
                await self.process.end(seconds=seconds)
                seconds = 1  # for its end to be said
            elif self.session is not None:
                with contextlib.suppress(ConnectionError):
                    await self.session.cancel()
            end = time.monotonic() + seconds
            while self.turn_open and not agent.done() and time.monotonic() < end:
                await asyncio.sleep(0.05)
        agent.cancel()
        await asyncio.gather(agent, return_exceptions=True)
        if self.turn_open:
            # It did not obey; what it has done so far is staged all the same.
            assert self.recorder is not None
            await self.recorder.put(
                EventKind.TURN_ENDED, {"turn": self.turn, "stop_reason": "cancelled", "seconds": 0}
            )
            self.turn_open = False
        await self._stage(self.turn, again=False)

    # --- commands -------------------------------------------------------------------------------------------

    async def take(self, command: dict[str, Any]) -> None:
        """One command from the gateway: once by number, a prompt when its turn comes, the others at once."""
        number = int(command["number"])
        if number in self.state.done or number in self.taken:
            return
        self.taken.add(number)
        match command.get("kind"):
            case CommandKind.PROMPT:
                self.turns.put_nowait(command)
            case CommandKind.PERMISSION:
                await self._answer(command)
            case CommandKind.CANCEL:
                await self._cancel(command)
            case CommandKind.INPUT:
                # In a task: a program that does not read must not hold up a stop.
                task = asyncio.create_task(self._input(command))
                self.inputs.add(task)
                task.add_done_callback(self.inputs.discard)
            case CommandKind.STOP:
                self.stop_command = command
                self.stopping.set()
            case kind:
                await self._refused(command, f"This sidecar does not know the command {kind!r}.")

    async def _answer(self, command: dict[str, Any]) -> None:
        payload = command["payload"]
        outcome: dict[str, Any] = {"outcome": "cancelled"}
        if payload.get("outcome") == "selected":
            outcome = {"outcome": "selected", "optionId": str(payload.get("option_id", ""))}
        if self.session and self.session.answer(str(payload.get("request_id", "")), outcome):
            await self._applied(command)
        else:
            await self._refused(command, "The agent asks no such question any more.")

    async def _input(self, command: dict[str, Any]) -> None:
        if self.process is None or not self.turn_running:
            await self._refused(command, "No command is running.")
            return
        try:
            await self.process.write(str(command["payload"].get("text", "")))
        except NotRead as error:
            await self._refused(command, str(error))
        else:
            await self._applied(command)

    async def _cancel(self, command: dict[str, Any]) -> None:
        if self.process is not None and self.turn_running:
            await self.process.signal("INT")
            await self._applied(command)
            return
        if self.session is None or not self.turn_running:
            await self._refused(command, "No turn is running.")
            return
        await self.session.cancel()
        await self._applied(command)
        asyncio.get_running_loop().call_later(CANCEL_SECONDS, self._insist, self.turn)

    def _insist(self, turn: int) -> None:
        """An agent that ignores a cancel ends with its attempt; the supervisor starts a new one on the next prompt."""
        if self.turn_running and self.turn == turn:
            print(
                f"the agent did not end turn {turn} within {CANCEL_SECONDS} s of its cancel",
                flush=True,
            )
            self.quick = True
            self.stopping.set()

    async def _applied(self, command: dict[str, Any]) -> None:
        await self.outbox.put(EventKind.COMMAND_APPLIED, {"command": command["id"]}, urgent=True)
        self.state.did(int(command["number"]))

    async def _refused(self, command: dict[str, Any], reason: str) -> None:
        await self.outbox.put(
            EventKind.COMMAND_REFUSED, {"command": command["id"], "reason": reason}, urgent=True
        )
        self.state.did(int(command["number"]))

    async def _say_stopped(self) -> None:
        if self.stop_command is not None:
            await self._applied(self.stop_command)


def _import_acp() -> None:
    importlib.import_module("acp.connection")
    importlib.import_module("acp.exceptions")


def main() -> int:
    """Run one attempt; the container's exit code."""
    return begin(Sidecar)


def begin(kind: type[Sidecar]) -> int:
    """Run the sidecar, or the part of it that `kind` is; the container's exit code."""
    os.umask(0o007)
    if shutil.which("git") is None:
        print("git is not in the sidecar's image", flush=True)
        return EXIT_NO_WORKSPACE
    try:
        tokens = read_tokens(folder("DEVAIPOD_TOKEN_DIR", TOKEN_DIR))
    except OSError as error:
        print(f"the run's tokens cannot be read: {error}", flush=True)
        return EXIT_REFUSED

    async def live() -> int:
        return await kind(tokens).run()

    return asyncio.run(live())
