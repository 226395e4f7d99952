"""Conversations of every wire form as one in OpenAI's chat form, for the scripted demo. What is malformed is passed over."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from devaipod_web.llm.demo import own_words
from devaipod_web.llm.demo_tools import objects

Request = dict[str, Any]


def conversation(form: str, request: Mapping[str, Any]) -> Request:
    """The request of this form with `messages` and `tools` as OpenAI's chat form has them."""
    return READERS[form](request)


def _chat(request: Mapping[str, Any]) -> Request:
    return dict(request)


def _responses(request: Mapping[str, Any]) -> Request:
    messages: list[dict[str, Any]] = []
    if isinstance(request.get("instructions"), str):
        messages.append({"role": "system", "content": request["instructions"]})
    given = request.get("input")
    if isinstance(given, str):
        messages.append({"role": "user", "content": given})
    for item in objects(given):
        kind = item.get("type", "message")
        if kind == "message":
            messages.append({"role": item.get("role"), "content": _words(item.get("content"))})
        elif kind == "function_call":
            messages.append(_call(item.get("call_id"), item.get("name"), item.get("arguments")))
        elif kind == "custom_tool_call":
            messages.append(_call(item.get("call_id"), item.get("name"), item.get("input")))
        elif kind in ("function_call_output", "custom_tool_call_output"):
            messages.append(_result(item.get("call_id"), _words(item.get("output"))))
    tools = [
        _tool(tool.get("name"), tool.get("description"), tool.get("parameters"))
        if tool.get("type") == "function"
        else {"type": "custom", "custom": {"name": tool.get("name")}}
        for tool in objects(request.get("tools"))
        if tool.get("type") in ("function", "custom")
    ]
    return {"messages": messages, "tools": tools}


def _messages(request: Mapping[str, Any]) -> Request:
    messages: list[dict[str, Any]] = []
    if request.get("system"):
        messages.append({"role": "system", "content": _words(request["system"])})
    for message in objects(request.get("messages")):
        content = message.get("content")
        blocks = objects(content)
        for block in blocks:
            if block.get("type") == "tool_use":
                arguments = json.dumps(block.get("input"))
                messages.append(_call(block.get("id"), block.get("name"), arguments))
            elif block.get("type") == "tool_result":
                messages.append(_result(block.get("tool_use_id"), _words(block.get("content"))))
        words = content if isinstance(content, str) else _own_words(blocks)
        if words:
            messages.append({"role": message.get("role"), "content": words})
    tools = [
        _tool(tool.get("name"), tool.get("description"), tool.get("input_schema"))
        for tool in objects(request.get("tools"))
    ]
    return {"messages": messages, "tools": tools}


def _gemini(request: Mapping[str, Any]) -> Request:
    messages: list[dict[str, Any]] = []
    system = request.get("systemInstruction") or request.get("system_instruction")
    if isinstance(system, dict):
        messages.append({"role": "system", "content": _words(system.get("parts"))})
    calls = results = 0
    contents = request.get("contents")
    for content in objects([contents] if isinstance(contents, dict) else contents):
        parts = objects(content.get("parts"))
        for part in parts:
            call = part.get("functionCall") or part.get("function_call")
            result = part.get("functionResponse") or part.get("function_response")
            # Calls and results carry no ids here; they stand in the same order.
            if isinstance(call, dict):
                messages.append(_call(f"c{calls}", call.get("name"), json.dumps(call.get("args"))))
                calls += 1
            elif isinstance(result, dict):
                messages.append(_result(f"c{results}", _said(result.get("response"))))
                results += 1
        words = _own_words(parts)
        if words:
            role = "assistant" if content.get("role") == "model" else "user"
            messages.append({"role": role, "content": words})
    tools = [
        _tool(
            each.get("name"),
            each.get("description"),
            _plain_schema(each.get("parametersJsonSchema") or each.get("parameters")),
        )
        for tool in objects(request.get("tools"))
        for each in objects(tool.get("functionDeclarations") or tool.get("function_declarations"))
    ]
    return {"messages": messages, "tools": tools}


READERS: dict[str, Callable[[Mapping[str, Any]], Request]] = {
    "openai-chat": _chat,
    "openai-responses": _responses,
    "anthropic-messages": _messages,
    "gemini": _gemini,
}


def _words(value: object) -> str:
    """The text of a content, whichever shape it has."""
    if isinstance(value, str):
        return value
    return "\n".join(
        str(part["text"]) for part in objects(value) if isinstance(part.get("text"), str)
    )


def _own_words(parts: list[dict[str, Any]]) -> str:
    """The text of a message without the parts that an agent put in on its own, where there are others."""
    texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
    own = [words for text in texts if (words := own_words(text))]
    return "\n".join(own or texts)


def _said(response: object) -> str:
    """What a function answered: agents put it under `output`, or under whatever name they like."""
    if isinstance(response, dict):
        texts = [value for value in response.values() if isinstance(value, str)]
        return "\n".join(texts) if texts else json.dumps(response)
    return _words(response)


def _call(key: object, name: object, arguments: object) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": key, "type": "function", "function": function}],
    }


def _result(key: object, words: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": key, "content": words}


def _tool(name: object, description: object, schema: object) -> dict[str, Any]:
    function = {"name": name, "description": description, "parameters": schema}
    return {"type": "function", "function": function}


def _plain_schema(schema: object) -> Any:
    """Google writes types in capitals."""
    if isinstance(schema, list):
        return [_plain_schema(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: value.lower() if key == "type" and isinstance(value, str) else _plain_schema(value)
        for key, value in schema.items()
    }
