"""From ACP's session updates to our own payloads: pure functions, so that a new kind of update is one row here.

ACP: https://agentclientprotocol.com/protocol/prompt-turn and the schema of protocol version 1.
"""

from __future__ import annotations

import json
from typing import Any

from pods.sidecar.protocol import MAX_PAYLOAD_BYTES, EventKind

#: A raw frame above this is not kept beside the payload.
MAX_RAW_BYTES = 256 * 1024
#: Deeper values are cut: writing them as JSON again would exhaust the stack, here or in the next reader.
MAX_DEPTH = 60
MAX_PLAN_ENTRIES = 100
TOOL_FIELDS = {
    "title": "title",
    "kind": "kind",
    "status": "status",
    "rawInput": "input",
    "rawOutput": "output",
    "content": "content",
    "locations": "locations",
}
CHUNKS = {
    "agent_message_chunk": EventKind.MESSAGE,
    "agent_thought_chunk": EventKind.THOUGHT,
    "user_message_chunk": EventKind.USER_MESSAGE,
}


def chunk(update: dict[str, Any]) -> tuple[EventKind, str, str] | None:
    """(kind, message id or empty, text) of a piece of text, or None when the update is none."""
    kind = CHUNKS.get(str(update.get("sessionUpdate")))
    if kind is None:
        return None
    content = update.get("content")
    content = content if isinstance(content, dict) else {}
    if content.get("type") == "text":
        text = str(content.get("text", ""))
    else:
        # Images and resources are named, never loaded.
        text = f"[{content.get('type', 'content')}: {content.get('uri') or content.get('mimeType') or ''}]"
    return kind, str(update.get("messageId") or ""), text


def payload(update: dict[str, Any]) -> tuple[EventKind, dict[str, Any]]:
    """Kind and payload of any other update; one that we do not know is passed on whole."""
    what = update.get("sessionUpdate")
    match what:
        case "tool_call" | "tool_call_update":
            kind = EventKind.TOOL_CALL if what == "tool_call" else EventKind.TOOL_CALL_UPDATE
            return kind, tool_call(update)
        case "plan":
            entries = update.get("entries")
            return EventKind.PLAN, {"entries": entries if isinstance(entries, list) else []}
        case "usage_update":
            return EventKind.USAGE, {k: update.get(k) for k in ("used", "size", "cost")}
        case "current_mode_update":
            return EventKind.MODE, {"mode": str(update.get("currentModeId", ""))}
        case "available_commands_update":
            commands = update.get("availableCommands")
            return EventKind.COMMANDS, {"commands": commands if isinstance(commands, list) else []}
    return EventKind.ACP_OTHER, {"update": update}


def planned(update: dict[str, Any]) -> list[dict[str, str]]:
    """The plan that an agent keeps by a tool of its own (OpenCode's `todowrite` sends no ACP plan), as ACP's entries; else empty."""
    given = update.get("rawInput")
    todos = given.get("todos") if isinstance(given, dict) else None
    if not isinstance(todos, list) or not 0 < len(todos) <= MAX_PLAN_ENTRIES:
        return []
    if not all(isinstance(todo, dict) and "content" in todo and "status" in todo for todo in todos):
        return []
    return [
        {
            "content": str(todo["content"])[:500],
            "status": str(todo["status"])[:20],
            "priority": str(todo.get("priority", "medium"))[:20],
        }
        for todo in todos
    ]


def tool_call(update: dict[str, Any]) -> dict[str, Any]:
    """The fields of a tool call that are there, under our names."""
    found = {ours: update[theirs] for theirs, ours in TOOL_FIELDS.items() if theirs in update}
    return {"tool_call_id": str(update.get("toolCallId", "")), **found}


def bounded(
    value: dict[str, Any], *, size: int | None = None, limit: int = MAX_PAYLOAD_BYTES
) -> dict[str, Any]:
    """The payload with its longest strings cut so that its JSON stays below `limit` bytes, and `truncated`, `bytes` beside them.

    `size` is that of the frame it came in, where it is known: an ordinary one is then not measured again.
    """
    if size is not None and size * 6 <= limit:  # a byte becomes six at most, as \\u001f
        return value
    size = len(json.dumps(value))
    if size <= limit:
        return value
    for keep in (limit // 8, limit // 64, 2000, 200):
        cut = _cut(value, keep, 0)
        if len(json.dumps(cut)) <= limit:
            return {**cut, "truncated": True, "bytes": size}
    return {"truncated": True, "bytes": size}


def flattened(value: Any) -> Any:
    """The value without what lies deeper than MAX_DEPTH."""
    return _cut(value, MAX_PAYLOAD_BYTES, 0) if _is_deep(value) else value


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True


def _cut(value: Any, keep: int, depth: int) -> Any:
    if depth > MAX_DEPTH:
        return None
    if isinstance(value, str):
        return value if len(value) <= keep else value[:keep] + "…"
    if isinstance(value, list):
        return [_cut(item, keep, depth + 1) for item in value[:1000]]
    if isinstance(value, dict):
        return {str(k)[:200]: _cut(v, keep, depth + 1) for k, v in list(value.items())[:1000]}
    return value


def raw_frame(frame: dict[str, Any], size: int) -> Any:
    """The raw frame when it is small enough to be kept beside its payload."""
    return frame if size <= MAX_RAW_BYTES else {"truncated": True, "bytes": size}
