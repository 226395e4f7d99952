"""What a limit may be, and how one that a person typed becomes units."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

from devaipod_web.budgets.models import Metric, units

#: Highest limits: limit and extensions together, twice this, fit into 64 bits of pico.
MAX_LIMIT = {
    Metric.USD: Decimal(4_000_000),
    Metric.TOKENS: Decimal(10**15),
    Metric.REQUESTS: Decimal(10**12),
}


def amount(metric: str, value: Any) -> int:
    """Dollars, tokens or requests as units. Raises ValueError with a sentence."""
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        raise ValueError("It must be a number.") from None
    if not number.is_finite() or number < 0:
        raise ValueError("It must be a number from 0 on.")
    most = MAX_LIMIT[Metric(metric)]
    if number > most:
        raise ValueError(f"It must be at most {most:,}.")
    if metric != Metric.USD and number != number.to_integral_value():
        raise ValueError("It must be a whole number.")
    return units(metric, number)
