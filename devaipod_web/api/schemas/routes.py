"""Schemas of routes and prices."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from ninja import Schema

from devaipod_web.api.schemas.common import Body, Money, doc, optional
from devaipod_web.llm.models import Price, Route

KEY = "r7k2mx4dzb"
PROVIDER = "m4kz7q2xab"
WHEN = "2026-11-24T20:14:03.512Z"
PATTERN = "A model's name, in which `*` is any characters and `?` is one."
USD = r"^\d{1,8}(\.\d{1,6})?$"


class FallbackOut(Body):
    """Who is asked when the provider fails before a word came back."""

    provider: str = doc("A provider's key.", PROVIDER, max_length=20)
    model: str = doc("The model's name there; empty: the same name.", "gpt-4o", "", max_length=200)


class RouteOut(Schema):
    """Which provider takes a model."""

    key: str = doc("The route's public key.", KEY)
    position: int = doc("Its place; the first route that matches wins.", 1)
    pattern: str = doc(PATTERN, "claude-*")
    provider: str = doc("The provider's key.", PROVIDER)
    rewrite: str = doc(
        "The name that the provider is sent, or empty for the same name.", "claude-sonnet-4-5"
    )
    fallbacks: list[FallbackOut] = doc("Who is asked after it, in this order.", [])
    output_limit: int | None = doc("Tokens of one answer, where a request says none.", 32000)
    enabled: bool = doc("Whether it counts.", True)
    project: str | None = doc("The project's short name; null for all.", None)
    created_at: datetime = doc("When it was added, RFC 3339.", WHEN)

    @staticmethod
    def resolve_provider(obj: Route) -> str:
        return str(obj.provider.key)

    @staticmethod
    def resolve_project(obj: Route) -> str | None:
        return obj.project.slug if obj.project else None


class RouteIn(Body):
    """A new route, put at the end."""

    pattern: str = doc(PATTERN, "claude-*", max_length=200)
    provider: str = doc("The provider's key.", PROVIDER, max_length=20)
    rewrite: str = doc(
        "The name that the provider is sent; `*` stands for what the pattern's first `*` matched.",
        "claude-sonnet-4-5",
        "",
        max_length=200,
    )
    fallbacks: list[FallbackOut] = doc("Who is asked after it.", [], [], max_length=5)
    output_limit: int | None = optional("Tokens of one answer.", 32000, ge=1, le=1_000_000)
    enabled: bool = doc("Whether it counts.", True, True)
    project: str | None = optional("A project's short name; null: all.", max_length=60)


class RouteChanges(Body):
    """Fields to be changed; those not named stay."""

    pattern: str | None = optional(PATTERN, "claude-*", max_length=200)
    provider: str | None = optional("The provider's key.", PROVIDER, max_length=20)
    rewrite: str | None = optional("The name there.", "claude-sonnet-4-5", max_length=200)
    fallbacks: list[FallbackOut] | None = optional("Who is asked after it.", [], max_length=5)
    output_limit: int | None = optional("Tokens of one answer.", 32000, ge=1, le=1_000_000)
    enabled: bool | None = optional("Whether it counts.", True)
    project: str | None = optional("A project's short name; null: all.", max_length=60)


class RouteMove(Body):
    """Where a route is to stand."""

    position: int = doc("The place, from 1; beyond the end is the end.", 1, ge=1, le=1000)


class WhichOut(Schema):
    """Which route takes a model."""

    route: RouteOut | None = doc("The route, or null when none takes it.", None)
    model: str = doc("The name that its provider is sent.", "claude-sonnet-4-5")


class PriceOut(Schema):
    """What a manager says a model costs, in US dollars per million tokens."""

    key: str = doc("The price's public key.", KEY)
    pattern: str = doc(PATTERN, "house-*")
    project: str | None = doc("The project's short name; null for all.", None)
    is_ceiling: bool = doc("Whether it applies only where nobody knows the price.", False)
    sent: Money = doc("Input.", "0.5")
    received: Money = doc("Output.", "2")
    cached: Money | None = doc("Input that the provider had in its cache; null: as input.", None)
    written: Money | None = doc("Input that it took into its cache; null: as input.", None)
    reasoning: Money | None = doc("Output that the model thought; null: as output.", None)
    request: Money = doc("Per request, beside its tokens.", "0")
    created_at: datetime = doc("When it was entered, RFC 3339.", WHEN)

    @staticmethod
    def resolve_project(obj: Price) -> str | None:
        return obj.project.slug if obj.project else None


def _usd(description: str, example: str, default: Any = ...) -> Any:
    return doc(
        f"{description} US dollars as a decimal string.",
        example,
        default,
        pattern=USD,
        max_length=20,
    )


class PriceIn(Body):
    """A new price."""

    pattern: str = doc(PATTERN, "house-*", max_length=200)
    project: str | None = optional("A project's short name; null: all.", max_length=60)
    is_ceiling: bool = doc("Whether it applies only where nobody knows the price.", False, False)
    sent: str = _usd("Input, per million tokens.", "0.5")
    received: str = _usd("Output, per million tokens.", "2")
    cached: str | None = _usd("Input from the cache; null: as input.", "0.05", None)
    written: str | None = _usd("Input into the cache; null: as input.", "0.6", None)
    reasoning: str | None = _usd("Reasoning; null: as output.", "2", None)
    request: str = _usd("Per request.", "0", "0")


class PriceChanges(Body):
    """Fields to be changed; those not named stay."""

    pattern: str | None = optional(PATTERN, "house-*", max_length=200)
    project: str | None = optional("A project's short name; null: all.", max_length=60)
    is_ceiling: bool | None = optional("Whether it is a ceiling.", False)
    sent: str | None = _usd("Input, per million tokens.", "0.5", None)
    received: str | None = _usd("Output, per million tokens.", "2", None)
    cached: str | None = _usd("Input from the cache; null: as input.", "0.05", None)
    written: str | None = _usd("Input into the cache; null: as input.", "0.6", None)
    reasoning: str | None = _usd("Reasoning; null: as output.", "2", None)
    request: str | None = _usd("Per request.", "0", None)


def decimals(values: dict[str, Any], names: Any) -> dict[str, Any]:
    """The same values with those of `names` as decimals."""
    return {
        name: Decimal(value) if name in names and value is not None else value
        for name, value in values.items()
    }
