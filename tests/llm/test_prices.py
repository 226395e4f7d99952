"""What a request may cost at most, and what it did cost: exact, and never zero for want of knowledge."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devaipod_web.budgets.money import usd
from devaipod_web.llm import globs, prices
from devaipod_web.llm.errors import PriceUnknown
from devaipod_web.llm.forms import Action, Asked
from devaipod_web.llm.prices import Override
from devaipod_web.llm.rates import Source
from devaipod_web.llm.usage import Tokens

ASKED = Asked(Action.GENERATE, "m")


def find(model, kind="openai", *, base_url="https://api.openai.com/v1", overrides=(), context=()):
    ordered = prices.in_order(overrides)
    return prices.find(model, kind=kind, base_url=base_url, overrides=ordered, context=context)


def override(pattern, sent="1", received="2", **more):
    values: dict[str, Any] = {"is_ceiling": False, "of_project": False, **more}
    money: dict[str, Any] = {k: Decimal(v) if isinstance(v, str) else v for k, v in values.items()}
    return Override(pattern, sent=Decimal(sent), received=Decimal(received), **money)


def cost(price, asked=ASKED, **tokens):
    return usd(prices.cost(price, Tokens(**tokens), asked))


@pytest.mark.parametrize(
    ("model", "kind", "expected"),
    [
        ("gpt-4o", "openai", Decimal("0.004")),
        ("claude-sonnet-4-5", "anthropic", Decimal("0.00492")),
        ("claude-sonnet-4-5@20250929", "vertex", Decimal("0.00492")),
        ("gemini-2.5-pro", "gemini", Decimal("0.0028")),
        ("anthropic/claude-sonnet-4-5", "openai", Decimal("0.00492")),
    ],
)
def test_the_price_list_is_followed(model, kind, expected):
    assert cost(find(model, kind, base_url=""), sent=1000, cached=400, received=200) == expected


def test_a_long_input_costs_its_own_tier_for_all_of_it():
    price = find("claude-sonnet-4-5", "anthropic")
    assert cost(price, sent=200_000) == Decimal("0.6")
    assert cost(price, sent=200_001) == Decimal("1.200006")


def test_a_cache_that_is_written_costs_more():
    price = find("claude-sonnet-4-5", "anthropic")
    assert cost(price, sent=1000, written=1000) == Decimal("0.00375")
    assert cost(price, sent=1000, written_hour=1000) == Decimal("0.006")


def test_the_demo_is_free_and_nothing_else_is():
    assert find("scripted-demo", "demo").source is Source.FREE
    with pytest.raises(PriceUnknown, match="does not count as zero"):
        find("house-llm-7")


def test_a_managers_price_comes_before_the_list_and_the_projects_before_all():
    everywhere = override("gpt-*", "10", "20", cached="1", reasoning="30", request="0.5")
    price = find("gpt-4o", overrides=[everywhere])
    assert price.source is Source.MANAGER
    # 600 × 10 + 400 × 1 + 150 × 20 + 50 × 30 a million, and half a dollar a request
    assert cost(price, sent=1000, cached=400, received=200, reasoning=50) == Decimal("0.5109")
    own = override("*", "1", "1", of_project=True)
    assert cost(find("gpt-4o", overrides=[everywhere, own]), sent=1000) == Decimal("0.001")


def test_a_plain_name_comes_before_a_glob_and_a_long_glob_before_a_short_one():
    rows = [override("*", "1"), override("house-*", "2"), override("house-llm-7", "3")]
    assert cost(find("house-llm-7", overrides=rows), sent=10**6) == 3
    assert cost(find("house-llm-8", overrides=rows), sent=10**6) == 2
    assert cost(find("other", overrides=rows), sent=10**6) == 1


def test_a_ceiling_applies_only_where_nobody_knows_the_price():
    ceiling = override("*", "100", "200", is_ceiling=True)
    unknown = find("house-llm-7", overrides=[ceiling])
    assert unknown.unpriced
    assert cost(unknown, sent=1000, received=1000) == Decimal("0.3")
    assert find("gpt-4o", overrides=[ceiling]).source is Source.LIST


def test_a_price_of_zero_is_a_managers_word():
    price = find("house-llm-7", overrides=[override("house-*", "0", "0")])
    assert cost(price, sent=1000, received=10) == 0
    assert not price.unpriced


def test_a_dearer_tier_has_its_own_price_or_is_refused():
    fast = find("gpt-5", context=(("service_tier", "priority"),))
    assert cost(fast, sent=10**6) == 2 * cost(find("gpt-5"), sent=10**6)
    with pytest.raises(PriceUnknown, match="priority"):
        find("claude-sonnet-4-5", "anthropic", context=(("service_tier", "priority"),))
    with pytest.raises(PriceUnknown, match="fast"):
        find("house", overrides=[override("*")], context=(("speed", "fast"),))


def test_the_tier_that_was_served_is_the_one_that_is_paid():
    price = find("gpt-5")
    served = prices.served("gpt-5", price, "priority", ASKED, kind="openai", base_url="")
    assert cost(served, sent=10**6) == 2 * cost(price, sent=10**6)
    assert prices.served("gpt-5", price, "invented", ASKED, kind="openai", base_url="") is not None


LISTED = [
    ("gpt-4o", "openai"),
    ("gpt-5", "openai"),
    ("claude-sonnet-4-5", "anthropic"),
    ("claude-opus-4-6", "anthropic"),
    ("gemini-2.5-pro", "gemini"),
    ("deepseek-chat", "openai"),
]


@given(
    st.sampled_from(LISTED),
    st.integers(1, 3_000_000),
    st.integers(1, 200_000),
    st.integers(1, 8),
    st.booleans(),
    st.data(),
)
def test_nothing_costs_more_than_what_was_reserved(which, size, limit, choices, hour, data):
    asked = Asked(Action.GENERATE, "m", choices=choices, cache_hour=hour)
    price = find(*which, base_url="")
    worst = prices.bound(price, asked, size=size, limit=limit)
    sent = data.draw(st.integers(0, size + prices.HIDDEN_TOKENS))
    cached = data.draw(st.integers(0, sent))
    written = data.draw(st.integers(0, sent - cached))
    received = data.draw(st.integers(0, limit * choices))
    tokens = Tokens(
        sent=sent,
        cached=cached,
        written=0 if hour else written,
        written_hour=written if hour else 0,
        received=received,
        reasoning=data.draw(st.integers(0, received)),
    )
    for tier in ("", "default", "flex", "priority"):
        paid = prices.served(which[0], price, tier, asked, kind=which[1], base_url="")
        assert prices.cost(paid, tokens, asked) <= worst.pico_usd
    assert tokens.total <= worst.tokens


def test_pictures_count_by_themselves_and_not_by_their_characters():
    price = find("gpt-4o")
    picture = Asked(Action.GENERATE, "m", pictures=1, picture_characters=2_000_000)
    with_one = prices.bound(price, picture, size=2_001_000, limit=1)
    assert with_one.tokens == 1000 + prices.HIDDEN_TOKENS + prices.PICTURE_TOKENS + 1


def test_documents_count_the_whole_window():
    asked = Asked(Action.GENERATE, "m", media_in=True)
    assert prices.bound(find("gpt-4o"), asked, size=100, limit=1).tokens > 10**6


def test_counting_tokens_costs_a_request_and_nothing_else():
    asked = Asked(Action.COUNT, "m")
    assert prices.bound(find("gpt-4o"), asked, size=10**6, limit=10**6).pico_usd == 0


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_globs_match_as_the_shells_do(pattern, name):
    import fnmatch

    assert globs.matches(pattern, name) == fnmatch.fnmatchcase(name, pattern)


def test_a_glob_of_many_stars_is_quick():
    assert not globs.matches("*a" * 100, "a" * 99 + "b" * 100)
    assert globs.matches("*a" * 99 + "*", "a" * 200)


def test_a_glob_matches_in_either_case_and_nothing_else_is_special():
    assert globs.matches("GPT-4o*", "gpt-4o-mini")
    assert not globs.matches("gpt-4.1", "gpt-4x1")
    assert not globs.matches("[ab]", "a")


def test_a_rewrite_may_keep_what_the_star_matched():
    assert globs.rewritten("team/*", "*", "team/gpt-4o") == "gpt-4o"
    assert globs.rewritten("fast", "gpt-4o-mini", "fast") == "gpt-4o-mini"
    assert globs.rewritten("*", "", "gpt-4o") == "gpt-4o"
