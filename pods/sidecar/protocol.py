"""What sidecar and gateway say to each other over `/sidecar`, one JSON object a websocket text frame.

The sidecar opens with `hello`; the gateway answers `welcome` or closes (4401 token refused, 4409 a newer
connection took over, 4426 protocol version not spoken). Then, in any order:

    sidecar → gateway   {"type": "events", "events": [Event, …]}     source_seq ascending, gapless
    gateway → sidecar   {"type": "ack", "source_seq": N}             everything up to N is committed
    gateway → sidecar   {"type": "command", "id": …, "number": N, "kind": …, "payload": {…}}
    either              {"type": "ping"} / {"type": "pong"}

Events are the one reliable channel: they wait in the sidecar's outbox on disk until they are acknowledged and are
sent again after a reconnect. What became of a command is an event too (`command.applied`, `command.refused`). Commands
are applied in the order of their `number`, once by `id`; after a reconnect the gateway sends again all that are not
applied or refused, and the sidecar passes over those it has done.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NotRequired, TypedDict

PROTOCOL_VERSION = 1
SPOKEN_VERSIONS = (1,)

#: A websocket frame between the two is at most this many bytes; a larger event's raw frame is cut and marked.
MAX_MESSAGE_BYTES = 8 * 1024 * 1024
#: One ACP frame from the agent may have this many bytes; a longer line becomes one `agent.oversize` event.
MAX_ACP_FRAME_BYTES = 64 * 1024 * 1024
#: Text of one event's payload above this is cut, with `truncated: true` and `bytes` beside it.
MAX_PAYLOAD_BYTES = 1024 * 1024

#: Words between the sidecar and the entry of a command's container (pods/command.py says how they are used).
COMMAND = "command"
ENTRY_READY, ENTRY_RUN, ENTRY_EXIT = "ready", "run", "exit"
SIGNALS = ("INT", "TERM", "KILL")

CLOSE_TOKEN_REFUSED = 4401
CLOSE_REPLACED = 4409
CLOSE_VERSION = 4426


class EventKind(StrEnum):
    """Kinds of events that a sidecar sends, with their payloads. Readers show kinds they do not know as a generic row."""

    WORKSPACE_READY = "workspace.ready"  # {head, branch, resumed: bool, seconds}
    WORKSPACE_FAILED = "workspace.failed"  # {message, next_step, output}
    AGENT_INITIALIZED = "agent.initialized"  # {name, version, protocol_version, capabilities}
    AGENT_REFUSED = "agent.refused"  # {stage: initialize|session|prompt, message, code}
    SESSION_STARTED = "session.started"  # {session_id, how: new|resumed|loaded, context_lost: bool}
    TURN_STARTED = "turn.started"  # {turn, text}
    TURN_ENDED = "turn.ended"  # {turn, stop_reason, seconds, exit_code?}
    MESSAGE = "message"  # {message_id, text} one merged piece; pieces of one id belong together
    THOUGHT = "thought"  # {message_id, text}
    USER_MESSAGE = "user_message"  # {message_id, text}
    TOOL_CALL = (
        "tool_call"  # {tool_call_id, title, kind, status, input, output, content, locations}
    )
    TOOL_CALL_UPDATE = "tool_call.update"  # {tool_call_id, …the changed fields only}
    PLAN = "plan"  # {entries: [{content, priority, status}]} the whole list each time
    USAGE = "usage"  # {used, size, cost}
    MODE = "mode"  # {mode}
    COMMANDS = "commands"  # {commands: [{name, description}]}
    PERMISSION_REQUESTED = (
        "permission.requested"  # {request_id, tool_call: {…}, options: [{id, name, kind}]}
    )
    PERMISSION_RESOLVED = (
        "permission.resolved"  # {request_id, outcome: selected|cancelled, option_id}
    )
    ACP_OTHER = "acp.other"  # {update} an update kind that we do not know
    AGENT_JUNK = "agent.junk"  # {line} a line on the agent's standard output that is not JSON-RPC
    AGENT_OVERSIZE = "agent.oversize"  # {bytes, head} a frame above MAX_ACP_FRAME_BYTES
    AGENT_EXITED = "agent.exited"  # {} the agent closed its end of the FIFOs
    WORK_STAGED = "work.staged"  # {head, base, commits, snapshot: bool, pushed: bool, turn}
    WORK_FAILED = "work.failed"  # {message, output} nothing could be pushed
    COMMAND_APPLIED = "command.applied"  # {command, result?}
    COMMAND_REFUSED = "command.refused"  # {command, reason}
    LIFECYCLE = "lifecycle"  # {command, exit_code, output} a devcontainer lifecycle command ran
    SIDECAR_NOTE = "sidecar.note"  # {level: info|warning|error, message}
    DROPPED = "dropped"  # {reason, count, bytes} events beyond the run's limit


class CommandKind(StrEnum):
    """Kinds of commands that the control plane sends, with their payloads."""

    PROMPT = "prompt"  # {turn, text}
    PERMISSION = "permission"  # {request_id, outcome: selected|cancelled, option_id}
    CANCEL = "cancel"  # {} end the present turn; of a command: SIGINT to all of its processes
    INPUT = "input"  # {text} to the standard input of an interactive command
    STOP = "stop"  # {reason} cancel, stage the work, then exit 0


class Event(TypedDict):
    """One event on the wire. `at` is RFC 3339 in UTC with microseconds; `raw` is the ACP frame that caused it."""

    source_seq: int
    kind: str
    v: int
    at: str
    payload: dict[str, Any]
    raw: NotRequired[Any]


class Hello(TypedDict):
    """The sidecar's first message. `last_command` is the number of the last command it has done, 0 for none."""

    type: str
    protocol: int
    pod: str
    last_source_seq: int
    last_command: int


class RunConfig(TypedDict):
    """What a sidecar is told of its run, in `welcome`.

    `remote` is the path below the gateway of the run's repository; `resume` says that the workspace was used
    before and must be neither cloned into nor re-owned; `session_id` is the ACP session to resume, or empty.
    `mcp_servers` are ACP's own objects. `auth_method` is the ACP method to authenticate with where the agent offers it, and
    `session_mode` the ACP session mode that the run's permission policy means to this agent; empty: none.
    Limits: `max_event_bytes` and `max_events` for the whole attempt.
    """

    run: str
    pod: str
    attempt: int
    workspace: str
    remote: str
    base: str
    branch: str
    author_name: str
    author_email: str
    resume: bool
    session_id: str
    mcp_servers: list[dict[str, Any]]
    agent: str
    auth_method: NotRequired[str]
    session_mode: NotRequired[str]
    max_events: int
    max_event_bytes: int
    push_bytes: int


class Welcome(TypedDict):
    """The gateway's answer. `acked` is the highest contiguous source_seq that is committed."""

    type: str
    protocol: int
    acked: int
    config: RunConfig


@dataclass(frozen=True)
class Tokens:
    """The two run tokens as the sidecar reads them from `TOKEN_DIR`: files `control` and `data`."""

    control: str
    data: str
