"""Token counts and prices: read beside the bytes that pass, never in their way."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from genai_prices import Usage as PricedUsage
from genai_prices import calc_price

from devaipod_web.llm.models import ProviderKind

#: Characters that count as one token when the provider does not say how many there were.
CHARACTERS_PER_TOKEN = 4
#: One server-sent event may have this many bytes; a longer one passes but is not looked into.
MAX_EVENT_BYTES = 4 * 1024 * 1024


@dataclass
class Tokens:
    """What a request used. `cached` is the part of `sent` that the provider had in its cache."""

    sent: int = 0
    cached: int = 0
    received: int = 0
    estimated: bool = True


class AnswerReader:
    """Reads along an answer in OpenAI's chat form, whole or streamed: token counts, errors, and whether it came to its end."""

    def __init__(self, *, streamed: bool, request_characters: int) -> None:
        self.tokens = Tokens(sent=request_characters // CHARACTERS_PER_TOKEN + 1)
        self.complete = False
        self.error: dict[str, Any] | None = None
        #: Whether anything of the right form was seen.
        self.recognised = False
        self._streamed = streamed
        self._rest = b""
        self._characters = 0

    def feed(self, data: bytes) -> None:
        """Look at the next bytes of the answer."""
        self._rest += data
        if not self._streamed:
            return
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            self._line(line.strip())
        if len(self._rest) > MAX_EVENT_BYTES:
            self._rest = b""

    def end(self) -> None:
        """The answer has ended; read what is left."""
        if self._streamed:
            self._line(self._rest.strip())
        else:
            self._object(self._rest)
            self.complete = self.recognised
        self._rest = b""
        if self.tokens.estimated:
            self.tokens.received = -(-self._characters // CHARACTERS_PER_TOKEN)

    def _line(self, line: bytes) -> None:
        if not line.startswith(b"data:"):
            return
        data = line[5:].strip()
        if data == b"[DONE]":
            self.complete = True
        else:
            self._object(data)

    def _object(self, data: bytes) -> None:
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            return
        if not isinstance(value, dict):
            return
        if isinstance(value.get("error"), dict):
            self.error = value["error"]
            return
        choices = value.get("choices")
        if isinstance(choices, list):
            self.recognised = True
            for choice in choices:
                self._choice(choice)
        usage = value.get("usage")
        if isinstance(usage, dict):
            self._usage(usage)

    def _choice(self, choice: object) -> None:
        if not isinstance(choice, dict):
            return
        if choice.get("finish_reason"):
            # Some compatible servers end a stream without [DONE].
            self.complete = True
        said = choice.get("delta") or choice.get("message")
        if isinstance(said, dict):
            self._characters += sum(
                len(value if isinstance(value, str) else json.dumps(value))
                for value in (
                    said.get("content"),
                    said.get("tool_calls"),
                    said.get("reasoning_content"),
                )
                if value
            )

    def _usage(self, usage: dict[str, Any]) -> None:
        details = usage.get("prompt_tokens_details")
        sent, received = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if not isinstance(sent, int) or not isinstance(received, int) or sent < 0 or received < 0:
            return
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        self.tokens = Tokens(
            sent=sent,
            cached=min(cached, sent) if isinstance(cached, int) and cached > 0 else 0,
            received=received,
            estimated=False,
        )


def price(kind: str, model: str, tokens: Tokens, *, base_url: str = "") -> Decimal | None:
    """What these tokens cost in USD by the list price, or None when the model is not known. The demo costs nothing."""
    if kind == ProviderKind.DEMO:
        return Decimal(0)
    usage = PricedUsage(
        input_tokens=tokens.sent,
        cache_read_tokens=tokens.cached or None,
        output_tokens=tokens.received,
    )
    # Routers name models `maker/model`; the price list has some under the short name only.
    attempts: list[tuple[str, str | None]] = [(model, base_url or None), (model, None)]
    if "/" in model:
        attempts.append((model.rpartition("/")[2], None))
    for reference, address in attempts:
        try:
            found = calc_price(usage, reference, provider_api_url=address)
        except (LookupError, ValueError):
            continue
        return Decimal(found.total_price)
    return None
