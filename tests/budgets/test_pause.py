"""A hard limit pauses the run in the moment of its incident, and room lets it go on. By the ledger itself and by the services."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone

from devaipod_web import db
from devaipod_web.budgets import incidents, leases, services
from devaipod_web.budgets.ledger import Amount, OverBudget, Payer
from devaipod_web.budgets.models import BudgetWindow, Incident, Metric
from devaipod_web.budgets.money import PICO
from devaipod_web.runs.errors import NotNow
from devaipod_web.runs.models import Run, RunPod, Turn
from devaipod_web.runs.services.commands import pending
from devaipod_web.runs.services.launch import launch
from devaipod_web.runs.services.pause import pause_by_hand, resume
from devaipod_web.runs.services.stop import stop
from devaipod_web.webhooks.models import Delivery, Webhook
from tests.budgets.conftest import budget
from tests.pages.conftest import begun

pytestmark = pytest.mark.django_db


@pytest.fixture
def working(project, operator):
    return begun(launch(project, operator, task="Retry webhooks with back-off."))


@pytest.fixture
def other(project, operator):
    return begun(launch(project, operator, task="Another."))


def hit(row, sidecar, at=None) -> Incident:
    window = leases.window_of(row, at or timezone.now())
    BudgetWindow.objects.filter(pk=window.pk).update(spent=window.cap)
    return refused(window.pk, sidecar.run.pk)


def refused(window_id: int, run_id: int) -> Incident:
    with transaction.atomic():
        return incidents.open_hard(window_id, run_id, 1)[0]


def close_ended(moment) -> int:
    with transaction.atomic():
        return incidents.close_ended(moment)


def now_of(sidecar) -> Run:
    return Run.objects.get(pk=sidecar.run.pk)


def said_to(sidecar) -> list[str]:
    return [c.payload["text"] for c in pending(sidecar.pod) if c.kind == "prompt"]


def made(manager, **more):
    given = {"scope": "installation", "metric": "usd", "window": "total", "limit": "5", **more}
    return services.create(manager, **given)


def test_the_run_is_paused_with_the_incidents_words_and_a_webhook_is_told(manager, working):
    Webhook.objects.create(name="Ops", url="https://x.example/", events=["budget.exceeded"])
    incident = hit(made(manager), working)
    run = now_of(working)
    assert (run.state, run.pause_cause, run.finding_code) == ("paused", "budget", "budget-used-up")
    assert run.reason == incident.message
    assert "raise the budget" in run.next_step
    assert [command.kind for command in pending(working.pod)] == ["cancel"]
    assert Delivery.objects.get().kind == "budget.exceeded"


def test_a_soft_incident_only_warns(manager, working):
    window = leases.window_of(made(manager), timezone.now())
    BudgetWindow.objects.filter(pk=window.pk).update(spent=4 * PICO)
    incidents.warn({window.pk: working.run.pk})
    assert Incident.objects.get().level == "soft"
    assert now_of(working).state == "running"


def test_raising_lets_every_run_go_on_that_the_budget_paused(manager, working, other):
    row = made(manager)
    hit(row, working), hit(row, other)
    services.resolve(Incident.objects.filter(run=other.run).get(), manager, "raise", amount="10")
    words = "Mona raised the budget of the installation to $10.00. Go on where you stopped."
    for sidecar in (working, other):
        assert now_of(sidecar).state == "running"
        assert said_to(sidecar) == [words]
        assert sidecar.run.turns.last().by == manager
    assert not Incident.objects.filter(state="open").exists()


def test_extending_does_too_and_says_by_how_much(manager, working):
    row = made(manager, scope="run", subject=working.run, metric="requests", limit=2)
    services.resolve(hit(row, working), manager, "extend", amount="20")
    assert now_of(working).state == "running"
    assert said_to(working) == [
        "Mona extended the budget of this run once by 20 requests. Go on where you stopped."
    ]


def test_a_limit_that_is_changed_to_give_room_does_too_and_one_that_gives_none_does_not(
    manager, working
):
    row = made(manager)
    hit(row, working)
    services.update(row, manager, {"limit": "4"})
    assert now_of(working).state == "paused"
    services.update(row, manager, {"limit": "7.50"})
    assert now_of(working).state == "running"
    assert Incident.objects.get().how == "raised"


def test_a_run_that_another_incident_holds_stays_paused(manager, working):
    dollars = hit(made(manager), working)
    window = leases.window_of(made(manager, metric="requests", limit=2), timezone.now())
    requests = refused(window.pk, working.run.pk)
    services.resolve(dollars, manager, "raise", amount="10")
    assert now_of(working).state == "paused"
    with pytest.raises(NotNow, match=requests.key):
        resume(working.run, manager)
    services.resolve(requests, manager, "extend", amount="5")
    assert now_of(working).state == "running"
    assert len(said_to(working)) == 1


def test_by_hand_it_goes_on_only_after_somebody_decided(manager, operator, working):
    incident = hit(made(manager), working)
    with pytest.raises(NotNow, match=f"while incident {incident.key} is open"):
        resume(working.run, operator)
    services.resolve(incident, manager, "dismiss")
    assert now_of(working).state == "paused"
    resume(working.run, operator)
    assert now_of(working).state == "running"
    assert refused(incident.window_id, working.run.pk) != incident
    assert now_of(working).state == "paused"


def test_stopping_by_the_incident_stops_a_paused_run(manager, working):
    services.resolve(hit(made(manager), working), manager, "stop")
    assert now_of(working).state == "stopped"


def test_stopping_the_run_itself_resolves_what_held_it_and_leaves_warnings(manager, working):
    hit(made(manager), working)
    soft = made(manager, metric="requests", limit=4)
    window = leases.window_of(soft, timezone.now())
    BudgetWindow.objects.filter(pk=window.pk).update(spent=4)
    incidents.warn({window.pk: working.run.pk})
    stop(working.run, manager)
    assert set(Incident.objects.values_list("level", "state", "how")) == {
        ("hard", "resolved", "stopped"),
        ("soft", "open", ""),
    }


@pytest.mark.parametrize("way", ["disabled", "removed"])
def test_a_budget_out_of_force_holds_no_run(manager, working, way):
    row = made(manager)
    hit(row, working)
    if way == "disabled":
        services.update(row, manager, {"enabled": False})
    else:
        services.remove(row, manager)
    assert now_of(working).state == "running"
    assert said_to(working)[0].startswith("Mona ") and "the installation" in said_to(working)[0]
    assert Incident.objects.get().how == "dismissed"


def test_the_next_day_lets_it_go_on(manager, working):
    hit(made(manager, window="day"), working)
    assert close_ended(timezone.now()) == 0
    assert now_of(working).state == "paused"
    assert close_ended(timezone.now() + timedelta(days=1)) == 1
    assert now_of(working).state == "running"
    assert said_to(working)[0].startswith("The budget's next day or month has begun.")


def test_with_its_pod_gone_it_waits_for_a_place(manager, working):
    incident = hit(made(manager), working)
    RunPod.objects.update(ended_at=timezone.now(), removed_at=timezone.now())
    services.resolve(incident, manager, "raise", amount="10")
    assert now_of(working).state == "queued"
    assert Turn.objects.filter(run=working.run, started_at=None).count() == 1


def test_what_a_person_paused_is_not_let_go_on_by_a_budget(manager, operator, working):
    pause_by_hand(working.run, operator)
    incident = hit(made(manager), working)
    assert now_of(working).pause_cause == "person"
    services.resolve(incident, manager, "raise", amount="10")
    assert now_of(working).state == "paused"


def test_a_run_that_has_ended_is_not_paused_by_its_last_request(manager, working):
    stop(working.run, manager)
    hit(made(manager), working)
    assert now_of(working).state == "stopped"


@pytest.mark.django_db(transaction=True)
async def test_the_ledger_pauses_before_it_refuses_and_spends_again_as_soon_as_there_is_room(
    ledgers, working, manager
):
    """Also with beats and other runs that look at the window all the time: nobody is refused by what was seen before the raise."""
    row = await db.write(budget, 2, metric=Metric.REQUESTS)
    run = working.run
    payer = Payer(run.pk, run.project_id, run.owner_id)
    ledger = ledgers()
    stop = asyncio.Event()
    running = asyncio.create_task(ledger.run(stop))
    for _ in range(2):
        ledger.settle(await ledger.reserve(payer, Amount(0, 0)), Amount(0, 0), None)
    with pytest.raises(OverBudget):
        await ledger.reserve(payer, Amount(0, 0))
    assert (await db.read(now_of, working)).state == "paused"
    for limit in range(3, 8):
        incident = await db.read(Incident.objects.get, state="open")
        await ledger.beat()
        await db.write(services.resolve, incident, manager, "raise", amount=str(limit))
        assert (await db.read(now_of, working)).state == "running"
        ledger.settle(await ledger.reserve(payer, Amount(0, 0)), Amount(0, 0), None)
        with pytest.raises(OverBudget):
            await ledger.reserve(payer, Amount(0, 0))
        assert (await db.read(now_of, working)).state == "paused"
    assert await db.read(lambda: Incident.objects.filter(budget=row).count()) == 6
    stop.set()
    await running
