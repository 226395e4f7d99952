"""OpenAI's responses, which Codex speaks and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from devaipod_web.llm.errors import ModelError, RequestRefused
from devaipod_web.llm.forms import openai
from devaipod_web.llm.forms.base import (
    MAX_OUTPUT_TOKENS,
    Action,
    Asked,
    Door,
    Form,
    count,
    flag,
    mapping,
    model_name,
    tier,
    whole,
)
from devaipod_web.llm.forms.body import Body
from devaipod_web.llm.forms.reader import Marks
from devaipod_web.llm.forms.table import (
    ELSEWHERE,
    MULTIPLIES,
    ROUTERS,
    Table,
    drop_tools,
    refuse_stored,
    restrict_top,
)
from devaipod_web.llm.usage import Tokens

#: Types of offered tools whose calls the agent carries out.
OWN_TOOLS = frozenset(
    {
        *("function", "custom", "local_shell", "apply_patch"),
        *("computer", "computer_use_preview", "shell", "namespace"),
        # Searches among the offered tools, here or at the provider.
        "tool_search",
    }
)


class OpenAIResponses(Form):
    """`POST /responses`."""

    name = "openai-responses"
    label = "OpenAI responses"
    kinds = frozenset({"openai", "demo"})
    doors = (Door("POST", re.compile(r"/llm/v1/responses"), Action.GENERATE),)
    marks = Marks(
        usage=b'"usage"',
        end=(b'"response.completed"', b'"response.incomplete"'),
        error=(b'"response.failed"', b'"type":"error"', b'"type": "error"', b'data: {"error"'),
        form=(b'"response.',),
    )
    table = Table(
        reads=frozenset(
            {
                *("model", "input", "instructions", "stream", "max_output_tokens"),
                *("tools", "tool_choice", "service_tier", "store", "n", "best_of"),
            }
        ),
        refused={
            **ELSEWHERE,
            "previous_response_id": "reads a stored conversation",
            "conversation": "reads a stored conversation",
            "prompt": "reads a prompt that is stored with the provider",
        },
        taken_out={
            "metadata": "labels a stored conversation",
            "client_metadata": "tells the provider who asks",
            "user": "tells the provider who asks",
            "safety_identifier": "tells the provider who asks",
            "prompt_cache_key": "shares a cache between runs",
            "prompt_cache_retention": "keeps the prompt with the provider",
            "context_management": "has the provider write summaries, whose cost is not known",
            **ROUTERS,
        },
        costly={
            **MULTIPLIES,
            "n": "asks for several answers",
            "best_of": "asks for several answers",
            "speed": "chooses another price",
        },
    )

    def asked(self, door: Door, match: re.Match[str], query: str, body: Body) -> Asked:
        """See `Form`."""
        given = body.get("input")
        for item in given if isinstance(given, list) else ():
            # A reference may leave its type out (OpenAI, `ItemReferenceParam`); a message has a role.
            if (
                isinstance(item, dict)
                and item.get("id")
                and not (item.get("type") or item.get("role"))
            ):
                raise refuse_stored("An item of the conversation")
        media = openai.check_parts(given)
        tier_asked = tier("service_tier", body.get("service_tier"))
        return Asked(
            action=door.action,
            model=model_name(body.get("model")),
            streamed=flag("stream", body.get("stream")),
            output_limit=count(
                "max_output_tokens", body.get("max_output_tokens"), MAX_OUTPUT_TOKENS
            ),
            price_context=(("service_tier", tier_asked),) if tier_asked else (),
            pictures=media.pictures,
            picture_characters=media.characters,
            media_in=media.other,
        )

    def restrict(self, body: Body) -> list[str]:
        """See `Form`. Left alone, this API stores every conversation: `store` is always set to false."""
        notes = restrict_top(body, self.table)
        if body.get("store") is not False:
            body.set(("store",), False)
            if body.get("store"):
                notes.append("store: keeps the conversation with the provider")
        return notes + drop_tools(
            body,
            ("tools",),
            body.get("tools"),
            _is_own,
            beside=("tool_choice", "parallel_tool_calls", "max_tool_calls"),
        )

    def prepare(
        self, body: Body, asked: Asked, *, model: str, limit: int, kind: str, base: str
    ) -> None:
        """See `Form`."""
        body.set(("model",), model)
        if asked.output_limit is None:
            body.set(("max_output_tokens",), limit)

    def address(self, asked: Asked, *, model: str, kind: str, base: str) -> str:
        """See `Form`."""
        return f"{base}/responses"

    def usage(self, value: Mapping[str, Any], tokens: Tokens) -> None:
        """See `Form`. In a stream the counts stand in the response of its last event."""
        value = mapping(value.get("response")) or value
        usage = value.get("usage")
        if not isinstance(usage, dict) or "input_tokens" not in usage:
            return
        tokens.sent = whole(usage.get("input_tokens"))
        tokens.cached = whole(mapping(usage.get("input_tokens_details")).get("cached_tokens"))
        tokens.received = openai.total_received(
            usage, tokens.sent, whole(usage.get("output_tokens"))
        )
        tokens.reasoning = whole(
            mapping(usage.get("output_tokens_details")).get("reasoning_tokens")
        )
        tokens.tier = str(value.get("service_tier") or "")[:20]
        tokens.estimated = False

    def is_answer(self, value: Mapping[str, Any], *, counted: bool) -> bool:
        """See `Form`."""
        return value.get("object") == "response" and isinstance(value.get("output"), list)

    def error(self, status: int, message: str, code: str) -> dict[str, Any]:
        """See `Form`."""
        return openai.error_body(status, message, code)

    def error_event(self, error: ModelError) -> bytes:
        """Both of the ways in which this API ends a stream: Codex looks for the first, OpenAI's own clients for the second."""
        words = openai.failed_response(error)
        failed = {
            "type": "response.failed",
            "response": {"object": "response", "status": "failed", "error": words, "output": []},
        }
        told = {"type": "error", **words, "param": None}
        return _event("response.failed", failed) + _event("error", told)

    def models(self, names: Iterable[str]) -> dict[str, Any]:
        """See `Form`."""
        return openai.model_list(names)


def _event(name: str, value: Mapping[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(value)}\n\n".encode()


def _is_own(tool: dict[str, Any]) -> bool:
    kind = tool.get("type")
    if not isinstance(kind, str) or kind not in OWN_TOOLS:
        return False
    if kind == "shell":
        # Without an environment it is the agent's; a container is the provider's.
        return mapping(tool.get("environment")).get("type") in (None, "local")
    if kind == "namespace":
        inside = tool.get("tools")
        if not isinstance(inside, list):
            raise RequestRefused("A namespace of tools has no list of tools.")
        return all(isinstance(each, dict) and _is_own(each) for each in inside)
    return True
