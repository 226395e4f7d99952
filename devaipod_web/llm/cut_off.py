"""Answers that ended before their token counts came: how often that may happen before a run is charged in full for it.

What such an answer cost is estimated from the bytes that came, and what a model thinks unseen is in none of them. An agent that hangs
up just before the counts would be charged too little each time, so good answers between do not make up for it: time does.
"""

from __future__ import annotations

import time
from collections import deque

#: An answer that is cut off counts in full when it is at least this one: in a row, or by the agent's own hand in `MEMORY_SECONDS`.
MAX_CUT_OFF = 3
#: The status of a call whose agent did not wait for its end.
HUNG_UP = 499
MEMORY_SECONDS = 600.0
#: Runs of which it is remembered how often.
MAX_REMEMBERED = 4096

_in_a_row: dict[int, int] = {}
_hung_up: dict[int, deque[float]] = {}


def ended_well(run_id: int) -> None:
    """The counts of an answer came, or the provider ended it without any."""
    _in_a_row.pop(run_id, None)


def again(run_id: int, *, by_agent: bool) -> int:
    """One more was cut off, by the agent that hung up or by the provider. Returns how often that counts by now."""
    for known in (_in_a_row, _hung_up):
        if len(known) >= MAX_REMEMBERED and run_id not in known:
            del known[next(iter(known))]
    _in_a_row[run_id] = _in_a_row.get(run_id, 0) + 1
    if not by_agent:
        return _in_a_row[run_id]
    now = time.monotonic()
    times = _hung_up.setdefault(run_id, deque(maxlen=MAX_CUT_OFF))
    times.append(now)
    return max(_in_a_row[run_id], sum(now - at < MEMORY_SECONDS for at in times))


def forget_all() -> None:
    """Forget whose answers were cut off; between tests."""
    _in_a_row.clear()
    _hung_up.clear()
