"""What tokens cost, as integers of pico dollars, and the most that a request may cost before it is sent.

Whose price counts, in this order: the project's own, the installation's, the price list (genai-prices), a ceiling of the
project, a ceiling of the installation. A price that nobody knows is never zero: without a ceiling the request is refused.

The upper bound of a request. Input: at most one token a byte, which holds for every tokenizer in use (byte-level BPE, and
SentencePiece with byte fallback: no token is shorter than a byte), plus `HIDDEN_TOKENS` for what providers add themselves.
Pictures are the exception: their base64 is not read as text, and a small file can be a large picture, so each counts
`PICTURE_TOKENS`; documents, sound and film count the model's whole window. Output: the limit (set here when the
request has none) times the answers asked for. Both at the dearest tier, and the input at the dearest kind.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from devaipod_web.budgets.amounts import Amount
from devaipod_web.budgets.money import pico
from devaipod_web.llm import globs, price_list
from devaipod_web.llm.errors import PriceUnknown
from devaipod_web.llm.forms import Action, Asked
from devaipod_web.llm.price_list import DEARER, tier_unknown
from devaipod_web.llm.rates import FREE, ModelPrice, Rates, Source, pico_a_token
from devaipod_web.llm.usage import Tokens

#: What providers add to a prompt on their own: templates, the instructions for tools.
HIDDEN_TOKENS = 4096
#: The schema of one tool that only its provider knows (the largest, computer use, has some 1,500).
TOOL_TOKENS = 2048
#: The dearest picture there is: eight tiles of a model that counts 5,667 a tile and 2,833 for the picture.
PICTURE_TOKENS = 50_000
#: The window that documents and sound are bounded by, where the model's own is smaller or not known.
WINDOW_TOKENS = 1_048_576


@dataclass(frozen=True, slots=True)
class Override:
    """A manager's price of models that match `pattern`; US dollars per million tokens and per request."""

    pattern: str
    is_ceiling: bool
    of_project: bool
    sent: Decimal
    received: Decimal
    cached: Decimal | None = None
    written: Decimal | None = None
    reasoning: Decimal | None = None
    request: Decimal = Decimal(0)

    def price(self) -> ModelPrice:
        """As rates."""
        sent, received = pico_a_token(self.sent), pico_a_token(self.received)
        written = sent if self.written is None else pico_a_token(self.written)
        rates = Rates(
            sent=sent,
            cached=sent if self.cached is None else pico_a_token(self.cached),
            written=written,
            written_hour=written,
            sent_media=sent,
            received=received,
            reasoning=received if self.reasoning is None else pico_a_token(self.reasoning),
            received_media=received,
            request=pico(self.request),
        )
        source = Source.CEILING if self.is_ceiling else Source.MANAGER
        return ModelPrice(source, ((0, rates),), ((0, rates),))


def find(
    model: str,
    *,
    kind: str,
    base_url: str,
    overrides: Iterable[Override],
    context: tuple[tuple[str, str], ...] = (),
) -> ModelPrice:
    """The price of a model at a provider. Raises `PriceUnknown` with what a manager can do."""
    if kind == "demo":
        return FREE
    ceiling: Override | None = None
    for override in overrides:
        if not globs.matches(override.pattern, model):
            continue
        if override.is_ceiling:
            ceiling = ceiling or override
            continue
        if any(part in DEARER for part in context):
            raise tier_unknown(model, context)
        return override.price()
    listed = price_list.listed(model, kind, base_url, context)
    if listed is not None:
        return listed
    if ceiling is not None:
        return ceiling.price()
    raise PriceUnknown(
        f"What the model {model} costs is not known, and a price that is not known does not count as zero.",
        next_step="A manager can enter its price, or a ceiling for models without one, on the Prices page.",
    )


def in_order(overrides: Iterable[Override]) -> tuple[Override, ...]:
    """Overrides in the order in which they count: the project's before the installation's, plain names before globs."""
    return tuple(
        sorted(overrides, key=lambda each: (not each.of_project, *globs.by_precision(each.pattern)))
    )


def bound(price: ModelPrice, asked: Asked, *, size: int, limit: int) -> Amount:
    """The most that a request of `size` bytes may cost; `limit` is its output limit in tokens."""
    if asked.action is Action.COUNT:
        return Amount(0, 0, 1)
    sent = size - asked.picture_characters + HIDDEN_TOKENS
    sent += asked.pictures * PICTURE_TOKENS + asked.built_in_tools * TOOL_TOKENS
    if asked.media_in:
        sent += max(price.window, WINDOW_TOKENS)
    received = limit * asked.choices + asked.output_beyond
    worst = price.worst_at(sent)
    into = max(worst.sent, worst.cached, worst.written)
    if asked.cache_hour:
        into = max(into, worst.written_hour)
    if asked.media_in or asked.pictures:
        into = max(into, worst.sent_media)
    out = max(worst.received, worst.reasoning)
    if asked.media_out:
        out = max(out, worst.received_media)
    return Amount(sent * into + received * out + worst.request, sent + received, 1)


def cost(price: ModelPrice, tokens: Tokens, asked: Asked) -> int:
    """What a request did cost, in pico. With media the whole of its side is charged at the dearest kind that was in it."""
    rates = price.at(tokens.sent)
    into = max(rates.sent, rates.sent_media) if asked.media_in or asked.pictures else rates.sent
    out = max(rates.received, rates.received_media) if asked.media_out else rates.received
    fresh = tokens.sent - tokens.cached - tokens.written - tokens.written_hour
    return (
        fresh * into
        + tokens.cached * rates.cached
        + tokens.written * rates.written
        + tokens.written_hour * rates.written_hour
        + (tokens.received - tokens.reasoning) * out
        + tokens.reasoning * max(rates.reasoning, 0)
        + rates.request
    )


def served(
    model: str, price: ModelPrice, tier: str, asked: Asked, *, kind: str, base_url: str
) -> ModelPrice:
    """The price at the tier that the provider says it served, where the list has one; else the price that was agreed."""
    if price.source is not Source.LIST or not tier:
        return price
    context = tuple(part for part in asked.price_context if part[0] != "service_tier")
    try:
        return price_list.listed(model, kind, base_url, (*context, ("service_tier", tier))) or price
    except PriceUnknown:
        return price
