"""What people see of the services, from rows that processes left; nobody beats here."""

from __future__ import annotations

import threading
import time

import pytest
from django.utils import timezone

from devaipod_web.health import queries
from devaipod_web.health.models import ServiceBeat
from devaipod_web.health.registry import ALWAYS
from devaipod_web.reviews.models import AuditEntry
from tests.api.conftest import problem

pytestmark = pytest.mark.django_db


def named(name):
    return next(one for one in queries.services() if one.name == name)


def test_what_nobody_speaks_of_is_listed_all_the_same():
    assert [one.name for one in queries.services()] == list(ALWAYS)
    # The process is the service: silence means that it does not run.
    assert named("gateway").health == "down"
    assert "devaipod serve gateway" in named("gateway").next_step
    assert named("podman").health == "unknown"
    assert not named("supervisor").may_restart


def test_a_process_that_fell_silent_is_not_believed(beat):
    beat("gateway", "ok", ago=60)
    beat("staging", "ok", ago=60)
    assert named("gateway").health == "down"
    assert named("staging").health == "unknown"


def test_a_process_that_said_good_bye_is_gone_at_once(beat):
    beat("supervisor", "ok", ended=True)
    assert named("supervisor").health == "down"


def test_of_two_processes_the_worse_one_counts(beat):
    beat("gateway", "ok", process="a:1:1")
    beat("gateway", "degraded", process="b:2:2")
    assert named("gateway").health == "degraded"
    beat("gateway", "down", process="c:3:3", ago=60)
    assert named("gateway").health == "degraded"


def test_the_page_shows_word_shape_error_and_whether_it_can_be_restarted(page, manager, beat):
    beat(
        "gateway",
        "down",
        says="Its socket is gone.",
        last_error="<b>x</b>\x1b[2J",
        last_error_at=timezone.now(),
    )
    beat("database", restart_does="", no_restart="It is a file.")
    shown = page(manager, "services")
    assert "■</span> down" in shown
    assert "Its socket is gone." in shown
    assert "<b>x" not in shown
    assert "\x1b" not in shown
    assert 'data-dialog="restart-gateway"' in shown
    assert 'data-dialog="restart-database"' not in shown
    assert "It is a file." in shown
    assert page(manager, "services_live").count("<li id=") == len(ALWAYS)


def test_only_a_manager_restarts(call, viewer, reviewer, beat):
    beat("gateway")
    problem(call(reviewer).post("/services/gateway/restart"), 403, "role-needed")
    assert call(viewer).get("/services").status_code == 200
    assert ServiceBeat.objects.get(service="gateway").restart_asked_at is None


def test_what_is_not_there_or_cannot_be_restarted_says_so(call, manager, beat):
    beat("database", restart_does="", no_restart="It is a file.")
    problem(call(manager).post("/services/nothing/restart"), 404, "no-such-service")
    found = problem(call(manager).post("/services/database/restart"), 409, "no-restart")
    assert found["next_step"] == "It is a file."
    # A process that is gone can restart nothing.
    problem(call(manager).post("/services/gateway/restart"), 409, "no-restart")
    assert not AuditEntry.objects.filter(action="service.restarted").exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("error", ["", "podman: no such file"])
def test_a_restart_waits_for_the_process_and_answers_with_what_became_of_it(
    call,
    manager,
    beat,
    error,
):
    beat("gateway", "down")

    def process() -> None:
        """What another process does with the wish."""
        from django.db import connections

        rows = ServiceBeat.objects.exclude(restart_asked_at=None)
        while not rows.exists():
            time.sleep(0.02)
        rows.update(
            restarted_at=timezone.now(), restart_asked_at=None, health="ok", restart_error=error
        )
        connections.close_all()

    other = threading.Thread(target=process)
    other.start()
    answer = call(manager).post("/services/gateway/restart")
    other.join(20)
    assert AuditEntry.objects.get(action="service.restarted").actor == manager
    if error:
        assert error in problem(answer, 503, "not-restarted")["detail"]
    else:
        assert answer.json()["health"] == "ok"


def test_the_status_carries_every_services_health_and_the_worst(call, viewer, beat):
    for name in ALWAYS:
        beat(name)
    found = call(viewer).get("/status").json()
    assert found["health"] == "ok"
    assert {one["name"]: one["health"] for one in found["services"]} == dict.fromkeys(ALWAYS, "ok")
    assert found["disk_total_bytes"] > found["disk_free_bytes"] > 0
    ServiceBeat.objects.filter(service="podman").update(health="down")
    assert call(viewer).get("/status").json()["health"] == "down"
