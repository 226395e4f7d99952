"""How much of everybody's process one run's model requests may take.

Parsing JSON holds the interpreter: 16 MB of text take a quarter of a second in which nothing else runs here, and one megabyte of nothing
but brackets takes a second. So a run's bodies are parsed one at a time and at a bounded rate, by their size and by the number of
their values, and a body of too many values is refused.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

#: A body up to this weight costs nothing; what is above is paid for from the run's budget.
FREE_BYTES = 256 * 1024
#: A body up to this size is not even weighed: whatever is in it, it is read in some ten milliseconds.
SMALL_BYTES = 16 * 1024
#: What reading one value takes, in bytes of text that are read in the same time.
ELEMENT_BYTES = 96
BURST_BYTES = 48 * 1024 * 1024
BYTES_PER_SECOND = 6 * 1024 * 1024
#: Commas, brackets and braces of one body: an upper bound of the objects that parsing makes.
MAX_ELEMENTS = 1_000_000
MAX_REMEMBERED = 4096


class TooManyValues(Exception):
    """Parsing the body could make more than `MAX_ELEMENTS` objects."""


@dataclass
class _Budget:
    left: float = field(default_factory=lambda: BURST_BYTES)
    at: float = field(default_factory=time.monotonic)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


_budgets: dict[int, _Budget] = {}


async def wait_turn(run_id: int, body: bytes) -> None:
    """Return when this run may have this body parsed; small ones at once. Raises `TooManyValues`."""
    size = len(body)
    if size <= SMALL_BYTES:
        return
    elements = sum(body.count(sign) for sign in (b",", b"[", b"{"))
    if elements > MAX_ELEMENTS:
        raise TooManyValues
    size += elements * ELEMENT_BYTES
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


def _forget_full() -> None:
    """Drop the budgets that nobody waits for and that are full again by now."""
    now = time.monotonic()
    for run_id, budget in list(_budgets.items()):
        full = budget.left + (now - budget.at) * BYTES_PER_SECOND >= BURST_BYTES
        if full and not budget.turn.locked():
            del _budgets[run_id]
