from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from devaipod_web.budgets import incidents, leases, queries, run_limits, services
from devaipod_web.budgets.errors import BudgetError, BudgetExists, IncidentClosed, InvalidBudget
from devaipod_web.budgets.ledger import Payer
from devaipod_web.budgets.models import (
    Budget,
    BudgetWindow,
    How,
    Incident,
    IncidentState,
    Metric,
    Scope,
    Window,
)
from devaipod_web.budgets.money import PICO, pico, usd
from devaipod_web.budgets.windows import bounds
from devaipod_web.reviews.models import AuditEntry
from devaipod_web.runs.models import Run
from devaipod_web.runs.services.launch import launch
from devaipod_web.runs.states import State
from tests.budgets.conftest import budget

pytestmark = pytest.mark.django_db


def made(manager, **more) -> Budget:
    given = {"scope": "installation", "metric": "usd", "window": "month", "limit": "10", **more}
    return services.create(manager, **given)


def actions() -> list[str]:
    return list(AuditEntry.objects.order_by("id").values_list("action", flat=True))


def now_of(row: Budget) -> BudgetWindow:
    return leases.window_of(row, timezone.now())


def refused(row: Budget, run: Run) -> Incident:
    return incidents.open_hard(now_of(row).pk, run.pk, PICO)[0]


# --- money and windows --------------------------------------------------------------------------------------------


def test_money_is_exact_and_never_rounded_down():
    assert pico(Decimal("0.000000000001")) == 1
    assert pico(Decimal("0.0000000000001")) == 1
    assert usd(pico(Decimal("12345.678901234567"))) == Decimal("12345.678901234567")


@pytest.mark.parametrize(
    ("window", "at", "start", "end"),
    [
        (Window.DAY, "2026-12-31T23:59:59.999999", "2026-12-31", "2027-01-01"),
        (Window.MONTH, "2026-12-31T23:59:59", "2026-12-01", "2027-01-01"),
        (Window.MONTH, "2028-02-29T00:00:00", "2028-02-01", "2028-03-01"),
        (Window.MONTH, "2026-01-31T12:00:00", "2026-01-01", "2026-02-01"),
    ],
)
def test_windows_end_at_midnight_utc(window, at, start, end):
    found = bounds(window, datetime.fromisoformat(at).replace(tzinfo=UTC))
    assert [moment.date().isoformat() for moment in found] == [start, end]


# --- budgets ------------------------------------------------------------------------------------------------------


def test_a_budget_is_set_changed_and_removed_and_the_audit_log_says_so(manager, project):
    row = made(manager, scope="project", subject=project, limit=Decimal("12.5"), note="Pilot")
    assert (row.limit, row.limit_shown, row.created_by) == (
        12_500_000_000_000,
        Decimal("12.5"),
        manager,
    )
    assert services.update(row, manager, {"limit": "20", "note": "Pilot"}) == ["limit"]
    assert now_of(row).limit == 20 * PICO
    services.remove(row, manager)
    assert queries.by_key(row.key) is None
    assert actions() == ["budget.created", "budget.changed", "budget.removed"]
    changed = AuditEntry.objects.get(action="budget.changed")
    assert changed.detail["limit"] == {"from": "12.5", "to": "20"}
    with pytest.raises(BudgetError, match="removed"):
        services.update(row, manager, {"limit": "1"})


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"limit": "-1"}, "limit"),
        ({"limit": "NaN"}, "limit"),
        ({"limit": "1e12"}, "limit"),
        ({"limit": "1.5", "metric": "requests"}, "limit"),
        ({"soft_percent": 0}, "soft_percent"),
        ({"soft_percent": 101}, "soft_percent"),
        ({"scope": "planet"}, "scope"),
        ({"metric": "apples"}, "metric"),
        ({"window": "fortnight"}, "window"),
        ({"scope": "project"}, "subject"),
        ({"scope": "person", "window": "each_run"}, "window"),
    ],
)
def test_a_budget_that_cannot_be_is_refused_by_its_field(manager, given, field):
    with pytest.raises(InvalidBudget) as refusal:
        made(manager, **given)
    assert field in refusal.value.errors
    assert not Budget.objects.exists()


def test_a_run_has_no_months(manager, run):
    with pytest.raises(InvalidBudget, match="window total"):
        made(manager, scope="run", subject=run)


def test_a_scope_has_one_budget_of_a_metric_and_window(manager, project):
    row = made(manager)
    with pytest.raises(BudgetExists), transaction.atomic():
        made(manager)
    made(manager, window="day")
    made(manager, scope="project", subject=project)
    services.remove(row, manager)
    made(manager)


def test_the_database_holds_that_a_budget_names_its_scope_and_nothing_else(project, manager):
    for fields in (
        {"scope": Scope.PROJECT},
        {"scope": Scope.INSTALLATION, "project": project},
        {"scope": Scope.PROJECT, "project": project, "person": manager},
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            budget(1, **fields)


# --- what a run may spend -----------------------------------------------------------------------------------------


@pytest.fixture
def defaults(settings):
    settings.RUN_BUDGET_USD, settings.RUN_REQUESTS = Decimal("5.00"), 1000


def limits_of(run: Run) -> dict[str, Decimal]:
    return {row.metric: row.limit_shown for row in Budget.objects.filter(run=run)}


def test_every_run_of_a_new_installation_has_limits(project, operator, defaults):
    run = launch(project, operator, task="Do it.")
    assert limits_of(run) == {"usd": 5, "requests": 1000}


def test_a_launch_can_lower_them_and_not_raise_them(project, operator, defaults):
    low = launch(project, operator, task="a", limits={"usd": Decimal("0.5"), "requests": 10})
    high = launch(project, operator, task="b", limits={"usd": Decimal(50), "tokens": 1000})
    assert limits_of(low) == {"usd": Decimal("0.5"), "requests": 10}
    assert limits_of(high) == {"usd": 5, "requests": 1000, "tokens": 1000}


def test_a_project_has_a_policy_of_its_own(manager, project, operator, defaults):
    made(manager, window="each_run", metric="requests", limit=500)
    made(manager, window="each_run", scope="project", subject=project, limit="1.25")
    assert limits_of(launch(project, operator, task="a")) == {
        "usd": Decimal("1.25"),
        "requests": 500,
    }


def test_a_run_keeps_what_it_was_launched_with_and_a_manager_raises_it(
    manager, project, operator, defaults, settings
):
    run = launch(project, operator, task="a")
    settings.RUN_BUDGET_USD = Decimal(1)
    run_limits.open_run(run.pk, project.pk)
    assert limits_of(run)["usd"] == 5
    services.raise_limit(Budget.objects.get(run=run, metric="usd"), manager, "7.50")
    assert limits_of(run)["usd"] == Decimal("7.5")


def test_runs_from_before_the_budgets_get_theirs_when_they_first_ask(run, defaults):
    views = leases.bind(Payer(run.pk, run.project_id, run.owner_id), timezone.now())
    assert len(views) == 2
    assert limits_of(run) == {"usd": 5, "requests": 1000}


# --- incidents ----------------------------------------------------------------------------------------------------


def test_raising_gives_room_for_good_and_resolves(manager, run):
    row = made(manager)
    incident = refused(row, run)
    with pytest.raises(InvalidBudget, match="above the present one"):
        services.resolve(incident, manager, "raise", amount="10")
    services.resolve(incident, manager, "raise", amount="30", note="Approved")
    incident.refresh_from_db()
    assert (incident.state, incident.how, incident.resolved_by) == ("resolved", How.RAISED, manager)
    assert now_of(row).cap == 30 * PICO
    with pytest.raises(IncidentClosed, match="limit raised"):
        services.resolve(incident, manager, "dismiss")
    assert actions() == ["budget.created", "budget.raised"]


def test_extending_once_is_for_this_window_alone(manager, run):
    row = made(manager)
    services.resolve(refused(row, run), manager, "extend", amount="2.5")
    assert now_of(row).cap == pico(Decimal("12.5"))
    later = leases.window_of(row, timezone.now() + timedelta(days=32))
    assert later.cap == 10 * PICO
    assert Budget.objects.get().limit == 10 * PICO
    extension = now_of(row).extensions.get()
    assert (extension.amount, extension.by) == (pico(Decimal("2.5")), manager)
    assert Incident.objects.get().how == How.EXTENDED


def test_stopping_stops_the_run(manager, run):
    incident = refused(made(manager), run)
    services.resolve(incident, manager, "stop")
    run.refresh_from_db()
    assert run.state == State.STOPPED
    assert Incident.objects.get().how == How.STOPPED


def test_an_incident_is_dismissed_once(manager, run):
    incident = refused(made(manager), run)
    services.resolve(incident, manager, "dismiss", note="Let it be.")
    with pytest.raises(IncidentClosed):
        services.dismiss(incident, manager)
    assert actions() == ["budget.created", "incident.resolved"]


def test_a_new_refusal_after_a_dismissal_is_a_new_incident(manager, run):
    row = made(manager)
    services.dismiss(refused(row, run), manager)
    assert refused(row, run).state == IncidentState.OPEN
    assert Incident.objects.count() == 2


def test_an_incident_ends_with_its_window(manager, run):
    day, total = made(manager, window="day"), made(manager, window="total")
    refused(day, run), refused(total, run)
    assert incidents.close_ended(timezone.now()) == 0
    assert incidents.close_ended(timezone.now() + timedelta(days=1)) == 1
    assert Incident.objects.get(how=How.WINDOW_ENDED).budget == day


def test_a_raised_limit_warns_again_at_its_own_threshold(manager, run):
    row = made(manager)
    window = now_of(row)
    BudgetWindow.objects.filter(pk=window.pk).update(spent=8 * PICO)
    incidents.warn({window.pk: run.pk})
    incidents.warn({window.pk: run.pk})
    assert Incident.objects.count() == 1
    services.raise_limit(row, manager, 20)
    BudgetWindow.objects.filter(pk=window.pk).update(spent=17 * PICO)
    incidents.warn({window.pk: run.pk})
    assert list(Incident.objects.values_list("state", flat=True)) == ["open", "resolved"]


# --- how they stand -----------------------------------------------------------------------------------------------


def test_a_budget_burns_in_a_straight_line(manager):
    row = made(manager, limit="30")
    at = datetime(2026, 11, 11, tzinfo=UTC)
    leases.window_of(row, at)
    BudgetWindow.objects.filter(start__month=11).update(spent=12 * PICO, leased=PICO)
    found = queries.burn(queries.budgets(at).get(), at)
    assert [found.spent, found.held, found.left] == [12, 1, 17]
    assert found.projected == 36
    assert found.over_projected and not found.over_soft


def test_a_window_without_a_request_has_spent_nothing(manager):
    made(manager)
    found = queries.burn(queries.budgets().get(), timezone.now() + timedelta(days=40))
    assert [found.spent, found.left, found.cap] == [0, 10, 10]


def test_the_budgets_of_a_launch_are_those_that_will_bind_it_the_tightest_first(
    manager, operator, project, run, django_assert_num_queries
):
    made(manager, limit="100")
    near = made(manager, scope="project", subject=project, limit="10")
    made(manager, scope="person", subject=manager)
    policy = made(manager, window="each_run", limit="3")
    made(manager, scope="run", subject=run, window="total")
    BudgetWindow.objects.filter(budget=near).update(spent=9 * PICO)
    with django_assert_num_queries(2):
        found = queries.binding(project=project, person=operator)
    assert found[0].budget == near
    assert {one.budget.window for one in found} == {"month", "each_run"}
    assert policy in [one.budget for one in found]
    of_run = queries.binding(project=project, person=operator, run=run)
    assert {one.budget.scope for one in of_run} == {"installation", "project", "run"}
    assert of_run[0].budget.metric == Metric.USD
