"""The price list (genai-prices) as rates: what a model costs now, and the dearest that may turn out to count."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal

from genai_prices import data_snapshot, types

from devaipod_web.llm.errors import PriceUnknown
from devaipod_web.llm.rates import ModelPrice, Rates, Source, Tiers, pico_a_token, rates_of

#: How long a price that was looked up counts; some change with the hour.
REMEMBER_SECONDS = 60.0
MAX_REMEMBERED = 2048
#: The list's names of its providers, by kind.
LISTED_AS = {"anthropic": "anthropic", "gemini": "google", "vertex": "google"}
#: Tiers that cost more than the usual one: without a price of their own they are refused.
DEARER = frozenset({("service_tier", "priority"), ("service_tier", "fast"), ("speed", "fast")})

_known: dict[tuple[object, ...], tuple[float, ModelPrice | None]] = {}


def listed(
    model: str, kind: str, base_url: str, context: tuple[tuple[str, str], ...]
) -> ModelPrice | None:
    key = (model, kind, base_url, context)
    now = time.monotonic()
    found = _known.get(key)
    if found is not None and found[0] > now:
        return found[1]
    if len(_known) >= MAX_REMEMBERED:
        _known.clear()
    info = _model_info(model, kind, base_url)
    price = _from_list(info, model, context) if info is not None else None
    _known[key] = (now + REMEMBER_SECONDS, price)
    return price


def _model_info(model: str, kind: str, base_url: str) -> types.ModelInfo | None:
    """The list's entry for a model: at the provider where that is known, else by the name alone."""
    snapshot = data_snapshot.get_snapshot()
    attempts: list[tuple[str, str | None, str | None]] = []
    plain = model.partition("@")[0]  # Vertex names versions so
    if kind in LISTED_AS:
        attempts.append((plain, LISTED_AS[kind], None))
    elif base_url:
        attempts.append((model, None, base_url))
    attempts.append((plain, None, None))
    if "/" in plain:
        # Routers name models `maker/model`; the list has some under the short name only.
        attempts.append((plain.rpartition("/")[2], None, None))
    for name, provider, address in attempts:
        try:
            return snapshot.find_provider_model(name, None, provider, address)[1]
        except (LookupError, ValueError):
            continue
    return None


def _from_list(
    info: types.ModelInfo, model: str, context: tuple[tuple[str, str], ...]
) -> ModelPrice | None:
    now = datetime.now(UTC)
    variants = info.price_variants or []
    for part in context:
        if part in DEARER and not any(v.when == dict([part]) for v in variants):
            raise tier_unknown(model, context)
    tiers = _tiers(info.get_prices(now, dict(context)))
    if tiers is None:
        return None
    # What may count before the answer has come: each hour's price, and each service tier's, since a provider may choose one.
    possible: list[types.ModelPrice] = [info.get_prices(now, dict(context))]
    if isinstance(info.prices, list):
        possible += [
            each.prices
            for each in info.prices
            if isinstance(each.constraint, types.TimeOfDateConstraint)
        ]
    possible += [
        info.get_prices(now, {**dict(context), **v.when})
        for v in variants
        if set(v.when) == {"service_tier"}
    ]
    return ModelPrice(Source.LIST, tiers, _dearest(possible), info.context_window or 0)


def _dearest(possible: Iterable[types.ModelPrice]) -> Tiers:
    """For each size of the input the dearest of all prices that may count up to there."""
    tables = [tiers for tiers in map(_tiers, possible) if tiers is not None]
    starts = sorted({start for tiers in tables for start, _ in tiers})
    found: list[tuple[int, Rates]] = []
    worst = Rates(*[0] * 8)
    for start in starts:
        for tiers in tables:
            worst = worst.dearest(rates_of(tiers, start + 1))
        found.append((start, worst))
    return tuple(found)


def _tiers(listed: types.ModelPrice) -> Tiers | None:
    """Rates by input size, or None where the model is not priced by its tokens."""
    if listed.input_mtok is None or listed.output_mtok is None:
        return None
    priced: Mapping[str, Decimal | types.TieredPrices] = {
        key: value for key, value in listed.__dict__.items() if value is not None
    }
    starts = {0}
    for value in priced.values():
        if isinstance(value, types.TieredPrices):
            starts |= {tier.start for tier in value.tiers}
    return tuple((start, _rates(priced, start)) for start in sorted(starts))


def _rates(priced: Mapping[str, Decimal | types.TieredPrices], start: int) -> Rates:
    def at(*names: str) -> int | None:
        found = [_at(priced[name], start) for name in names if name in priced]
        return max(map(pico_a_token, found)) if found else None

    sent, received = at("input_mtok") or 0, at("output_mtok") or 0
    written = at("cache_write_mtok", "cache_write_5m_mtok")
    written = sent if written is None else written
    hour = at("cache_write_1h_mtok")
    cached, reasoning = at("cache_read_mtok"), at("output_reasoning_mtok")
    media_in = at("input_audio_mtok", "input_image_mtok", "input_video_mtok")
    media_out = at("output_audio_mtok", "output_image_mtok", "output_video_mtok")
    request = priced.get("requests_kcount")
    return Rates(
        sent=sent,
        cached=sent if cached is None else cached,
        written=written,
        written_hour=written if hour is None else hour,
        sent_media=sent if media_in is None else media_in,
        received=received,
        reasoning=received if reasoning is None else reasoning,
        received_media=received if media_out is None else media_out,
        request=0 if request is None else pico_a_token(_at(request, start) * 1000),
    )


def _at(price: Decimal | types.TieredPrices, start: int) -> Decimal:
    if not isinstance(price, types.TieredPrices):
        return price
    found = price.base
    for tier in price.tiers:
        if tier.start <= start and start:
            found = tier.price
    return found


def tier_unknown(model: str, context: tuple[tuple[str, str], ...]) -> PriceUnknown:
    words = ", ".join(f"{name} {value}" for name, value in context)
    return PriceUnknown(
        f"What the model {model} costs with {words} is not known.",
        next_step="Send the request without it.",
    )
