"""Exact money: integers of 10⁻¹² US dollars ("pico") inside the gateway and in the tables of budgets.

SQLite keeps 15 significant digits of a decimal and adds decimals as floating-point numbers, so what is added up by an
UPDATE is an integer: 64 bits hold 9.2 million dollars in pico.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal

#: Pico in one US dollar.
PICO = 10**12
#: Decimal places of a pico dollar.
PLACES = 12


def pico(usd: Decimal) -> int:
    """US dollars as pico, rounded up: a fraction of a pico is never given away."""
    return int((usd * PICO).to_integral_value(rounding=ROUND_CEILING))


def usd(pico_usd: int) -> Decimal:
    """Pico as US dollars, exact."""
    return Decimal(pico_usd).scaleb(-PLACES)
