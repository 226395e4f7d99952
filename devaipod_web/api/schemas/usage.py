"""Schemas of what calls to models came to."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from ninja import Field, Schema

from devaipod_web.api.schemas.common import Money, doc

GroupName = Literal["project", "run", "owner", "agent", "model", "provider", "day"]
SeriesName = Literal["project", "run", "owner", "agent", "model", "provider"]
PeriodName = Literal["hour", "day", "week", "month"]
WHEN = "2026-11-24T20:14:03.512Z"


class Amounts(Schema):
    """What some calls came to."""

    calls: int = doc("Calls to models.", 118)
    failed_calls: int = doc("Of these, calls that were refused or failed.", 2)
    tokens_in: int = doc("Tokens that were sent.", 184200)
    tokens_cached: int = doc("Of these, tokens that the provider had in its cache.", 120000)
    tokens_out: int = doc("Tokens that were answered.", 9300)
    cost: Money = doc("What they cost, US dollars, exact.", "0.418345000000")
    unpriced_calls: int = doc(
        "Calls whose price nobody knows. They are charged at a manager's ceiling, but for those of `uncounted_calls`.",
        0,
    )
    uncounted_calls: int = doc("Calls whose cost is not known at all; `cost` lacks them.", 0)
    estimated_calls: int = doc(
        "Calls whose tokens were estimated, since the provider did not say them.", 0
    )


class UsageRow(Amounts):
    """What one group of calls came to."""

    group: str = doc(
        "The group's name: a short name, key, person, agent, model, provider or day (UTC); empty where it is not known.",
        "payments",
    )


class UsageOut(Schema):
    """What calls to models came to, by group and together."""

    group_by: GroupName = doc("What is summed by.", "project")
    results: list[UsageRow] = Field(
        ..., description="The groups: the dearest first, days in their order."
    )
    more: bool = doc("Whether there are more groups than `limit`.", False)
    total: UsageRow = Field(..., description="All calls together, those of groups not shown too.")


class SeriesRow(UsageRow):
    """What one group of calls came to in one period."""

    period: str = doc(
        "The period, UTC: `2026-11-24 20` (an hour), `2026-11-24` (a day, or a week by its Monday), `2026-11` (a month).",
        "2026-11-24",
    )


class SeriesOut(Schema):
    """What calls to models came to over time."""

    group_by: SeriesName = doc("What is summed by.", "project")
    per: PeriodName = doc("The length of the periods.", "day")
    results: list[SeriesRow] = Field(
        ..., description="In the order of time. A group without calls in a period is left out."
    )
    total: UsageRow = Field(..., description="All of them together.")


class MonthOut(Schema):
    """The present month (UTC), US dollars."""

    spent: Money = doc("Spent so far.", "412.600000000000")
    projected: Money | None = doc(
        "What it ends at, at this month's pace; null before its second day.", "537.12"
    )
    low: Money | None = doc(
        "Four of five months end between this and `high`, as much as days differ; null with fewer than seven full days.",
        "498.20",
    )
    high: Money | None = doc("The upper end of that.", "576.04")
    limit: Money | None = doc(
        "The monthly budget in US dollars of the project, or of the installation; null without one.",
        "600.00",
    )
    likely_under: float | None = doc(
        "How likely it ends at or under the limit, from 0 to 1; null where it cannot be said.", 0.9
    )


class SummaryOut(Schema):
    """The figures that managers look at first. US dollars."""

    since: datetime = doc("From this time on.", "2026-11-01T00:00:00Z")
    until: datetime = doc("Before this time.", WHEN)
    cost: Money = doc("What the calls of that time cost.", "412.600000000000")
    previous_cost: Money = doc("What those of as long a time before it cost.", "368.4")
    promoted_changes: int = doc("Changes that were promoted in that time.", 133)
    median_promoted_cost: Money | None = doc(
        "What the run of such a change cost, the median; null without any.", "3.10"
    )
    cost_per_promoted_change: Money | None = doc(
        "All cost of that time over its promoted changes; null without any.", "3.102255"
    )
    rejected_cost: Money = doc("What runs cost in that time whose change stands rejected.", "38.02")
    month: MonthOut = Field(..., description="The present month, whatever time is asked for.")


class CallOut(Schema):
    """One call to a model."""

    at: datetime = doc("When it was made.", WHEN)
    run: str = doc("The key of its run, also when that is deleted.", "b7kq2mx4dz")
    project: str = doc("The short name of its project.", "payments")
    owner: str = doc("Who asked for the run.", "alice")
    agent: str = doc("The agent profile.", "opencode")
    model: str = doc("The model.", "gpt-5-codex")
    provider: str = doc("The provider's name.", "Acme")
    form: str = doc("The wire form.", "openai-chat")
    status: int = doc("The HTTP status; 0 when the gateway was killed during it.", 200)
    milliseconds: int = doc("How long it took.", 5120)
    first_byte_milliseconds: int | None = doc("How long until the first byte, or null.", 840)
    tokens_in: int = doc("Tokens that were sent.", 18000)
    tokens_cached: int = doc("Of these, those that the provider had in its cache.", 12000)
    tokens_cache_written: int = doc("Of these, those that it put there.", 0)
    tokens_out: int = doc("Tokens that were answered.", 900)
    tokens_reasoning: int = doc("Of these, those of reasoning.", 300)
    cost: Money | None = doc(
        "What it cost, US dollars; null when that is not known.", "0.018345000000"
    )
    unpriced: bool = doc("Whether it was charged at a manager's ceiling.", False)
    estimated: bool = doc("Whether its tokens were estimated.", False)
    error: str = doc("What went wrong; empty when nothing did.", "")
