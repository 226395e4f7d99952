"""A receiver, a webhook that names it, and a sender that a test starts and ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from django.db.models import QuerySet
from django.utils import timezone

from devaipod_web import db
from devaipod_web.runs import wake
from devaipod_web.webhooks import services
from devaipod_web.webhooks.kinds import SUBSCRIBABLE
from devaipod_web.webhooks.models import Delivery
from devaipod_web.webhooks.sender import Sender
from tests.webhooks.receiver import Receiver, receiving


@pytest.fixture
def receiver(settings) -> Iterator[Receiver]:
    """On loopback, which a manager has listed."""
    settings.ALLOWED_PRIVATE_NETWORKS = ["127.0.0.0/8"]
    with receiving() as made:
        yield made


@pytest.fixture
def webhook(manager, receiver):
    """Asks for everything; the receiver knows its secret."""
    row, secret = services.create(
        manager, name="Ops", url=receiver.url, events=[str(kind) for kind in SUBSCRIBABLE]
    )
    receiver.secrets.append(secret)
    return row


@asynccontextmanager
async def sending(*owners: str) -> AsyncIterator[list[Sender]]:
    """Senders of this process, as `serve` starts one; ended as SIGTERM ends it."""
    stop = asyncio.Event()
    senders = [Sender(owner=owner) for owner in owners or ("",)]
    tasks = [asyncio.create_task(sender.run(stop)) for sender in senders]
    try:
        yield senders
    finally:
        stop.set()
        await asyncio.wait_for(asyncio.gather(*tasks), 20)


async def wait(condition: Callable[[], Any], what: str, seconds: float = 20) -> Any:
    """Wait until a condition on the database or the receiver holds, and return what it gave."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = await db.read(_evaluated, condition)
        if found:
            return found
        await asyncio.sleep(0.02)
    raise AssertionError(f"waited {seconds:.0f} s for {what}")


def _evaluated(condition: Callable[[], Any]) -> Any:
    found = condition()
    return list(found) if isinstance(found, QuerySet) else found


def bring_forward() -> int:
    """Let time pass: whatever waits for its next attempt is due now, and the sender looks."""
    wake.wake(wake.WEBHOOKS)
    return Delivery.objects.filter(state="queued").update(next_attempt_at=timezone.now())
