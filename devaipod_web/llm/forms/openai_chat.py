"""OpenAI's chat completions, which most providers and agents speak."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from devaipod_web.llm.errors import ModelError, RequestRefused
from devaipod_web.llm.forms import openai
from devaipod_web.llm.forms.base import (
    MAX_CHOICES,
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
    asks_for_an_hour,
    drop_tools,
    folded,
    restrict_top,
)
from devaipod_web.llm.usage import Tokens

#: Types of offered tools that run in the agent. Any other type is the provider's own (web search, code interpreter, …).
OWN_TOOLS = frozenset({"function", "custom"})
#: Names of OpenAI's models that know the newer name of the limit alone, wherever they are asked.
NEWER = re.compile(r"gpt-[5-9]|o[1-9](-|$)")
LIMITS = ("max_completion_tokens", "max_tokens")


class OpenAIChat(Form):
    """`POST /chat/completions`."""

    name = "openai-chat"
    label = "OpenAI chat completions"
    kinds = frozenset({"openai", "demo"})
    doors = (
        Door("POST", re.compile(r"/llm/v1/chat/completions"), Action.GENERATE),
        Door("GET", re.compile(r"/llm/v1/models"), Action.MODELS),
    )
    marks = Marks(
        usage=b'"usage"',
        end=(b"\ndata: [DONE]", b"\ndata:[DONE]", b'"finish_reason":"', b'"finish_reason": "'),
        error=(b'"error"',),
        form=(b'"choices"',),
    )
    table = Table(
        reads=frozenset(
            {
                *("model", "messages", "stream", "stream_options", *LIMITS, "n", "best_of"),
                *("tools", "tool_choice", "service_tier", "prediction", "modalities"),
            }
        ),
        refused={
            **ELSEWHERE,
        },
        taken_out={
            "store": "keeps the conversation with the provider",
            "metadata": "labels a stored conversation",
            "user": "tells the provider who asks",
            "safety_identifier": "tells the provider who asks",
            "prompt_cache_key": "shares a cache between runs",
            "prompt_cache_retention": "keeps the prompt with the provider",
            "previous_response_id": "reads a stored conversation",
            "conversation": "reads a stored conversation",
            **ROUTERS,
        },
        costly={**MULTIPLIES, "speed": "chooses another price"},
    )

    def asked(self, door: Door, match: re.Match[str], query: str, body: Body) -> Asked:
        """See `Form`."""
        media = openai.check_parts(body.get("messages"))
        limits = [count(name, body.get(name), MAX_OUTPUT_TOKENS) for name in LIMITS]
        choices = [count(name, body.get(name), MAX_CHOICES) or 1 for name in ("n", "best_of")]
        tier_asked = tier("service_tier", body.get("service_tier"))
        modalities = body.get("modalities")
        if asks_for_an_hour(body):
            # Answers in this form do not tell what was written for an hour, which costs more.
            raise RequestRefused(
                "What a cache_control with a ttl beyond 5m costs is not known in this form. Send the request without it."
            )
        return Asked(
            action=door.action,
            model=model_name(body.get("model")),
            streamed=flag("stream", body.get("stream")),
            output_limit=max((limit for limit in limits if limit), default=None),
            choices=max(choices),
            # A prediction that was not used is paid for as output (OpenAI, predicted outputs).
            output_beyond=body.size_of("prediction"),
            price_context=(("service_tier", tier_asked),) if tier_asked else (),
            pictures=media.pictures,
            picture_characters=media.characters,
            media_in=media.other,
            media_out=isinstance(modalities, list) and any(m != "text" for m in modalities),
        )

    def restrict(self, body: Body) -> list[str]:
        """See `Form`."""
        notes = restrict_top(body, self.table)
        return notes + drop_tools(
            body,
            ("tools",),
            body.get("tools"),
            lambda tool: (
                isinstance(kind := tool.get("type", "function"), str) and kind in OWN_TOOLS
            ),
            beside=("tool_choice", "parallel_tool_calls"),
        )

    def prepare(
        self, body: Body, asked: Asked, *, model: str, limit: int, kind: str, base: str
    ) -> None:
        """See `Form`."""
        body.set(("model",), model)
        name = limit_field(base, model)
        given = {each: body.get(each) for each in LIMITS if body.get(each) is not None}
        if name not in given and not (given and name == LIMITS[0]):
            # None, or one that this server may not know and would pass over; OpenAI's older models know the old name alone.
            given = {name: asked.output_limit or limit}
        for each in LIMITS:
            if each in given:
                body.set((each,), given[each])
            else:
                body.drop((each,))  # a null, or what was set for another provider
        if asked.streamed:
            for each in mapping(body.get("stream_options")):
                if each != "include_usage" and folded(each) == folded("include_usage"):
                    body.drop(("stream_options", each))
            body.set(("stream_options", "include_usage"), True)

    def address(self, asked: Asked, *, model: str, kind: str, base: str) -> str:
        """See `Form`."""
        return f"{base}/chat/completions"

    def usage(self, value: Mapping[str, Any], tokens: Tokens) -> None:
        """See `Form`."""
        usage = value.get("usage")
        if not isinstance(usage, dict) or "prompt_tokens" not in usage:
            return
        details = mapping(usage.get("prompt_tokens_details"))
        tokens.sent = whole(usage.get("prompt_tokens"))
        tokens.cached = whole(details.get("cached_tokens")) or whole(
            usage.get("prompt_cache_hit_tokens")
        )
        tokens.written = whole(details.get("cache_write_tokens")) or whole(
            usage.get("cache_creation_input_tokens")
        )
        tokens.received = openai.total_received(
            usage, tokens.sent, whole(usage.get("completion_tokens"))
        )
        tokens.reasoning = whole(
            mapping(usage.get("completion_tokens_details")).get("reasoning_tokens")
        )
        tokens.tier = str(value.get("service_tier") or "")[:20]
        tokens.estimated = False

    def is_answer(self, value: Mapping[str, Any], *, counted: bool) -> bool:
        """See `Form`."""
        return isinstance(value.get("choices"), list)

    def error(self, status: int, message: str, code: str) -> dict[str, Any]:
        """See `Form`."""
        return openai.error_body(status, message, code)

    def error_event(self, error: ModelError) -> bytes:
        """As OpenAI's own servers send it."""
        return b"data: " + json.dumps(self.error_of(error)).encode() + b"\n\n"

    def models(self, names: Iterable[str]) -> dict[str, Any]:
        """See `Form`."""
        return openai.model_list(names)


@lru_cache(maxsize=1024)
def limit_field(base: str, model: str) -> str:
    """The name of the output limit: OpenAI's newer models refuse the old name, other servers don't know the new one."""
    host = urlsplit(base).hostname or ""
    theirs = host.endswith((".openai.com", ".azure.com"))
    return LIMITS[0] if theirs or NEWER.match(model.rpartition("/")[2]) else LIMITS[1]
