"""How much of everybody's process one run's model requests may take.

Parsing JSON holds the interpreter: 16 MB take a quarter of a second in which nothing else runs here. So a run's bodies are parsed one
at a time and at a bounded rate, and a body made of nothing but brackets (which needs fifty times its size) is refused.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

#: A body up to this size costs nothing; what is above is paid for from the run's budget.
FREE_BYTES = 256 * 1024
BURST_BYTES = 48 * 1024 * 1024
BYTES_PER_SECOND = 6 * 1024 * 1024
#: Commas, brackets and braces of one body: an upper bound of the objects that parsing makes.
MAX_ELEMENTS = 1_000_000
MAX_REMEMBERED = 4096


@dataclass
class _Budget:
    left: float = field(default_factory=lambda: BURST_BYTES)
    at: float = field(default_factory=time.monotonic)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


_budgets: dict[int, _Budget] = {}


async def wait_turn(run_id: int, size: int) -> None:
    """Return when this run may have a body of so many bytes parsed; small ones at once."""
    if size <= FREE_BYTES:
        return
    budget = _budgets.setdefault(run_id, _Budget())
    async with budget.turn:
        now = time.monotonic()
        budget.left = min(BURST_BYTES, budget.left + (now - budget.at) * BYTES_PER_SECOND)
        budget.at = now
        budget.left -= size
        if budget.left < 0:
            await asyncio.sleep(-budget.left / BYTES_PER_SECOND)
    if len(_budgets) > MAX_REMEMBERED:
        _forget_full()


def too_many_elements(body: bytes) -> bool:
    """Whether parsing this body could make more than `MAX_ELEMENTS` objects."""
    return sum(body.count(sign) for sign in (b",", b"[", b"{")) > MAX_ELEMENTS


def _forget_full() -> None:
    """Drop the budgets that nobody waits for and that are full again by now."""
    now = time.monotonic()
    for run_id, budget in list(_budgets.items()):
        full = budget.left + (now - budget.at) * BYTES_PER_SECOND >= BURST_BYTES
        if full and not budget.turn.locked():
            del _budgets[run_id]
