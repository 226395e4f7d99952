"""What managers do with routes, prices and kinds of providers: services, pages and API."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from devaipod_web.llm import price_rows, providers, reseal, routes, vault
from devaipod_web.llm.models import Price, Provider, Route
from devaipod_web.projects import services
from devaipod_web.projects.errors import InvalidProject
from devaipod_web.reviews.models import AuditEntry
from devaipod_web.runs.services.launch import launch
from devaipod_web.webhooks.models import Webhook

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def acme(db):
    return Provider.objects.create(name="Acme", base_url="https://m.example/v1")


@pytest.fixture
def other(db):
    return Provider.objects.create(name="Other", kind="anthropic", base_url="https://o.example")


def order() -> list[str]:
    return [route.pattern for route in Route.objects.order_by("position")]


# --- Routes -----------------------------------------------------------------------------------------------------


def test_routes_are_added_at_the_end_and_moved(manager, acme):
    a, b, c = (routes.save(manager, None, pattern=p, provider=acme) for p in "abc")
    assert order() == ["a", "b", "c"]
    routes.move(manager, c, 1)
    assert order() == ["c", "a", "b"]
    routes.move(manager, c, 99)
    assert order() == ["a", "b", "c"]
    routes.remove(manager, a)
    assert [r.position for r in Route.objects.all()] == [1, 2]
    assert list(AuditEntry.objects.order_by("id").values_list("action", flat=True)) == [
        *["route.added"] * 3,
        *["route.moved"] * 2,
        "route.removed",
    ]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"pattern": ""}, "pattern"),
        ({"pattern": "a b"}, "pattern"),
        ({"pattern": "x" * 201}, "pattern"),
        ({"pattern": "gpt", "rewrite": "*"}, "rewrite"),
        ({"pattern": "*", "rewrite": "a\nb"}, "rewrite"),
        ({"pattern": "*", "output_limit": 0}, "output_limit"),
        ({"pattern": "*", "fallbacks": [("nobody", "")]}, "fallbacks"),
        ({"pattern": "*", "fallbacks": [("nobody", "")] * 6}, "fallbacks"),
    ],
)
def test_a_route_that_cannot_be_is_refused_at_its_field(manager, acme, fields, field):
    with pytest.raises(routes.InvalidRoute) as error:
        routes.save(manager, None, provider=acme, **fields)
    assert field in error.value.errors


def test_a_provider_that_a_route_leads_to_stays(manager, acme, other):
    route = routes.save(manager, None, pattern="x", provider=acme, fallbacks=[(other.key, "")])
    for row in (acme, other):
        with pytest.raises(providers.ProviderInUse, match="The route x leads here"):
            providers.remove(manager, row)
    routes.remove(manager, route)
    providers.remove(manager, acme)
    providers.remove(manager, other)


def test_a_project_without_a_provider_launches_on_what_routes_take(
    manager, operator, acme, project
):
    with pytest.raises(InvalidProject):
        services.update(project, manager, {"model": "gpt-4o"})
    routes.save(manager, None, pattern="gpt-*", provider=acme)
    services.update(project, manager, {"model": "gpt-4o"})
    with pytest.raises(InvalidProject, match="No route takes"):
        services.update(project, manager, {"model": "claude-x"})
    project.refresh_from_db()
    run = launch(project, operator, task="Do it.")
    assert (run.provider, run.model) == (None, "gpt-4o")
    Route.objects.all().delete()
    assert launch(project, operator, task="Do it.").model == "scripted-demo"


def test_the_page_says_which_route_takes_a_model(client, manager, acme, other):
    client.force_login(manager)
    assert b"No routes yet" in client.get("/routes/").content
    routes.save(manager, None, pattern="gpt-*", provider=acme)
    routes.save(manager, None, pattern="*", provider=other, rewrite="x-*")
    page = client.get("/routes/", {"model": "gpt-4o"}).content.decode()
    assert "is taken by route 1" in page
    page = client.get("/routes/", {"model": "o3"}).content.decode()
    assert "is taken by route 2" in page
    assert "x-o3" in page
    Route.objects.filter(pattern="*").update(enabled=False)
    assert "No route takes" in client.get("/routes/", {"model": "o3"}).content.decode()


def test_a_route_is_added_changed_moved_and_removed_on_its_pages(client, manager, acme, other):
    client.force_login(manager)
    fields = {
        "pattern": "gpt-*",
        "provider": acme.key,
        "enabled": "on",
        "rewrite": "",
        "project": "",
    }
    fallbacks = "Other => claude-sonnet-4-5\n\n Acme "
    answer = client.post("/routes/new/", {**fields, "fallbacks": fallbacks, "output_limit": "500"})
    assert answer.status_code == 302, answer.content.decode()
    row = Route.objects.get()
    assert row.fallbacks == [
        {"provider": other.key, "model": "claude-sonnet-4-5"},
        {"provider": acme.key, "model": ""},
    ]
    page = client.get(f"/routes/{row.key}/").content.decode()
    assert "Other =&gt; claude-sonnet-4-5" in page
    bad = client.post(f"/routes/{row.key}/", {**fields, "fallbacks": "Nobody"})
    assert bad.status_code == 400
    assert b"There is no provider" in bad.content
    assert client.post(f"/routes/{row.key}/", {**fields, "pattern": "o3"}).status_code == 302
    assert client.post(f"/routes/{row.key}/move/", {"position": "2"}).status_code == 302
    assert client.post(f"/routes/{row.key}/move/", {"position": "x"}).status_code == 404
    assert client.post(f"/routes/{row.key}/", {"action": "remove"}).status_code == 302
    assert not Route.objects.exists()


# --- Prices -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"pattern": "", "sent": Decimal(1), "received": Decimal(1)}, "pattern"),
        ({"pattern": "x", "received": Decimal(1)}, "sent"),
        ({"pattern": "x", "sent": Decimal(-1), "received": Decimal(1)}, "sent"),
        ({"pattern": "x", "sent": Decimal("NaN"), "received": Decimal(1)}, "sent"),
        ({"pattern": "x", "sent": Decimal(1), "received": Decimal(10**6)}, "received"),
    ],
)
def test_a_price_that_cannot_be_is_refused_at_its_field(manager, fields, field):
    with pytest.raises(price_rows.InvalidPrice) as error:
        price_rows.save(manager, None, **fields)
    assert field in error.value.errors


def test_there_is_one_price_for_a_pattern(manager, project):
    given: dict[str, Any] = {"sent": Decimal(1), "received": Decimal(1)}
    price_rows.save(manager, None, pattern="x", **given)
    price_rows.save(manager, None, pattern="x", project=project, **given)
    price_rows.save(manager, None, pattern="x", is_ceiling=True, **given)
    with pytest.raises(price_rows.InvalidPrice, match="already"):
        price_rows.save(manager, None, pattern="x", **given)


def test_a_price_is_entered_changed_and_removed_on_its_pages(client, manager):
    client.force_login(manager)
    assert b"No prices of your own" in client.get("/prices/").content
    fields = {"pattern": "house-*", "sent": "10", "received": "20.5", "project": ""}
    assert client.post("/prices/new/", fields).status_code == 302
    row = Price.objects.get()
    assert (row.sent, row.cached, row.request) == (Decimal(10), None, Decimal(0))
    page = client.get("/prices/").content.decode()
    assert "$10<" in page
    assert "$20.5<" in page
    answer = client.post(f"/prices/{row.key}/", {**fields, "is_ceiling": "on", "cached": "0"})
    assert answer.status_code == 302
    row.refresh_from_db()
    assert row.is_ceiling
    assert row.cached == 0
    assert client.post(f"/prices/{row.key}/", {"action": "remove"}).status_code == 302
    assert not Price.objects.exists()


def test_the_page_says_what_the_list_knows(client, manager):
    client.force_login(manager)
    page = client.get("/prices/", {"model": "gpt-4o"}).content.decode()
    assert "$2.5 in, $10 out" in page
    assert "does not know" in client.get("/prices/", {"model": "house-1"}).content.decode()


# --- Kinds and keys -----------------------------------------------------------------------------------------------


def test_makers_have_their_own_address_and_the_demo_none(manager):
    made = providers.save(manager, None, name="A", kind="anthropic", credential="sk-ant-1")
    assert made.base_url == "https://api.anthropic.com"
    assert providers.save(manager, None, name="D", kind="demo").base_url == ""
    with pytest.raises(providers.InvalidProvider):
        providers.save(manager, None, name="O", kind="openai")
    with pytest.raises(providers.InvalidProvider):
        providers.save(manager, None, name="D2", kind="demo", credential="sk-1")


def test_a_stored_key_is_not_sent_in_another_kinds_way(manager):
    made = providers.save(
        manager, None, name="A", base_url="https://m.example/v1", credential="sk-1"
    )
    with pytest.raises(providers.InvalidProvider) as error:
        providers.save(manager, made, name="A", base_url=made.base_url, kind="anthropic")
    assert "credential" in error.value.errors


def test_everything_is_sealed_anew_with_the_first_key(manager, monkeypatch):
    monkeypatch.setenv("DEVAIPOD_ENCRYPTION_KEY", "old")
    a = Provider.objects.create(name="A", credential=vault.seal(b"sk-a"))
    Provider.objects.create(name="No key")
    hook = Webhook.objects.create(name="W", url="https://x.example", secret=vault.seal(b"whsec"))
    monkeypatch.setenv("DEVAIPOD_ENCRYPTION_KEY", "lost")
    b = Provider.objects.create(name="B", credential=vault.seal(b"sk-b"))
    monkeypatch.setenv("DEVAIPOD_ENCRYPTION_KEY", "new,old")
    found = reseal.reseal(manager)
    assert found.sealed == 2
    assert found.unreadable == ("provider B",)
    monkeypatch.setenv("DEVAIPOD_ENCRYPTION_KEY", "new")
    a.refresh_from_db()
    hook.refresh_from_db()
    assert vault.unseal(bytes(a.credential)) == b"sk-a"
    assert vault.unseal(bytes(hook.secret)) == b"whsec"
    monkeypatch.setenv("DEVAIPOD_ENCRYPTION_KEY", "lost")
    b.refresh_from_db()
    assert vault.unseal(bytes(b.credential)) == b"sk-b"
    entry = AuditEntry.objects.get(action="secrets.resealed")
    assert entry.detail == {"sealed": 2, "unreadable": 1}
