"""When a delivery that failed is tried again."""

from __future__ import annotations

import random
from datetime import timedelta

#: From each failed attempt to the next, as Standard Webhooks recommends: ten attempts over some 76 hours.
DELAYS = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
ATTEMPTS = len(DELAYS) + 1
#: Each delay is longer by up to this part of it, so that what failed together does not come back together.
JITTER = 0.1
#: The longest time that a receiver's `Retry-After` is believed.
MAX_RETRY_AFTER = timedelta(hours=24)
#: How long a receiver that answers 429 without `Retry-After` is left alone.
QUIET = timedelta(seconds=60)
#: A webhook whose receiver took nothing for so long is disabled.
DISABLE_AFTER = timedelta(days=3)


def delay(attempts: int) -> timedelta | None:
    """How long after its failed attempt number `attempts` (from 1) a delivery is tried again; None when it is given up."""
    if attempts > len(DELAYS):
        return None
    return DELAYS[attempts - 1] * random.uniform(1, 1 + JITTER)  # noqa: S311 - jitter
