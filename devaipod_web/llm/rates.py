"""Prices as integers: pico dollars a token, by kind of token and size of the input."""

from __future__ import annotations

from dataclasses import dataclass, fields
from decimal import ROUND_CEILING, Decimal
from enum import StrEnum

from devaipod_web.budgets.money import PICO, PLACES

MILLION = 10**6


class Source(StrEnum):
    """Who says what a model costs."""

    FREE = "free"
    MANAGER = "manager"
    LIST = "list"
    CEILING = "ceiling"


@dataclass(frozen=True, slots=True)
class Rates:
    """Pico a token, by kind, and pico a request."""

    sent: int
    cached: int
    written: int
    written_hour: int
    sent_media: int
    received: int
    reasoning: int
    received_media: int
    request: int = 0

    def dearest(self, other: Rates) -> Rates:
        """The larger of each."""
        return Rates(*(max(getattr(self, f.name), getattr(other, f.name)) for f in fields(Rates)))


Tiers = tuple[tuple[int, Rates], ...]


def rates_of(tiers: Tiers, sent: int) -> Rates:
    """The rates for an input of so many tokens; beyond a tier's start they count for all of it."""
    found = tiers[0][1]
    for start, rates in tiers[1:]:
        if sent > start:
            found = rates
    return found


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """One model's price: rates by the size of the input (ascending, from more than `start` tokens).

    `worst` has the dearest that may count for an input of up to any size, whatever hour and service tier it turns out to be.
    """

    source: Source
    tiers: Tiers
    worst: Tiers
    window: int = 0

    @property
    def unpriced(self) -> bool:
        """Whether nobody knows the price and a ceiling stands in for it."""
        return self.source is Source.CEILING

    def at(self, sent: int) -> Rates:
        """The rates of an answer to an input of so many tokens."""
        return rates_of(self.tiers, sent)

    def worst_at(self, sent: int) -> Rates:
        """The dearest rates that may count for an input of at most so many tokens."""
        return rates_of(self.worst, sent)


def pico_a_token(usd_a_million: Decimal) -> int:
    """US dollars a million tokens as pico a token, rounded up."""
    return int((usd_a_million * (PICO // MILLION)).to_integral_value(ROUND_CEILING))


def usd_a_million(pico_a_token: int) -> Decimal:
    """Pico a token as US dollars a million tokens, without zeros at the end."""
    return Decimal(pico_a_token * MILLION).scaleb(-PLACES).normalize()


#: What the scripted demo costs.
FREE = ModelPrice(Source.FREE, ((0, Rates(*[0] * 8)),), ((0, Rates(*[0] * 8)),))
