"""A run that asks seldom is not looked up at each of its requests, and a budget that is made later binds it all the same."""

from __future__ import annotations

import pytest

from devaipod_web import db
from devaipod_web.budgets import leases
from devaipod_web.budgets.amounts import Amount, Payer
from devaipod_web.budgets.errors import OverBudget
from devaipod_web.budgets.models import Scope
from devaipod_web.runs.models import Run
from tests.budgets.conftest import budget

pytestmark = pytest.mark.django_db(transaction=True)

ONE = Amount(1_000_000, 10)


@pytest.fixture
def payers(run, project, operator):
    others = [
        Run.objects.create(
            project=project, owner=operator, title="x", task="x", agent="opencode", wall_seconds=60
        )
        for _ in range(3)
    ]
    return [Payer(each.pk, project.pk, operator.pk) for each in (run, *others)]


async def test_runs_that_ask_in_turn_are_looked_up_a_few_times_in_all(payers, ledgers, monkeypatch):
    await db.write(budget, 100)
    ledger, looked = ledgers(), []
    real = leases.bind

    def bind(*args):
        looked.append(args)
        return real(*args)

    monkeypatch.setattr(leases, "bind", bind)
    for number in range(40):
        reservation = await ledger.reserve(payers[number % 4], ONE)
        ledger.settle(reservation, ONE, None)
        await ledger.beat()
    assert len(looked) <= 3 * len(payers)


async def test_a_budget_made_later_binds_everybody_and_a_runs_own_its_run(payers, ledgers):
    ledger = ledgers()
    for payer in payers:
        ledger.settle(await ledger.reserve(payer, ONE), ONE, None)
        await ledger.beat()
    await db.write(budget, 0, scope=Scope.RUN, run_id=payers[0].run_id)
    await ledger.beat()
    with pytest.raises(OverBudget):
        await ledger.reserve(payers[0], ONE)
    ledger.settle(await ledger.reserve(payers[1], ONE), ONE, None)
    await db.write(budget, 0)
    await ledger.beat()
    with pytest.raises(OverBudget):
        await ledger.reserve(payers[1], ONE)
