"""Routes, prices and the test of a provider over the API."""

from __future__ import annotations

import pytest

from devaipod_web.llm import vault
from devaipod_web.llm.models import Price, Provider, Route
from tests.api.conftest import problem

pytestmark = [pytest.mark.django_db(transaction=True)]


@pytest.fixture
def acme(db):
    return Provider.objects.create(name="Acme", base_url="https://m.example/v1")


def test_a_route_is_added_asked_for_changed_moved_and_removed(call, manager, acme, project):
    mona = call(manager)
    body = {"pattern": "gpt-*", "provider": acme.key, "fallbacks": [{"provider": acme.key}]}
    made = mona("POST", "/routes", body)
    assert made.status_code == 201, made.content
    key = made.json()["key"]
    assert made.json()["fallbacks"] == [{"provider": acme.key, "model": ""}]
    mona("POST", "/routes", {"pattern": "*", "provider": acme.key, "project": "payments"})
    assert [row["pattern"] for row in mona.get("/routes").json()] == ["gpt-*", "*"]
    which = mona.get("/routes/which?model=o3&project=payments").json()
    assert which["route"]["pattern"] == "*"
    assert mona.get("/routes/which?model=o3").json()["route"] is None
    changed = mona("PATCH", f"/routes/{key}", {"rewrite": "x-*", "output_limit": 9}).json()
    assert (changed["rewrite"], changed["output_limit"], changed["pattern"]) == ("x-*", 9, "gpt-*")
    assert mona("PATCH", f"/routes/{key}", {"output_limit": None}).json()["output_limit"] is None
    assert mona("POST", f"/routes/{key}/move", {"position": 2}).json()["position"] == 2
    assert mona("DELETE", f"/routes/{key}").status_code == 204
    assert Route.objects.count() == 1


def test_what_is_wrong_with_a_route_is_said_at_its_field(call, manager, acme):
    answer = call(manager)("POST", "/routes", {"pattern": "a b", "provider": acme.key})
    found = problem(answer, 400, "invalid-route")
    assert found["errors"][0]["field"] == "pattern"
    assert (
        call(manager)("POST", "/routes", {"pattern": "a", "provider": "nobody"}).status_code == 404
    )


def test_a_price_is_entered_changed_and_removed(call, manager):
    mona = call(manager)
    made = mona("POST", "/prices", {"pattern": "house-*", "sent": "0.5", "received": "2"})
    assert made.status_code == 201, made.content
    key = made.json()["key"]
    assert made.json()["sent"] == "0.500000"
    assert made.json()["cached"] is None
    changed = mona("PATCH", f"/prices/{key}", {"cached": "0.1", "is_ceiling": True}).json()
    assert (changed["cached"], changed["is_ceiling"], changed["received"]) == (
        "0.100000",
        True,
        "2.000000",
    )
    assert mona("PATCH", f"/prices/{key}", {"cached": None}).json()["cached"] is None
    problem(mona("PATCH", f"/prices/{key}", {"sent": "x"}), 422, "invalid-request")
    assert mona("DELETE", f"/prices/{key}").status_code == 204
    assert not Price.objects.exists()


def test_a_provider_is_tested_and_kinds_are_known(call, manager):
    mona = call(manager)
    made = mona("POST", "/providers", {"name": "Demo", "kind": "demo"}).json()
    found = mona("POST", f"/providers/{made['key']}/test").json()
    assert found["ok"]
    assert "scripted demo" in found["message"]
    problem(mona("POST", "/providers", {"name": "X", "kind": "other"}), 422, "invalid-request")


def test_stored_secrets_are_sealed_anew(call, manager, monkeypatch):
    monkeypatch.setenv("DEVAIPOD_ENCRYPTION_KEY", "old")
    row = Provider.objects.create(name="A", credential=vault.seal(b"sk-a"))
    monkeypatch.setenv("DEVAIPOD_ENCRYPTION_KEY", "new,old")
    assert call(manager)("POST", "/providers/reseal").json() == {"sealed": 1, "unreadable": []}
    monkeypatch.setenv("DEVAIPOD_ENCRYPTION_KEY", "new")
    row.refresh_from_db()
    assert vault.unseal(bytes(row.credential)) == b"sk-a"
