from __future__ import annotations

import pytest

from devaipod_web import db
from devaipod_web.gateway import tokens
from devaipod_web.llm import exchange, meter, snapshot
from tests.gateway.served import make_pod, serving


@pytest.fixture
async def gateway(transactional_db, tmp_path):
    tokens.forget_all()
    meter.forget_all()
    snapshot.forget_all()
    exchange.forget_all()
    async with serving(tmp_path) as served:
        yield served
    await db.close_connections()


@pytest.fixture
def pod(transactional_db, run):
    return make_pod(run)
