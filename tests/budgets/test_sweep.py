from __future__ import annotations

import shutil
from datetime import timedelta

import pytest
from django.utils import timezone

from devaipod_web import db
from devaipod_web.budgets import ledger as ledger_module
from devaipod_web.budgets.journal import Journal
from devaipod_web.budgets.ledger import Amount
from devaipod_web.budgets.models import BudgetLease, BudgetProcess
from devaipod_web.budgets.money import PICO
from devaipod_web.budgets.sweep import sweep
from devaipod_web.home import new_key
from devaipod_web.llm.models import LlmCall
from tests.budgets.conftest import budget, window_of

pytestmark = pytest.mark.django_db(transaction=True)

CENT = Amount(PICO // 100, 1000)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "budgets"


async def held_by_one(ledgers, payer):
    """A budget, and a ledger with one open reservation and something settled."""
    row = await db.write(budget, 1)
    ledger = ledgers()
    ledger.settle(await ledger.reserve(payer, CENT), Amount(PICO // 200, 1), None)
    await ledger.reserve(payer, CENT)
    return row, ledger


async def totals(row) -> tuple[int, int]:
    window = await db.read(window_of, row)
    return window.spent, window.leased


async def test_what_a_dead_process_left_is_settled_and_its_open_request_has_a_row(
    ledgers, payer, root
):
    row, ledger = await held_by_one(ledgers, payer)
    ledger.abandon()
    await sweep(root, "")
    assert await totals(row) == (PICO // 200 + CENT.pico_usd, 0)
    call = await db.read(LlmCall.objects.get)
    assert (call.status, call.estimated, call.run_id) == (0, True, payer.run_id)
    assert "killed" in call.error
    assert not list(root.iterdir())


async def test_a_process_that_lives_is_left_alone_however_old_its_heartbeat(ledgers, payer, root):
    row, _ = await held_by_one(ledgers, payer)
    before = await totals(row)
    await db.write(BudgetProcess.objects.update, heartbeat=timezone.now() - timedelta(days=1))
    await sweep(root, "")
    assert await totals(row) == before
    assert await db.read(BudgetProcess.objects.exists)


async def test_a_process_of_a_host_that_is_gone_is_charged_its_leases_after_an_hour(
    ledgers, payer, root
):
    row, ledger = await held_by_one(ledgers, payer)
    lease = await db.read(BudgetLease.objects.get)
    shutil.rmtree(ledger._journal.folder)
    await sweep(root, "")
    assert await totals(row) == (0, lease.amount)
    await db.write(BudgetProcess.objects.update, heartbeat=timezone.now() - timedelta(minutes=61))
    await sweep(root, "")
    assert await totals(row) == (lease.amount, 0)
    assert not await db.read(BudgetProcess.objects.exists)


async def test_a_process_without_a_sign_of_the_database_asks_before_it_spends(
    ledgers, payer, monkeypatch
):
    row, ledger = await held_by_one(ledgers, payer)
    await ledger.beat()
    monkeypatch.setattr(ledger_module, "FENCE_SECONDS", -1.0)
    await ledger.beat()
    await db.write(BudgetProcess.objects.all().delete)
    monkeypatch.undo()
    # It was taken for lost meanwhile: it may not spend what it held, and takes a new lease.
    before = await db.read(BudgetProcess.objects.count)
    ledger.settle(await ledger.reserve(payer, CENT), CENT, None)
    assert (before, await db.read(BudgetProcess.objects.count)) == (0, 1)
    assert (await db.read(BudgetLease.objects.get)).amount >= CENT.pico_usd
    await db.read(window_of, row)


async def test_a_folder_that_nobody_needs_is_removed_and_one_that_is_being_made_is_not(root):
    done, making = new_key(), new_key()
    Journal(root, done).close()
    made = Journal(root, making)
    await sweep(root, "")
    assert [path.name for path in root.iterdir()] == [making]
    made.remove()
    await db.close_connections()
