#!/usr/bin/env python3
"""An ACP agent that answers a prompt with a flood of updates, unknown kinds, junk, huge and malformed frames.

The prompt is a JSON object: {"updates": N, "big": bytes of one frame, "too_big": bytes of another}.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def send(message: dict[str, Any]) -> None:
    """One frame; flushed by the caller."""
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")


def update(**fields: Any) -> None:
    """A session/update."""
    send({"method": "session/update", "params": {"sessionId": "s", "update": fields}})


def flood(plan: dict[str, Any]) -> None:
    """Interleaved: a message chunk, a tool call, an unknown kind, junk, by turns, each with its number."""
    for n in range(plan.get("updates", 0)):
        match n % 4:
            case 0:
                text = {"type": "text", "text": f"[{n}]"}
                update(sessionUpdate="agent_message_chunk", content=text)
            case 1:
                update(sessionUpdate="tool_call", toolCallId=f"t{n}", title=f"[{n}]")
            case 2:
                update(sessionUpdate="of_tomorrow", number=f"[{n}]")
            case 3:
                sys.stdout.write(f"junk [{n}]\n")
    if plan.get("odd"):
        for line in (
            '{"id": [1], "result": 1}',
            '{"id": 1, "error": "text"}',
            '{"id": 77, "error": {"code": "x"}}',
            '{"method": 5, "id": 1}',
            '{"method": "x", "id": {"a": 1}}',
            '{"method": "session/update", "params": [1]}',
            '{"jsonrpc": "2.0", "method": "session/request_permission", "id": 9, "params": null}',
            "[1, 2]",
            "null",
            '{"method": "of/tomorrow", "params": {"n": NaN}}',
            "[" * 200_000,
            '{"a":' * 500 + "1" + "}" * 500,
            '{"method":"session/update","params":{"update":{"sessionUpdate":"x","d":'
            + "[" * 800
            + "]" * 800
            + "}}}",
            "\udcff\udcfe".encode("utf-8", "surrogateescape").decode("latin-1"),
        ):
            sys.stdout.write(line + "\n")
    if plan.get("big"):
        text = {"type": "text", "text": "x" * plan["big"]}
        update(sessionUpdate="tool_call", toolCallId="big", title="big", content=[text])
    if plan.get("too_big"):
        sys.stdout.write("y" * plan["too_big"] + "\n")
    text = {"type": "text", "text": "the end"}
    update(sessionUpdate="agent_message_chunk", content=text)
    sys.stdout.flush()


for line in sys.stdin:
    message = json.loads(line)
    match message.get("method"):
        case "initialize":
            result: Any = {
                "protocolVersion": 1,
                "agentCapabilities": {"sessionCapabilities": {"resume": {}}},
            }
        case "session/new":
            result = {"sessionId": "s"}
        case "session/prompt":
            flood(json.loads(message["params"]["prompt"][0]["text"]))
            result = {"stopReason": "end_turn"}
        case "session/resume":
            result = {}
        case _:
            continue
    send({"id": message["id"], "result": result})
    sys.stdout.flush()
