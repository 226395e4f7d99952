"""Who may call which operation: every one of them against every kind of person."""

from __future__ import annotations

import json

import pytest
from django.test import Client

from devaipod_web.accounts import services, tokens
from devaipod_web.accounts.permissions import LEAST_ROLE, ORDER, ROUTES, Permission, Role
from devaipod_web.api.app import api
from tests.api.conftest import Caller, problem

pytestmark = [pytest.mark.django_db(transaction=True)]

ROOT = "/api/devaipod"


def operations() -> list[tuple[str, str, str]]:
    """(id, method, path) of everything that the API mounts, with names of things filled in."""
    found = []
    for prefix, router in api._routers:
        for path, view in router.path_operations.items():
            for one in view.operations:
                full = (prefix + path).replace("{key}", "nothing000").replace("{slug}", "nothing")
                found.append(
                    (str(one.operation_id), one.methods[0], full.replace("{name}", "nothing"))
                )
    return found


def test_the_permission_table_lists_exactly_the_operations_that_exist():
    listed = {name.removeprefix("api:") for name in ROUTES if name.startswith("api:")}
    assert listed == {name for name, _, _ in operations()}


def test_every_operation_without_a_token_is_refused():
    for name, method, path in operations():
        answer = Client().generic(method, ROOT + path, "{}", content_type="application/json")
        assert answer.status_code == 401, name
        assert json.loads(answer.content)["next_step"], name
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("role", [None, *ORDER])
def test_every_operation_lets_in_exactly_the_roles_of_the_table(person, role):
    call = Caller(person("somebody", role))
    for name, method, path in operations():
        answer = call(method, path, {})
        permission = ROUTES[f"api:{name}"]
        allowed = permission is Permission.SELF or (
            role is not None and ORDER.index(role) >= ORDER.index(LEAST_ROLE[permission])
        )
        if allowed:
            assert answer.status_code not in (401, 403), (name, role, answer.content)
        else:
            assert answer.status_code == (404 if role is None else 403), (name, role)


def test_a_stranger_sees_that_nothing_is_there(call, stranger, run, project):
    charlie = call(stranger)
    for path in (f"/runs/{run.key}", f"/runs/{run.key}/events", f"/projects/{project.slug}"):
        problem(charlie.get(path), 404, "not-found")


def test_a_role_that_is_missing_is_named(call, viewer, project):
    answer = call(viewer).post("/runs", {"project": project.slug, "task": "x"})
    assert "operator" in problem(answer, 403, "role-needed")["detail"]


def test_a_session_needs_the_csrf_token_to_change_something(operator, project):
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(operator)
    body = json.dumps({"project": project.slug, "task": "x"})
    assert browser.get(ROOT + "/runs").status_code == 200
    refused = browser.post(ROOT + "/runs", body, content_type="application/json")
    problem(refused, 403, "csrf")
    from django.middleware.csrf import _get_new_csrf_string

    secret = _get_new_csrf_string()
    from django.conf import settings

    browser.cookies[settings.CSRF_COOKIE_NAME] = secret
    taken = browser.post(
        ROOT + "/runs",
        body,
        content_type="application/json",
        headers={"X-CSRFToken": secret},
    )
    assert taken.status_code == 201


def test_a_bearer_call_ignores_cookies(manager, operator):
    _, token = tokens.create(operator, "ci")
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(manager)
    answer = browser.get(ROOT + "/status", headers={"Authorization": f"Bearer {token}"})
    assert answer.json()["user"] == "alice"
    wrong = browser.get(ROOT + "/status", headers={"Authorization": "Bearer dvp_wrong"})
    problem(wrong, 401, "token-refused")
    basic = browser.get(ROOT + "/status", headers={"Authorization": "Basic bW9uYTp4"})
    problem(basic, 401, "token-refused")


def test_a_token_has_its_persons_role_at_this_moment(call, manager, operator, project):
    alice = call(operator)
    services.change_role(manager, operator, role=Role.VIEWER)
    assert alice.post("/runs", {"project": project.slug, "task": "x"}).status_code == 403
    services.deactivate(manager, operator)
    assert alice.get("/runs").status_code == 401


def test_nobody_reaches_anothers_tokens(call, operator, manager):
    alice, mona = call(operator), call(manager)
    assert len(alice.get("/tokens").json()) == 1
    assert mona("DELETE", f"/tokens/{alice.token_row.key}").status_code == 404
    made = alice.post("/tokens", {"name": "nightly", "days": 1}).json()
    assert made["token"].startswith("dvp_")
    assert "token" not in alice.get("/tokens").json()[0]
    assert alice("DELETE", f"/tokens/{made['key']}").status_code == 204
    assert len(alice.get("/tokens").json()) == 1


def test_a_fault_of_the_server_tells_nothing_of_its_insides(call, operator, monkeypatch):
    from devaipod_web.api import status

    def broken(user):
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(status, "role_of", broken)
    answer = call(operator).get("/status")
    assert "secret" not in json.dumps(problem(answer, 500, "internal"))
