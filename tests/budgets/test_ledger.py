from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from django.db import OperationalError

from devaipod_web import db
from devaipod_web.budgets import ledger as ledger_module
from devaipod_web.budgets.ledger import NOTHING, Amount, OverBudget, Payer, SettledTwice
from devaipod_web.budgets.models import (
    BudgetLease,
    BudgetProcess,
    BudgetWindow,
    Incident,
    Level,
    Metric,
    Scope,
    Window,
)
from devaipod_web.budgets.money import PICO, pico
from devaipod_web.llm.models import LlmCall
from devaipod_web.runs.models import Run, RunEvent
from tests.budgets.conftest import NOON, budget, window_of

pytestmark = pytest.mark.django_db(transaction=True)

CENT = Amount(PICO // 100, 1000)


def row(payer: Payer, amount: Amount = CENT) -> dict[str, str | int | bool | None]:
    return {
        "run_id": payer.run_id,
        "provider_kind": "openai",
        "model": "m-1",
        "at": "2026-11-24T12:00:00+00:00",
        "status": 200,
        "tokens_out": amount.tokens,
        "cost": str(Decimal(amount.pico_usd) / PICO),
    }


async def spent(row_) -> tuple[int, int]:
    found = await db.read(window_of, row_)
    return found.spent, found.leased


async def test_a_request_is_reserved_settled_and_written_with_the_next_batch(ledgers, payer):
    row_ = await db.write(budget, 1)
    ledger = ledgers()
    held = await ledger.reserve(payer, Amount(PICO // 10, 5000))
    ledger.settle(held, CENT, row(payer))
    assert await db.read(LlmCall.objects.count) == 0
    assert await ledger.beat()
    assert (await spent(row_))[0] == CENT.pico_usd
    call = await db.read(LlmCall.objects.get)
    assert (call.cost, call.tokens_out) == (Decimal("0.01"), 1000)
    run = await db.read(Run.objects.get)
    assert (run.cost, run.tokens_out) == (Decimal("0.01"), 1000)


async def test_while_its_lease_suffices_a_process_does_not_ask_the_database(
    ledgers, payer, monkeypatch
):
    await db.write(budget, 100)
    ledger = ledgers()
    ledger.settle(await ledger.reserve(payer, CENT), CENT, None)

    async def refuse(*args, **kwargs):
        raise AssertionError("the database was asked")

    with monkeypatch.context() as patch:
        patch.setattr(db, "write", refuse)
        patch.setattr(db, "read", refuse)
        for _ in range(3):
            ledger.settle(await ledger.reserve(payer, CENT), CENT, None)


async def test_the_database_is_asked_ever_more_rarely(ledgers, payer, monkeypatch):
    await db.write(budget, 100)
    ledger = ledgers()
    trips = 0
    write = db.write

    async def count(*args, **kwargs):
        nonlocal trips
        trips += 1
        return await write(*args, **kwargs)

    monkeypatch.setattr(db, "write", count)
    for _ in range(1000):
        ledger.settle(await ledger.reserve(payer, CENT), CENT, None)
    assert trips < 15


@pytest.mark.parametrize(
    ("scope", "subject"),
    [
        (Scope.INSTALLATION, lambda run: {}),
        (Scope.PROJECT, lambda run: {"project": run.project}),
        (Scope.PERSON, lambda run: {"person": run.owner}),
        (Scope.RUN, lambda run: {"run": run}),
    ],
)
async def test_a_budget_binds_whoever_is_in_its_scope(ledgers, payer, run, scope, subject):
    await db.write(budget, "0.01", scope=scope, **subject(run))
    ledger = ledgers()
    with pytest.raises(OverBudget) as refused:
        await ledger.reserve(payer, Amount(PICO // 50, 1))
    assert refused.value.scope == scope
    assert "$0.00 of $0.01 are spent, and it may cost up to $0.02" in refused.value.message


async def test_a_budget_of_a_token_binds_its_calls_alone(ledgers, payer, operator):
    from devaipod_web.accounts import tokens

    token, _ = await db.write(tokens.create, operator, "ci")
    await db.write(budget, "0.01", scope=Scope.TOKEN, token=token)
    ledger = ledgers()
    by_token = Payer(payer.run_id, payer.project_id, payer.person_id, token.pk)
    with pytest.raises(OverBudget, match="API token ci"):
        await ledger.reserve(by_token, Amount(PICO, 1))
    ledger.settle(await ledger.reserve(payer, Amount(PICO, 1)), NOTHING, None)


async def test_all_budgets_must_have_room_or_none_is_charged(ledgers, payer, run):
    rich = await db.write(budget, 100)
    poor = await db.write(
        budget, 3, metric=Metric.REQUESTS, scope=Scope.PROJECT, project=run.project
    )
    ledger = ledgers()
    for _ in range(3):
        ledger.settle(await ledger.reserve(payer, CENT), CENT, None)
    with pytest.raises(OverBudget) as refused:
        await ledger.reserve(payer, CENT)
    assert (refused.value.metric, refused.value.budget) == ("requests", poor.key)
    assert "3 requests of 3 requests are spent" in refused.value.message
    await ledger.beat()
    assert (await spent(rich))[0] == 3 * CENT.pico_usd
    assert await spent(poor) == (3, 0)


async def test_the_last_cent_can_be_spent_and_not_one_pico_more(ledgers, payer):
    row_ = await db.write(budget, "0.01")
    ledger = ledgers()
    ledger.settle(await ledger.reserve(payer, CENT), CENT, None)
    with pytest.raises(OverBudget):
        await ledger.reserve(payer, Amount(1, 0))
    await ledger.beat()
    assert await spent(row_) == (pico(Decimal("0.01")), 0)


async def test_a_request_waits_for_room_that_others_hold(ledgers, payer):
    await db.write(budget, "0.01")
    ledger = ledgers()
    first = await ledger.reserve(payer, CENT)
    second = asyncio.create_task(ledger.reserve(payer, Amount(PICO // 200, 1)))
    await asyncio.sleep(0.1)
    assert not second.done()
    ledger.settle(first, Amount(PICO // 200, 1), None)
    ledger.settle(await asyncio.wait_for(second, 5), Amount(PICO // 200, 1), None)


async def test_who_waits_in_vain_is_refused(ledgers, payer, monkeypatch):
    monkeypatch.setattr(ledger_module, "PATIENCE_SECONDS", 0.3)
    await db.write(budget, "0.01")
    ledger = ledgers()
    await ledger.reserve(payer, CENT)
    with pytest.raises(OverBudget, match=r"\$0.01 are held by requests under way"):
        await ledger.reserve(payer, CENT)


async def test_a_cancelled_request_holds_nothing(ledgers, payer):
    row_ = await db.write(budget, "0.01")
    ledger = ledgers()
    asking = asyncio.create_task(ledger.reserve(payer, CENT))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    ledger.settle(await ledger.reserve(payer, CENT), CENT, None)
    await ledger.beat()
    assert await spent(row_) == (CENT.pico_usd, 0)


async def test_an_idle_lease_goes_back(ledgers, payer, clock):
    row_ = await db.write(budget, 1)
    ledger = ledgers()
    ledger.settle(await ledger.reserve(payer, CENT), CENT, None)
    await ledger.beat()
    assert (await spent(row_))[1] > 0
    clock.now += 31
    await ledger.beat()
    assert await spent(row_) == (CENT.pico_usd, 0)
    assert not await db.read(BudgetLease.objects.exists)


async def test_one_process_finds_the_room_that_another_held_and_did_not_need(ledgers, payer):
    await db.write(budget, "0.08")
    one, two = ledgers(), ledgers()
    one.settle(await one.reserve(payer, CENT), CENT, None)
    asking = asyncio.create_task(two.reserve(payer, Amount(7 * PICO // 100, 1)))
    for _ in range(6):
        await asyncio.sleep(0.1)
        await one.beat()
        await two.beat()
    await asyncio.wait_for(asking, 1)


async def test_a_second_settlement_changes_nothing_and_is_refused(ledgers, payer):
    row_ = await db.write(budget, 1)
    ledger = ledgers()
    held = await ledger.reserve(payer, CENT)
    ledger.settle(held, CENT, row(payer))
    with pytest.raises(SettledTwice):
        ledger.settle(held, CENT, row(payer))
    await ledger.beat()
    assert (await spent(row_))[0] == CENT.pico_usd
    assert await db.read(LlmCall.objects.count) == 1


async def test_a_provider_that_lied_is_counted_in_full(ledgers, payer):
    row_ = await db.write(budget, "0.05")
    ledger = ledgers()
    held = await ledger.reserve(payer, CENT)
    other = await ledger.reserve(payer, CENT)
    ledger.settle(held, Amount(PICO, 1), None)
    assert held.overrun
    await ledger.beat()
    # The open reservation keeps its promise, above the limit.
    assert await spent(row_) == (PICO, CENT.pico_usd)
    with pytest.raises(OverBudget):
        await ledger.reserve(payer, Amount(1, 0))
    ledger.settle(other, CENT, None)
    await ledger.beat()
    assert await spent(row_) == (PICO + CENT.pico_usd, 0)


async def test_a_reservation_from_before_midnight_settles_in_its_own_day(ledgers, payer, clock):
    row_ = await db.write(budget, "0.01", window=Window.DAY)
    ledger = ledgers()
    clock.now = NOON + 12 * 3600 - 1
    late = await ledger.reserve(payer, CENT)
    clock.now += 2
    early = await ledger.reserve(payer, CENT)
    ledger.settle(late, CENT, None)
    await ledger.beat()
    first, second = await db.read(lambda: list(row_.windows.order_by("start")))
    assert (first.spent, first.leased) == (CENT.pico_usd, 0)
    assert (second.spent, second.leased) == (0, CENT.pico_usd)
    assert (first.end, second.end - second.start) == (second.start, first.end - first.start)
    ledger.settle(early, NOTHING, None)


async def test_a_month_begins_on_its_first(ledgers, payer, clock):
    row_ = await db.write(budget, 1, window=Window.MONTH)
    ledger = ledgers()
    for _ in range(2):
        ledger.settle(await ledger.reserve(payer, CENT), CENT, None)
        clock.now += 7 * 86400
    await ledger.beat()
    days = await db.read(lambda: [w.start.strftime("%m-%d") for w in row_.windows.all()])
    assert days == ["12-01", "11-01"]


async def test_people_are_warned_once_when_a_window_passes_its_threshold(ledgers, payer):
    row_ = await db.write(budget, "0.10", soft=50)
    ledger = ledgers()
    for _ in range(7):
        ledger.settle(await ledger.reserve(payer, CENT), CENT, None)
        await ledger.beat()
    incident = await db.read(Incident.objects.get)
    assert (incident.level, incident.budget_id) == (Level.SOFT, row_.pk)
    note = await db.read(RunEvent.objects.get)
    assert note.payload["text"] == "$0.05 of the $0.10 that the installation may spend are spent."


async def test_a_refusal_opens_one_incident_that_says_what_happened(ledgers, payer):
    row_ = await db.write(budget, "0.01")
    ledger = ledgers()
    keys = set()
    for _ in range(3):
        with pytest.raises(OverBudget) as refused:
            await ledger.reserve(payer, Amount(PICO, 1))
        keys.add(refused.value.incident)
    incident = await db.read(Incident.objects.get)
    assert keys == {incident.key}
    assert (incident.level, incident.budget_id) == (Level.HARD, row_.pk)


async def test_a_new_limit_reaches_every_process_on_its_next_beat(ledgers, payer):
    row_ = await db.write(budget, "0.01")
    one, two = ledgers(), ledgers()
    for ledger in (one, two):
        with pytest.raises(OverBudget):
            await ledger.reserve(payer, Amount(PICO, 1))
    from devaipod_web.budgets import services

    await db.write(services.raise_limit, row_, None, Decimal(2))
    for ledger in (one, two):
        await asyncio.sleep(0.25)
        ledger.settle(await ledger.reserve(payer, Amount(PICO, 1)), NOTHING, None)


async def test_a_new_budget_binds_runs_that_are_under_way(ledgers, payer):
    ledger = ledgers()
    await db.write(budget, 5)
    ledger.settle(await ledger.reserve(payer, CENT), CENT, None)
    await ledger.beat()
    await db.write(budget, 1, metric=Metric.REQUESTS)
    await ledger.beat()
    ledger.settle(await ledger.reserve(payer, CENT), CENT, None)
    with pytest.raises(OverBudget, match="1 request"):
        await ledger.reserve(payer, CENT)


async def test_a_new_budget_begins_with_what_was_spent_before_it(ledgers, payer, clock):
    ledger = ledgers()
    clock.now = __import__("time").time()
    for _ in range(2):
        today = {**row(payer), "at": __import__("datetime").datetime.now().astimezone().isoformat()}
        ledger.settle(await ledger.reserve(payer, CENT), CENT, today)
    await ledger.beat()
    made = [
        await db.write(budget, 1, window=Window.MONTH),
        await db.write(budget, 1000000, metric=Metric.TOKENS),
        await db.write(budget, 10, metric=Metric.REQUESTS, window=Window.DAY),
    ]
    await ledger.beat()
    await ledger.reserve(payer, CENT)
    assert [(await spent(row_))[0] for row_ in made] == [2 * CENT.pico_usd, 2000, 2]


async def test_when_the_database_fails_nothing_is_lost_and_nothing_counted_twice(
    ledgers, payer, monkeypatch
):
    row_ = await db.write(budget, 1)
    ledger = ledgers()
    ledger.settle(await ledger.reserve(payer, CENT), CENT, row(payer))
    write = db.write

    async def lost_answer(fn, *args, **kwargs):
        await write(fn, *args, **kwargs)
        raise OperationalError("the connection was lost after the commit")

    with monkeypatch.context() as patch:
        patch.setattr(db, "write", lost_answer)
        assert not await ledger.beat()
    ledger.settle(await ledger.reserve(payer, CENT), CENT, row(payer))
    assert await ledger.beat()
    assert await ledger.beat()
    assert (await spent(row_))[0] == 2 * CENT.pico_usd
    assert await db.read(LlmCall.objects.count) == 2


async def test_a_process_that_was_taken_for_dead_begins_again(ledgers, payer):
    row_ = await db.write(budget, 1)
    ledger = ledgers()
    held = await ledger.reserve(payer, CENT)
    lease = await db.read(BudgetLease.objects.get)

    def reap() -> None:
        from devaipod_web.budgets import leases

        leases.give_back(lease.process_id, {lease.window_id: lease.amount})
        BudgetProcess.objects.all().delete()

    await db.write(reap)
    ledger.settle(held, CENT, row(payer))
    await ledger.beat()
    ledger.settle(await ledger.reserve(payer, CENT), CENT, row(payer))
    await ledger.beat()
    await ledger.beat()
    assert (await spent(row_))[0] == lease.amount + CENT.pico_usd
    assert await db.read(LlmCall.objects.count) == 2


async def test_at_its_end_a_process_writes_everything_and_returns_its_leases(ledgers, payer):
    row_ = await db.write(budget, 1)
    ledger = ledgers()
    stop = asyncio.Event()
    running = asyncio.create_task(ledger.run(stop))
    ledger.settle(await ledger.reserve(payer, CENT), CENT, row(payer))
    stop.set()
    await running
    assert await spent(row_) == (CENT.pico_usd, 0)
    assert await db.read(LlmCall.objects.count) == 1
    assert not await db.read(BudgetProcess.objects.exists)
    assert await db.read(BudgetWindow.objects.count) == 1


async def test_a_call_that_cannot_be_stored_holds_up_nothing(ledgers, payer):
    row_ = await db.write(budget, 1)
    ledger = ledgers()
    for bad in (
        row(payer),
        {**row(payer), "status": None},
        {**row(payer), "cost": "x"},
        row(payer),
    ):
        ledger.settle(await ledger.reserve(payer, CENT), CENT, bad)
    await ledger.beat()
    assert (await spent(row_))[0] == 4 * CENT.pico_usd
    assert await db.read(LlmCall.objects.count) == 2
