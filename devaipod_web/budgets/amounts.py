"""The words that ledger, journal and leases share: who pays, how much, and for what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: One `LlmCall` row as plain JSON values, column by column (`run_id`, `model`, `at` in ISO 8601, costs as decimal text).
#: Budgets keep it in the journal and hand it to `llm.calls.store` unread: its columns are the room llm's business.
CallRow = Mapping[str, str | int | bool | None]


@dataclass(frozen=True, slots=True)
class Payer:
    """Whose budgets a request counts against. Database ids, never shown."""

    run_id: int
    project_id: int
    person_id: int
    token_id: int | None = None


@dataclass(frozen=True, slots=True)
class Amount:
    """What a request costs, or may cost at most: pico US dollars (`money.PICO`), tokens of every kind together, requests."""

    pico_usd: int
    tokens: int
    requests: int = 1


#: What a request costs that never reached a provider.
NOTHING = Amount(0, 0, 0)


@dataclass(frozen=True, slots=True)
class LostCall:
    """A request whose process was killed before it was settled: its whole reservation is charged."""

    payer: Payer
    charged: Amount
    #: When it was reserved, seconds since 1970.
    at: float
