"""What a model request may reach beyond the model: the table of the OpenAI chat form.

The model is a network too (DESIGN §7.7): a provider that searches the web, fetches an address or keeps a conversation
for the agent gives the agent what its pod's `network: none` denies. A field of the table is refused, or, where agents
send it unasked, taken out and noted on the run. What is not in the table and not in `PASSED` is taken out as well: a
field that a provider invents tomorrow does not pass by default.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

#: Fields of the request that shape the model's answer and reach nothing else.
PASSED = frozenset(
    {
        "model",
        "messages",
        "stream",
        "stream_options",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "n",
        "stop",
        "max_tokens",
        "max_completion_tokens",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "seed",
        "response_format",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "functions",
        "function_call",
        "reasoning_effort",
        "reasoning",
        "verbosity",
        "thinking",
        "enable_thinking",
        "chat_template_kwargs",
        "prediction",
        "modalities",
        "audio",
    }
)

#: Fields that reach further → what they would do. Refused: the agent asked for it on purpose.
REFUSED = {
    "web_search_options": "searches the web from the provider's side",
    "mcp_servers": "lets the provider call servers of the agent's choice",
    "plugins": "runs the provider's plugins (web search, file fetching)",
    "background": "leaves a job with the provider",
    "api_base": "names another upstream",
    "base_url": "names another upstream",
    "api_key": "names another credential",
    "extra_headers": "sets headers of the provider's request",
    "extra_body": "hides fields from this table",
    "proxy": "names another way out",
    "fallbacks": "names other models and upstreams",
}
#: Fields that agents send unasked → what they would do. Taken out, and noted on the run.
TAKEN_OUT = {
    "store": "keeps the conversation with the provider",
    "metadata": "labels a stored conversation",
    "user": "tells the provider who asks",
    "safety_identifier": "tells the provider who asks",
    "service_tier": "chooses another price",
    "prompt_cache_key": "shares a cache between runs",
    "prompt_cache_retention": "keeps the prompt with the provider",
    "previous_response_id": "reads a stored conversation",
    "conversation": "reads a stored conversation",
    "provider": "routes to another upstream",
    "models": "routes to other models",
    "route": "routes to other models",
    "transforms": "lets the provider rewrite the prompt",
}
#: Types of offered tools that run in the agent. Any other type is the provider's own (web search, code interpreter, …).
OWN_TOOL_TYPES = frozenset({"function", "custom"})
#: Content parts with an address → the key of the address. Only data: addresses pass.
ADDRESSED_PARTS = {
    "image_url": "url",
    "video_url": "url",
    "audio_url": "url",
    "input_image": "image_url",
}


@dataclass
class Reach:
    """The request as it may go to the provider, and what is to be said on the run."""

    body: dict[str, Any]
    notes: list[str] = field(default_factory=list)


class ReachRefused(Exception):
    """The request reaches further than the model. The message says by what and what to do."""


def restrict(body: dict[str, Any]) -> Reach:
    """Check a request of the OpenAI chat form against the table and return what may pass. The argument is left as it is."""
    for name, effect in REFUSED.items():
        if body.get(name) not in (None, False, [], {}, ""):
            raise ReachRefused(
                f"The field {name} {effect}, and this run may reach the model alone. Send the request without it."
            )
    reach = Reach({name: value for name, value in body.items() if name in PASSED})
    for name in body:
        if name in TAKEN_OUT:
            reach.notes.append(f"{name}: {TAKEN_OUT[name]}")
        elif name not in PASSED and name not in REFUSED:
            reach.notes.append(f"{str(name)[:60]}: not in the table of known fields")
    _restrict_tools(reach)
    for part in _parts(body.get("messages")):
        _check_part(part)
    return reach


def _restrict_tools(reach: Reach) -> None:
    tools = reach.body.get("tools")
    if not isinstance(tools, list):
        return
    kept = []
    for tool in tools:
        kind = tool.get("type", "function") if isinstance(tool, dict) else "?"
        if kind in OWN_TOOL_TYPES:
            kept.append(tool)
        else:
            reach.notes.append(f"tool of type {str(kind)[:60]}: runs on the provider's side")
    if kept:
        reach.body["tools"] = kept
    else:
        # An empty list is refused by some providers, and so is a choice among nothing.
        for name in ("tools", "tool_choice", "parallel_tool_calls"):
            reach.body.pop(name, None)


def _parts(messages: object) -> Iterator[dict[str, Any]]:
    for message in messages if isinstance(messages, list) else []:
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else []:
            if isinstance(part, dict):
                yield part


def _check_part(part: dict[str, Any]) -> None:
    kind = str(part.get("type", ""))
    holder = part.get(kind)
    if kind in ADDRESSED_PARTS:
        address = holder.get(ADDRESSED_PARTS[kind]) if isinstance(holder, dict) else holder
        address = address or part.get(ADDRESSED_PARTS[kind])
        if not isinstance(address, str) or address[:5].lower() != "data:":
            raise ReachRefused(
                "An image or other content is given by an address that the provider would fetch. Send its data (a data: address)."
            )
    details = holder if isinstance(holder, dict) else part
    if kind in ("file", "input_file") and not details.get("file_data"):
        raise ReachRefused(
            "A file is given by id or address, which reaches the provider's storage. Send its data (file_data)."
        )
    if kind in ("file", "input_file") and (details.get("file_id") or details.get("file_url")):
        raise ReachRefused("A file carries an id or address beside its data. Send its data alone.")


def with_usage(body: dict[str, Any]) -> dict[str, Any]:
    """The same request, asking a stream to tell its token counts at the end."""
    if not body.get("stream"):
        return body
    changed = copy.copy(body)
    options = body.get("stream_options")
    changed["stream_options"] = {
        **(options if isinstance(options, dict) else {}),
        "include_usage": True,
    }
    return changed
