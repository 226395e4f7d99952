"""What targets in mode `relay` give their pods, and when they take runs."""

from __future__ import annotations

import contextlib
import sqlite3
from datetime import UTC, datetime

import pytest
from django.db import connection
from django.utils import timezone

from devaipod_web.gateway import relays
from devaipod_web.health.checks.relays import report
from devaipod_web.health.models import Health
from devaipod_web.host import doctor, target_facts
from devaipod_web.targets import queries, services
from devaipod_web.targets.models import GatewayMode, Target, TargetKind
from pods.kubernetes_relay import RelayState

pytestmark = pytest.mark.django_db


@pytest.fixture
def target() -> Target:
    return Target.objects.create(
        name="lab",
        kind=TargetKind.KUBERNETES,
        namespace="agents",
        gateway_mode=GatewayMode.RELAY,
        health=Health.OK,
    )


def test_pods_dial_the_relay_that_was_seen_last_or_the_service_before_it(target):
    assert queries.gateway_address(target) == ""
    services.note_relay(target.pk, RelayState(connected=True, address="10.1.2.3"))
    target.refresh_from_db()
    assert queries.gateway_address(target) == "http://10.1.2.3:8401"
    services.note_relay(target.pk, RelayState(connected=False))
    target.refresh_from_db()
    assert queries.gateway_address(target) == "http://10.1.2.3:8401"
    target.gateway_address = "http://10.96.0.7:8401"
    assert queries.gateway_address(target) == "http://10.96.0.7:8401"


def test_a_target_takes_no_run_while_its_forward_is_not_open_and_says_why(target):
    assert "forward to its relay is not open" in queries.why_closed(target, timezone.now())
    services.note_relay(target.pk, RelayState(says="The image is nowhere.", next_step="Load it."))
    target.refresh_from_db()
    assert "The image is nowhere." in queries.why_closed(target, timezone.now())
    services.note_relay(target.pk, RelayState(connected=True, address="10.1.2.3"))
    target.refresh_from_db()
    assert queries.why_closed(target, timezone.now()) == ""


def test_a_gateway_that_starts_believes_no_forward_of_before(target):
    services.note_relay(target.pk, RelayState(connected=True, address="10.1.2.3"))
    relays._forget_states()
    target.refresh_from_db()
    assert target.relay_connected is False
    assert target.relay_address == "10.1.2.3"


def test_each_target_has_a_token_of_its_own(target):
    other = Target.objects.create(name="other", kind=TargetKind.KUBERNETES)
    assert relays.token_of(target) == relays.token_of(target)
    assert relays.token_of(target) != relays.token_of(other)
    assert len(relays.token_of(target)) == 64


def test_a_service_says_what_is_wrong_and_what_to_do():
    now = datetime.now(UTC)
    well = report(RelayState(True, "10.1.2.3", says="Open.", since=now, opened=3, streams=7), "lab")
    assert well.health == Health.OK
    assert well.facts == {"forwards opened": "3", "connections now": "7", "relay": "10.1.2.3"}
    ill = report(RelayState(says="The cluster does not answer.", next_step="Look at it."), "lab")
    assert ill.health == Health.DOWN
    assert "Pods of lab do not reach the gateway" in ill.says
    assert ill.next_step == "Look at it."


def test_doctor_says_what_keeps_a_forward_from_opening_from_the_rows_alone(tmp_path):
    path = tmp_path / "db.sqlite3"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(
            "CREATE TABLE targets_target (name, kind, enabled, health, error, next_step, policies_enforced, "
            "gateway_mode, relay_connected, relay_says, relay_next_step)"
        )
        well = ("kubernetes", 1, "ok", "", "", 1)
        rows = [
            ("lab", *well, "relay", 0, "The image is nowhere.", "Load it."),
            ("open", *well, "relay", 1, "It is open.", ""),
            ("near", *well, "direct", 0, "It has not been looked at yet.", ""),
        ]
        database.executemany(f"INSERT INTO targets_target VALUES ({','.join('?' * 11)})", rows)
        database.commit()
    found = list(doctor._targets(doctor.Case(None, tmp_path, targets=target_facts.read(tmp_path))))
    assert [(one.code, one.mend) for one in found] == [("relay-closed", "Load it.")]
    assert found[0].what == "The forward to the relay in lab is not open: The image is nowhere."


def test_the_columns_that_doctor_reads_are_those_of_the_rows(target):
    services.note_relay(target.pk, RelayState(says="The image is nowhere.", next_step="Load it."))
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {target_facts.COLUMNS} FROM targets_target WHERE name = 'lab'")
        assert cursor.fetchone()[-2:] == ("The image is nowhere.", "Load it.")
