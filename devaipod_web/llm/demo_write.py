"""The scripted demo's reply in every wire form, whole and as a stream at a pace that people can follow."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from typing import Any

from devaipod_web.llm.demo import MODEL, Reply
from devaipod_web.llm.demo_script import LABEL, Step

#: The pace of a stream: so many words, then a pause of so many seconds.
WORDS_AT_ONCE = 12
PAUSE_SECONDS = 0.03


def whole(form: str, said: Reply) -> dict[str, Any]:
    """The reply as one object."""
    return _WHOLE[form](said)


def counted(form: str, said: Reply) -> dict[str, Any]:
    """The answer to a count of tokens."""
    name = "totalTokens" if form == "gemini" else "input_tokens"
    return {name: said.tokens_in}


async def stream(form: str, said: Reply) -> AsyncGenerator[bytes, None]:
    """The reply as server-sent events."""
    for event in _EVENTS[form](said):
        if event is None:
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            yield event


def _pieces(text: str) -> Iterator[str]:
    words = re.findall(r"\S+\s*", text)
    for start in range(0, len(words), WORDS_AT_ONCE):
        yield "".join(words[start : start + WORDS_AT_ONCE])


def _halves(step: Step) -> tuple[str, str]:
    arguments = json.dumps(step.arguments)
    return arguments[: len(arguments) // 2], arguments[len(arguments) // 2 :]


def _data(value: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _named(value: Mapping[str, Any]) -> bytes:
    return f"event: {value['type']}\n".encode() + _data(value)


# --- OpenAI chat ----------------------------------------------------------------------------------------------


def _chat_whole(said: Reply) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": said.step.text}
    if said.step.tool:
        message["tool_calls"] = [_chat_call(said.step)]
    choice = {"index": 0, "message": message, "finish_reason": _finish(said), "logprobs": None}
    return {**_chat_frame("chat.completion"), "choices": [choice], "usage": _chat_usage(said)}


def _chat_events(said: Reply) -> Iterator[bytes | None]:
    frame = _chat_frame("chat.completion.chunk")

    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choices = [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]
        return _data({**frame, "choices": choices})

    yield chunk({"role": "assistant", "content": ""})
    for piece in _pieces(said.step.text):
        yield chunk({"content": piece})
        yield None
    if said.step.tool:
        call = _chat_call(said.step)
        call["function"]["arguments"] = ""
        yield chunk({"tool_calls": [{"index": 0, **call}]})
        for half in _halves(said.step):
            yield chunk({"tool_calls": [{"index": 0, "function": {"arguments": half}}]})
            yield None
    yield chunk({}, _finish(said))
    yield _data({**frame, "choices": [], "usage": _chat_usage(said)})
    yield b"data: [DONE]\n\n"


def _chat_frame(kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-demo-{secrets.token_hex(8)}",
        "object": kind,
        "created": int(time.time()),
        "model": MODEL,
        "system_fingerprint": LABEL,
    }


def _chat_call(step: Step) -> dict[str, Any]:
    return {
        "id": f"call_{secrets.token_hex(12)}",
        "type": "function",
        "function": {"name": step.tool, "arguments": json.dumps(step.arguments)},
    }


def _finish(said: Reply) -> str:
    return "tool_calls" if said.step.tool else "stop"


def _chat_usage(said: Reply) -> dict[str, int]:
    return {
        "prompt_tokens": said.tokens_in,
        "completion_tokens": said.tokens_out,
        "total_tokens": said.tokens_in + said.tokens_out,
    }


# --- OpenAI responses -----------------------------------------------------------------------------------------


def _response_whole(said: Reply) -> dict[str, Any]:
    return {**_response(), "status": "completed", **_response_end(said, list(_items(said)))}


def _response_events(said: Reply) -> Iterator[bytes | None]:
    response = _response()
    number = 0

    def event(kind: str, **more: Any) -> bytes:
        nonlocal number
        number += 1
        return _named({"type": f"response.{kind}", "sequence_number": number - 1, **more})

    yield event("created", response=response)
    yield event("in_progress", response=response)
    items = list(_items(said))
    for index, item in enumerate(items):
        place = {"item_id": item["id"], "output_index": index}
        if item["type"] == "message":
            part = item["content"][0]
            empty = {**item, "status": "in_progress", "content": []}
            yield event("output_item.added", output_index=index, item=empty)
            yield event("content_part.added", **place, content_index=0, part={**part, "text": ""})
            for piece in _pieces(part["text"]):
                yield event("output_text.delta", **place, content_index=0, delta=piece, logprobs=[])
                yield None
            done = {"content_index": 0, "text": part["text"], "logprobs": []}
            yield event("output_text.done", **place, **done)
            yield event("content_part.done", **place, content_index=0, part=part)
        elif item["type"] == "custom_tool_call":
            empty = {**item, "status": "in_progress", "input": ""}
            yield event("output_item.added", output_index=index, item=empty)
            yield event("custom_tool_call_input.delta", **place, delta=item["input"])
            yield event("custom_tool_call_input.done", **place, input=item["input"])
        else:
            empty = {**item, "status": "in_progress", "arguments": ""}
            yield event("output_item.added", output_index=index, item=empty)
            for half in _halves(said.step):
                yield event("function_call_arguments.delta", **place, delta=half)
                yield None
            arguments = {"arguments": item["arguments"], "name": item["name"]}
            yield event("function_call_arguments.done", **place, **arguments)
        yield event("output_item.done", output_index=index, item=item)
    yield event(
        "completed", response={**response, "status": "completed", **_response_end(said, items)}
    )


def _response() -> dict[str, Any]:
    return {
        "id": f"resp_demo_{secrets.token_hex(8)}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": MODEL,
        "output": [],
        "parallel_tool_calls": False,
        "tool_choice": "auto",
        "tools": [],
        "store": False,
        "usage": None,
    }


def _response_end(said: Reply, items: list[dict[str, Any]]) -> dict[str, Any]:
    usage = {
        "input_tokens": said.tokens_in,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": said.tokens_out,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": said.tokens_in + said.tokens_out,
    }
    return {"output": items, "usage": usage}


def _items(said: Reply) -> Iterator[dict[str, Any]]:
    if said.step.text or not said.step.tool:
        part = {"type": "output_text", "text": said.step.text, "annotations": [], "logprobs": []}
        yield {
            "id": f"msg_{secrets.token_hex(8)}",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [part],
        }
    if said.freeform:
        yield {
            "id": f"ctc_{secrets.token_hex(8)}",
            "type": "custom_tool_call",
            "status": "completed",
            "call_id": f"call_{secrets.token_hex(12)}",
            "name": said.step.tool,
            "input": said.step.arguments["input"],
        }
    elif said.step.tool:
        yield {
            "id": f"fc_{secrets.token_hex(8)}",
            "type": "function_call",
            "status": "completed",
            "call_id": f"call_{secrets.token_hex(12)}",
            "name": said.step.tool,
            "arguments": json.dumps(said.step.arguments),
        }


# --- Anthropic messages ---------------------------------------------------------------------------------------


def _message_whole(said: Reply) -> dict[str, Any]:
    usage = {"input_tokens": said.tokens_in, "output_tokens": said.tokens_out}
    return {
        **_message(),
        "content": list(_blocks(said)),
        "stop_reason": "tool_use" if said.step.tool else "end_turn",
        "usage": usage,
    }


def _message_events(said: Reply) -> Iterator[bytes | None]:
    usage = {"input_tokens": said.tokens_in, "output_tokens": 1}
    yield _named({"type": "message_start", "message": {**_message(), "usage": usage}})
    for index, block in enumerate(_blocks(said)):
        place = {"index": index}
        if block["type"] == "text":
            begins: dict[str, Any] = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in _pieces(block["text"])]
        else:
            begins = {**block, "input": {}}
            deltas = [
                {"type": "input_json_delta", "partial_json": half} for half in _halves(said.step)
            ]
        yield _named({"type": "content_block_start", **place, "content_block": begins})
        for delta in deltas:
            yield _named({"type": "content_block_delta", **place, "delta": delta})
            yield None
        yield _named({"type": "content_block_stop", **place})
    stop = "tool_use" if said.step.tool else "end_turn"
    ends = {"stop_reason": stop, "stop_sequence": None}
    used = {"output_tokens": said.tokens_out}
    yield _named({"type": "message_delta", "delta": ends, "usage": used})
    yield _named({"type": "message_stop"})


def _message() -> dict[str, Any]:
    return {
        "id": f"msg_demo_{secrets.token_hex(8)}",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _blocks(said: Reply) -> Iterator[dict[str, Any]]:
    if said.step.text or not said.step.tool:
        yield {"type": "text", "text": said.step.text}
    if said.step.tool:
        key = f"toolu_{secrets.token_hex(12)}"
        yield {"type": "tool_use", "id": key, "name": said.step.tool, "input": said.step.arguments}


# --- Gemini ---------------------------------------------------------------------------------------------------


def _gemini_whole(said: Reply) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"text": said.step.text}] if said.step.text else []
    return _gemini_answer(said, [*parts, *_gemini_call(said.step)], ends=True)


def _gemini_events(said: Reply) -> Iterator[bytes | None]:
    for piece in _pieces(said.step.text):
        yield _data(_gemini_answer(said, [{"text": piece}], ends=False))
        yield None
    parts = _gemini_call(said.step) or [{"text": ""}]
    yield _data(_gemini_answer(said, parts, ends=True))


def _gemini_answer(said: Reply, parts: list[dict[str, Any]], *, ends: bool) -> dict[str, Any]:
    candidate: dict[str, Any] = {"index": 0, "content": {"role": "model", "parts": parts}}
    if ends:
        candidate["finishReason"] = "STOP"
    received = said.tokens_out if ends else 1
    return {
        "candidates": [candidate],
        "usageMetadata": {
            "promptTokenCount": said.tokens_in,
            "candidatesTokenCount": received,
            "totalTokenCount": said.tokens_in + received,
        },
        "modelVersion": MODEL,
        "responseId": f"demo-{secrets.token_hex(8)}",
    }


def _gemini_call(step: Step) -> list[dict[str, Any]]:
    return [{"functionCall": {"name": step.tool, "args": step.arguments}}] if step.tool else []


_WHOLE: dict[str, Callable[[Reply], dict[str, Any]]] = {
    "openai-chat": _chat_whole,
    "openai-responses": _response_whole,
    "anthropic-messages": _message_whole,
    "gemini": _gemini_whole,
}
_EVENTS: dict[str, Callable[[Reply], Iterator[bytes | None]]] = {
    "openai-chat": _chat_events,
    "openai-responses": _response_events,
    "anthropic-messages": _message_events,
    "gemini": _gemini_events,
}
