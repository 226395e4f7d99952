from __future__ import annotations

import asyncio
import threading
import time

import pytest
from django.db import connection

from devaipod_web import db

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
async def closed_after():
    yield
    await db.close_connections()


async def test_writes_share_one_thread_and_each_is_a_transaction():
    def look() -> tuple[int, bool]:
        return threading.get_ident(), connection.in_atomic_block

    seen = await asyncio.gather(*(db.write(look) for _ in range(20)))
    assert len({thread for thread, _ in seen}) == 1
    assert all(atomic for _, atomic in seen)


async def test_reads_run_beside_each_other():
    started = time.monotonic()
    await asyncio.gather(*(db.read(time.sleep, 0.1) for _ in range(db.READERS)))
    assert time.monotonic() - started < 0.1 * db.READERS * 0.75


async def test_a_write_that_fails_changes_nothing_and_says_so():
    from devaipod_web.accounts.models import User

    def half_done() -> None:
        User.objects.create(username="half")
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        await db.write(half_done)
    assert await db.read(User.objects.filter(username="half").exists) is False
