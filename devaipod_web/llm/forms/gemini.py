"""Google's generateContent, which Gemini CLI speaks: whole, streamed, and counting tokens.

Google's servers take every name in two spellings, `maxOutputTokens` and `max_output_tokens`. Both are read here, and a
request that uses both for one thing is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qs, quote

from devaipod_web.llm.errors import ModelError, RequestRefused
from devaipod_web.llm.forms.base import (
    MAX_CHOICES,
    MAX_OUTPUT_TOKENS,
    Action,
    Asked,
    Door,
    Form,
    count,
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
    Table,
    folded,
    refuse_address,
    restrict_top,
)
from devaipod_web.llm.usage import Tokens

MODEL = r"/llm/v1(?:beta)?/models/(?P<model>[A-Za-z0-9][A-Za-z0-9._@-]{0,199})"
CONFIG = "generationConfig"
#: What of it lets Vertex choose the model.
OTHER_MODELS = ("routingConfig", "modelConfig")
#: What a tool may hold; any other of its members runs at the provider (search, maps, code, addresses).
OWN_TOOLS = frozenset({"functiondeclarations", "computeruse"})
STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "RESOURCE_EXHAUSTED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class Gemini(Form):
    """`POST /v1beta/models/{model}:generateContent`, `:streamGenerateContent` and `:countTokens`."""

    name = "gemini"
    label = "Gemini generateContent"
    kinds = frozenset({"gemini", "vertex", "demo"})
    doors = (
        Door("POST", re.compile(MODEL + ":generateContent"), Action.GENERATE, streamed=False),
        Door("POST", re.compile(MODEL + ":streamGenerateContent"), Action.GENERATE, streamed=True),
        Door("POST", re.compile(MODEL + ":countTokens"), Action.COUNT, streamed=False),
        Door("GET", re.compile(r"/llm/v1beta/models"), Action.MODELS),
    )
    marks = Marks(
        usage=b'"usageMetadata"',
        end=(b'"finishReason"', b'"blockReason"'),
        error=(b'"error"',),
        form=(b'"candidates"', b'"usageMetadata"', b'"promptFeedback"'),
    )
    table = Table(
        reads=frozenset(
            {
                *("contents", "systemInstruction", "tools", "toolConfig", CONFIG),
                *("serviceTier", "generateContentRequest", "model", "n", "bestOf"),
            }
        ),
        refused={
            **ELSEWHERE,
            "cachedContent": "reads a prompt that is stored with the provider",
        },
        taken_out={"labels": "tells the provider who asks", "store": "keeps the conversation"},
        costly={
            **MULTIPLIES,
            "n": "asks for several answers",
            "bestOf": "asks for several answers",
        },
        either_spelling=True,
    )

    def asked(self, door: Door, match: re.Match[str], query: str, body: Body) -> Asked:
        """See `Form`."""
        _, inner = _inner(body)
        if inner is not body.value and (door.action is not Action.COUNT or len(body.value) > 1):
            # What stands beside it would be read by nobody here.
            raise RequestRefused(
                "The field generateContentRequest stands alone, in a count of tokens."
            )
        config = mapping(_named(inner, CONFIG))
        for name in OTHER_MODELS:
            if _named(config, name):
                raise RequestRefused(
                    f"The field {name} chooses another model, and what that costs is not known. Send the request without it."
                )
        pictures, characters, other = _media(inner)
        modalities = _named(config, "responseModalities")
        named = tier("serviceTier", _tier(_named(inner, "serviceTier")))
        events = parse_qs(query).get("alt") == ["sse"]
        return Asked(
            action=door.action,
            model=model_name(match["model"]),
            streamed=bool(door.streamed) and events,
            array=bool(door.streamed) and not events,
            output_limit=count(
                "maxOutputTokens", _named(config, "maxOutputTokens"), MAX_OUTPUT_TOKENS
            ),
            choices=count("candidateCount", _named(config, "candidateCount"), MAX_CHOICES) or 1,
            price_context=(("service_tier", named),) if named else (),
            pictures=pictures,
            picture_characters=characters,
            media_in=other,
            # Models that draw do so unasked.
            media_out=not isinstance(modalities, list)
            or not modalities
            or any(str(m).upper() != "TEXT" for m in modalities),
        )

    def restrict(self, body: Body) -> list[str]:
        """See `Form`."""
        notes = restrict_top(body, self.table)
        path, inner = _inner(body)
        if path and _named(inner, "cachedContent"):
            raise RequestRefused(
                "The field cachedContent reads a prompt that is stored with the provider, and this run may reach the model "
                "alone. Send the request without it."
            )
        return notes + _restrict_tools(body, path, inner)

    def prepare(
        self, body: Body, asked: Asked, *, model: str, limit: int, kind: str, base: str
    ) -> None:
        """See `Form`. The model stands in the address; where a body names it as well, that goes or is set."""
        path, inner = _inner(body)
        if path:
            body.set((*path, "model"), f"models/{model}")
        elif "model" in inner:
            body.drop(("model",))
        if asked.output_limit is None and asked.action is Action.GENERATE:
            body.set((_spelled(inner, CONFIG), "maxOutputTokens"), limit)

    def address(self, asked: Asked, *, model: str, kind: str, base: str) -> str:
        """See `Form`."""
        if kind == "vertex":
            base = f"{base}/publishers/google"
        elif not base.endswith(("/v1beta", "/v1")):
            base = f"{base}/v1beta"
        model = quote(model, safe="@/")
        if asked.action is Action.COUNT:
            return f"{base}/models/{model}:countTokens"
        if asked.array:
            return f"{base}/models/{model}:streamGenerateContent"
        how = "streamGenerateContent?alt=sse" if asked.streamed else "generateContent"
        return f"{base}/models/{model}:{how}"

    def usage(self, value: Mapping[str, Any], tokens: Tokens) -> None:
        """See `Form`. Every event may say it, the last one counts."""
        usage = value.get("usageMetadata")
        if not isinstance(usage, dict) or "promptTokenCount" not in usage:
            return
        tokens.sent = whole(usage.get("promptTokenCount")) + whole(
            usage.get("toolUsePromptTokenCount")
        )
        tokens.cached = whole(usage.get("cachedContentTokenCount"))
        tokens.reasoning = whole(usage.get("thoughtsTokenCount"))
        tokens.received = whole(usage.get("candidatesTokenCount")) + tokens.reasoning
        # The events before the last one count what has come so far.
        ended = any(
            isinstance(each, dict) and each.get("finishReason")
            for each in value.get("candidates") or ()
        )
        tokens.estimated = not (ended or not value.get("candidates"))

    def is_answer(self, value: Mapping[str, Any], *, counted: bool) -> bool:
        """See `Form`."""
        if counted:
            return isinstance(value.get("totalTokens"), int)
        return isinstance(value.get("candidates"), list) or "promptFeedback" in value

    def error(self, status: int, message: str, code: str) -> dict[str, Any]:
        """See `Form`."""
        name = STATUSES.get(status, "UNAVAILABLE" if status >= 500 else "INVALID_ARGUMENT")
        detail = {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": code.upper().replace("-", "_"),
            "domain": "devaipod",
        }
        error = {"code": status, "message": message, "status": name, "details": [detail]}
        return {"error": error}

    def error_event(self, error: ModelError) -> bytes:
        """See `Form`."""
        return b"data: " + json.dumps(self.error_of(error)).encode() + b"\r\n\r\n"

    def models(self, names: Iterable[str]) -> dict[str, Any]:
        """See `Form`."""
        methods = ["generateContent", "streamGenerateContent", "countTokens"]
        return {
            "models": [
                {
                    "name": f"models/{name}",
                    "displayName": name,
                    "supportedGenerationMethods": methods,
                }
                for name in names
            ]
        }


def _named(value: Mapping[str, Any], name: str) -> Any:
    """A member in either spelling. Raises `RequestRefused` when both are there."""
    found = [key for key in value if folded(key) == folded(name)]
    if len(found) > 1:
        raise RequestRefused(f"The field {name} stands there in two spellings.")
    return value[found[0]] if found else None


def _spelled(value: Mapping[str, Any], name: str) -> str:
    """How the value spells this name, else as the documentation does."""
    return next((key for key in value if folded(key) == folded(name)), name)


def _inner(body: Body) -> tuple[tuple[str, ...], Mapping[str, Any]]:
    """Where the request itself stands: a count of tokens may wrap it."""
    name = _spelled(body.value, "generateContentRequest")
    wrapped = _named(body.value, "generateContentRequest")
    return ((name,), wrapped) if isinstance(wrapped, dict) else ((), body.value)


def _tier(value: object) -> object:
    """`SERVICE_TIER_FLEX` and `flex` are one."""
    if not isinstance(value, str):
        return value
    value = value.lower().removeprefix("service_tier_")
    return None if value == "unspecified" else value


def _media(inner: Mapping[str, Any]) -> tuple[int, int, bool]:
    """Pictures, their characters, and whether there is other media. Raises `RequestRefused` for content by address."""
    pictures = characters = 0
    other = False
    for part in _parts(inner):
        if _named(part, "fileData") is not None:
            raise refuse_address()
        data = _named(part, "inlineData")
        if isinstance(data, dict):
            kind = str(_named(data, "mimeType") or "")
            if kind.startswith("image/"):
                pictures += 1
                here = data.get("data")
                characters += len(here) if isinstance(here, str) else 0
            else:
                other = True
    return pictures, characters, other


def _parts(inner: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """Every part, those of a function's answer among them. A function's arguments are data and no part."""
    contents = _named(inner, "contents")
    waiting = [*(contents if isinstance(contents, list) else [contents])]
    waiting.append(_named(inner, "systemInstruction"))
    while waiting:
        content = waiting.pop()
        # A bare part in the place of a content is taken by Google's servers as well.
        parts = content.get("parts", content) if isinstance(content, dict) else content
        for part in parts if isinstance(parts, list) else [parts]:
            if isinstance(part, dict):
                yield part
                answer = _named(part, "functionResponse")
                if isinstance(answer, dict):
                    waiting.append({"parts": answer.get("parts")})


def _restrict_tools(body: Body, path: tuple[str, ...], inner: Mapping[str, Any]) -> list[str]:
    """A tool is an object of kinds of tools: the provider's own ones go, and with the last one the list."""
    name = _spelled(inner, "tools")
    tools = inner.get(name)
    tools = [tools] if isinstance(tools, dict) else tools
    if not isinstance(tools, list):
        return []
    notes, kept = [], 0
    single = isinstance(inner.get(name), dict)
    for index, tool in enumerate(tools):
        where: tuple[str | int, ...] = (*path, name) if single else (*path, name, index)
        members = list(tool) if isinstance(tool, dict) else []
        own = [member for member in members if folded(member) in OWN_TOOLS]
        notes += [
            f"tool {member[:60]}: runs on the provider's side"
            for member in members
            if member not in own
        ]
        if not own:
            body.drop(where)
            continue
        kept += 1
        for member in members:
            if member not in own:
                body.drop((*where, member))
    if tools and not kept:
        body.drop((*path, name))
        body.drop((*path, _spelled(inner, "toolConfig")))
    return notes
