from __future__ import annotations

import asyncio

import pytest

from devaipod_web import db
from devaipod_web.budgets import ledger
from devaipod_web.gateway import tokens
from devaipod_web.llm import cut_off, meter, snapshot
from tests.gateway.served import make_pod, serving


@pytest.fixture
async def gateway(transactional_db, tmp_path, monkeypatch):
    tokens.forget_all()
    meter.forget_all()
    snapshot.forget_all()
    cut_off.forget_all()
    monkeypatch.setattr(ledger, "BEAT_SECONDS", 0.05)
    stop = asyncio.Event()
    async with serving(tmp_path) as served:
        accounts = asyncio.create_task(ledger.current().run(stop))
        yield served
        # Whatever went wrong in the test: each request that had a reservation has settled it.
        async with asyncio.timeout(5):
            while ledger.current()._open:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    stop.set()
    await accounts
    await db.close_connections()


@pytest.fixture
def pod(transactional_db, run):
    return make_pod(run)
