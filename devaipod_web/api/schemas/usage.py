"""Schemas of what calls to models came to."""

from __future__ import annotations

from typing import Literal

from ninja import Field, Schema

from devaipod_web.api.schemas.common import Money, doc

GroupName = Literal["project", "run", "owner", "model", "provider", "day"]


class UsageRow(Schema):
    """What one group of calls came to."""

    group: str = doc(
        "The group's name: a short name, key, person, model, provider or day (UTC).", "payments"
    )
    calls: int = doc("Calls to models.", 118)
    failed_calls: int = doc("Of these, calls that were refused or failed.", 2)
    tokens_in: int = doc("Tokens that were sent.", 184200)
    tokens_cached: int = doc("Of these, tokens that the provider had in its cache.", 120000)
    tokens_out: int = doc("Tokens that were answered.", 9300)
    cost: Money = doc("What they cost, US dollars.", "0.41834500")
    unpriced_calls: int = doc("Calls whose price is not known; `cost` lacks them.", 0)


class UsageOut(Schema):
    """What calls to models came to, by group and together."""

    group_by: GroupName = doc("What is summed by.", "project")
    results: list[UsageRow] = Field(
        ..., description="The groups: the dearest first, days in their order."
    )
    more: bool = doc("Whether there are more groups than `limit`.", False)
    total: UsageRow = Field(..., description="All calls together, those of groups not shown too.")
