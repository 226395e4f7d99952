"""Anthropic's messages, which Claude Code speaks, and their count of tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from devaipod_web.llm.errors import ModelError, RequestRefused
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
    asks_for_an_hour,
    drop_tools,
    refuse_address,
    refuse_stored,
    restrict_top,
)
from devaipod_web.llm.usage import Tokens

VERSION = "2023-06-01"
#: The version that Vertex wants in the body.
VERTEX_VERSION = "vertex-2023-10-16"
#: Tools whose calls the agent carries out; the date at the end is their schema's. `tool_search_tool` searches among the offered tools.
OWN_TOOLS = re.compile(r"custom|(bash|text_editor|computer|memory|tool_search_tool_\w+)_\d{8}")
#: Betas that only reach further; what they enable in the body is in the table as well.
REACHING_BETAS = ("mcp-client", "files-api", "web-fetch", "web-search", "code-execution", "skills")
ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class AnthropicMessages(Form):
    """`POST /v1/messages` and `/v1/messages/count_tokens`."""

    name = "anthropic-messages"
    label = "Anthropic messages"
    kinds = frozenset({"anthropic", "vertex", "demo"})
    doors = (
        Door("POST", re.compile(r"/llm/v1/messages"), Action.GENERATE),
        Door("POST", re.compile(r"/llm/v1/messages/count_tokens"), Action.COUNT),
    )
    marks = Marks(
        usage=b'"usage"',
        end=(b'"message_stop"',),
        error=(b'"error"',),
        form=(b'"message_start"',),
    )
    passed_headers = ("anthropic-version", "anthropic-beta")
    table = Table(
        reads=frozenset(
            {
                *("model", "messages", "system", "stream", "max_tokens", "tools", "tool_choice"),
                *("service_tier", "speed", "n", "best_of", "anthropic_version"),
                *("thinking", "context_management", "cache_control"),
            }
        ),
        refused={
            **ELSEWHERE,
            "container": "runs the provider's own containers",
        },
        taken_out={
            "metadata": "tells the provider who asks",
            "user_profile_id": "tells the provider who asks",
            "compaction": "has the provider write a summary, whose cost is not in the counts",
            **ROUTERS,
        },
        costly={
            **MULTIPLIES,
            "n": "asks for several answers",
            "best_of": "asks for several answers",
            "inference_geo": "chooses another price",
        },
    )

    def asked(self, door: Door, match: re.Match[str], query: str, body: Body) -> Asked:
        """See `Form`."""
        pictures = characters = 0
        other = False
        for block in _blocks(body):
            kind = block.get("type")
            if kind == "container_upload":
                raise refuse_stored("A file")
            if kind not in ("image", "document", "audio", "video"):
                continue
            size = _checked_source(block.get("source"))
            pictures += kind == "image"
            characters += size if kind == "image" else 0
            other = other or kind != "image"
        context = _price_context(body)
        tools = body.get("tools")
        return Asked(
            action=door.action,
            model=model_name(body.get("model")),
            streamed=door.action is Action.GENERATE and flag("stream", body.get("stream")),
            output_limit=count("max_tokens", body.get("max_tokens"), MAX_OUTPUT_TOKENS),
            price_context=context,
            pictures=pictures,
            picture_characters=characters,
            media_in=other,
            cache_hour=asks_for_an_hour(body),
            output_beyond=_thinks_beyond(body),
            built_in_tools=sum(
                1
                for tool in (tools if isinstance(tools, list) else ())
                if isinstance(tool, dict) and tool.get("type") not in (None, "custom")
            ),
        )

    def restrict(self, body: Body) -> list[str]:
        """See `Form`."""
        notes = restrict_top(body, self.table) + _drop_compaction(body)
        return notes + drop_tools(
            body,
            ("tools",),
            body.get("tools"),
            lambda tool: (
                (kind := tool.get("type")) is None
                or (isinstance(kind, str) and bool(OWN_TOOLS.fullmatch(kind)))
            ),
            beside=("tool_choice",),
        )

    def prepare(
        self, body: Body, asked: Asked, *, model: str, limit: int, kind: str, base: str
    ) -> None:
        """See `Form`. Vertex has the model in the address and the version in the body."""
        if kind == "vertex":
            body.set(("anthropic_version",), VERTEX_VERSION)
        else:
            body.drop(("anthropic_version",))
        if kind == "vertex" and asked.action is Action.GENERATE:
            body.drop(("model",))
        else:
            body.set(("model",), model)
        if asked.output_limit is None and asked.action is Action.GENERATE:
            body.set(("max_tokens",), limit)

    def address(self, asked: Asked, *, model: str, kind: str, base: str) -> str:
        """See `Form`."""
        counting = asked.action is Action.COUNT
        if kind == "vertex":
            # The agent may have chosen the name: it must stay one part of the path.
            name = "count-tokens" if counting else quote(model, safe="@")
            how = "streamRawPredict" if asked.streamed else "rawPredict"
            return f"{base}/publishers/anthropic/models/{name}:{how}"
        base = base if base.endswith("/v1") else f"{base}/v1"
        return f"{base}/messages/count_tokens" if counting else f"{base}/messages"

    def headers(self, sent: Mapping[str, str]) -> dict[str, str]:
        """See `Form`."""
        passed = super().headers(sent)
        betas = [beta.strip() for beta in passed.pop("anthropic-beta", "").split(",")]
        betas = [b for b in betas if b and not b.startswith(REACHING_BETAS)]
        if betas:
            passed["anthropic-beta"] = ",".join(betas)
        return {"anthropic-version": VERSION, **passed}

    def usage(self, value: Mapping[str, Any], tokens: Tokens) -> None:
        """See `Form`. A stream says the input at its beginning and the output, adding up, at its end."""
        begins = mapping(value.get("message"))
        usage = begins.get("usage") if begins else value.get("usage")
        if not isinstance(usage, dict):
            return
        if whole(usage.get("input_tokens")) or begins or not tokens.sent:
            cached = whole(usage.get("cache_read_input_tokens"))
            written = whole(usage.get("cache_creation_input_tokens"))
            lives = mapping(usage.get("cache_creation"))
            # The end of a stream says how much was written, and not for how long: that stood at its beginning.
            hour = whole(lives.get("ephemeral_1h_input_tokens")) if lives else tokens.written_hour
            hour = min(hour, written)
            # Here the input does not include what the cache held or took (unlike OpenAI's and Google's counts).
            tokens.sent = whole(usage.get("input_tokens")) + cached + written
            tokens.cached, tokens.written, tokens.written_hour = cached, written - hour, hour
        tokens.received = whole(usage.get("output_tokens"))
        details = mapping(usage.get("output_tokens_details"))
        tokens.reasoning = whole(details.get("thinking_tokens"))
        tokens.tier = str(usage.get("service_tier") or tokens.tier)[:20]
        # The counts of the beginning are not the end's: a stream that breaks off there stays estimated.
        tokens.estimated = bool(begins)

    def is_answer(self, value: Mapping[str, Any], *, counted: bool) -> bool:
        """See `Form`."""
        if counted:
            return isinstance(value.get("input_tokens"), int)
        return value.get("type") == "message" and isinstance(value.get("content"), list)

    def error(self, status: int, message: str, code: str) -> dict[str, Any]:
        """See `Form`."""
        kind = ERROR_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": message, "code": code}}

    def error_event(self, error: ModelError) -> bytes:
        """See `Form`."""
        return f"event: error\ndata: {json.dumps(self.error_of(error))}\n\n".encode()

    def models(self, names: Iterable[str]) -> dict[str, Any]:
        """See `Form`."""
        data = [
            {
                "type": "model",
                "id": name,
                "display_name": name,
                "created_at": "1970-01-01T00:00:00Z",
            }
            for name in names
        ]
        return {
            "data": data,
            "has_more": False,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
        }


def _blocks(body: Body) -> Iterator[dict[str, Any]]:
    """Every content block, those of tool results and documents among them. The input of a tool's call is data and no block."""
    waiting = [body.get("system")]
    messages = body.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict):
            waiting.append(message.get("content"))
    while waiting:
        content = waiting.pop()
        for block in content if isinstance(content, list) else ():
            if not isinstance(block, dict):
                continue
            yield block
            waiting.append(block.get("content"))
            source = block.get("source")
            if isinstance(source, dict):
                waiting.append(source.get("content"))


def _checked_source(source: object) -> int:
    """The characters of a source that is here. Raises `RequestRefused` for one that the provider would fetch or look up."""
    if not isinstance(source, dict):
        raise RequestRefused("An image or document has no source.")
    match source.get("type"):
        case "base64" | "text" as kind:
            data = source.get("data")
            if not isinstance(data, str):
                raise RequestRefused("An image or document has no data.")
            return len(data) if kind == "base64" else 0
        case "content":
            return 0
        case "file":
            raise refuse_stored("A file")
        case _:
            raise refuse_address()


def _thinks_beyond(body: Body) -> int:
    """Tokens that thinking may take beyond the output limit: between the calls of tools (`interleaved-thinking`) it may."""
    given = mapping(body.get("thinking")).get("budget_tokens")
    budget = count("thinking.budget_tokens", given, MAX_OUTPUT_TOKENS) or 0
    limit = body.get("max_tokens")
    return 0 if isinstance(limit, int) and budget < limit else budget


def _drop_compaction(body: Body) -> list[str]:
    """Take the edits of the context that are a generation of their own out; clearing old results and thoughts costs nothing."""
    edits = mapping(body.get("context_management")).get("edits")
    if not isinstance(edits, list):
        return []
    kinds = [edit.get("type") if isinstance(edit, dict) else edit for edit in edits]
    gone = [i for i, k in enumerate(kinds) if not (isinstance(k, str) and k.startswith("clear_"))]
    for index in gone:
        body.drop(("context_management", "edits", index))
    if edits and len(gone) == len(edits):
        body.drop(("context_management",))
    return [
        f"edit {str(kinds[index])[:60]}: has the provider write a summary, whose cost is not in the counts"
        for index in gone
    ]


def _price_context(body: Body) -> tuple[tuple[str, str], ...]:
    context = []
    if named := tier("service_tier", body.get("service_tier")):
        context.append(("service_tier", named))
    speed = body.get("speed")
    if speed not in (None, "standard"):
        if speed != "fast":
            raise RequestRefused(
                f"What the field speed = {str(speed)[:40]!r} costs is not known. Send the request without it."
            )
        context.append(("speed", "fast"))
    return tuple(context)
