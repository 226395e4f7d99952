from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from devaipod_web.accounts import services, throttle, tokens
from devaipod_web.accounts.models import ApiToken, SignInLink, User
from devaipod_web.accounts.permissions import Role, role_of
from tests.conftest import PASSWORD

pytestmark = pytest.mark.django_db(transaction=True)


def signed_in(client: Client) -> bool:
    return client.get("/account/").status_code == 200


def sign_in(client: Client, name: str, password: str = PASSWORD, **more: str) -> Any:
    return client.post("/sign-in/", {"username": name, "password": password, **more})


def as_(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def text_of(response: Any) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", response.content.decode()))


def test_a_person_signs_in_with_a_password_and_out_by_a_button(operator):
    client = Client()
    assert sign_in(client, "alice").status_code == 302
    assert signed_in(client)
    assert client.get("/sign-out/").status_code == 405
    assert signed_in(client)
    client.post("/sign-out/")
    assert not signed_in(client)


def test_the_session_is_a_new_one_after_signing_in(operator):
    client = Client()
    client.get("/sign-in/")
    session = client.session
    session["planted"] = True
    session.save()
    client.cookies[settings.SESSION_COOKIE_NAME] = str(session.session_key)
    before = session.session_key
    sign_in(client, "alice")
    assert client.cookies[settings.SESSION_COOKIE_NAME].value != before


def test_a_wrong_password_says_so_and_keeps_the_name(operator):
    response = sign_in(Client(), "alice", "wrong")
    assert "no such person with this password" in text_of(response)
    assert 'value="alice"' in response.content.decode()
    assert "wrong" not in re.findall(r'value="([^"]*)"', response.content.decode())


def test_guessing_is_closed_even_for_the_right_password(operator):
    client = Client()
    for _ in range(throttle.PER_NAME):
        sign_in(client, "alice", "wrong")
    response = sign_in(client, "alice")
    assert response.status_code == 429
    assert "Too many sign-ins failed" in text_of(response)
    assert not signed_in(client)


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)"]
)
def test_signing_in_never_leads_elsewhere(operator, target):
    assert sign_in(Client(), "alice", next=target).headers["Location"] == "/"


def test_signing_in_leads_back_to_where_one_was_going(operator):
    client = Client()
    asked = client.get("/projects/?archived=1")
    assert "next=" in asked.headers["Location"]
    response = client.post(
        asked.headers["Location"],
        {"username": "alice", "password": PASSWORD, "next": "/projects/?archived=1"},
    )
    assert response.headers["Location"] == "/projects/?archived=1"


def test_looking_at_a_link_spends_nothing_and_its_button_does(operator):
    path = services.sign_in_link(operator)
    client = Client()
    for _ in range(2):
        assert "Sign in as" in text_of(client.get(path))
    assert not signed_in(client)
    assert client.post(path).status_code == 302
    assert signed_in(client)
    again = Client().post(path)
    assert again.status_code == 410
    assert "no longer works" in text_of(again)
    assert Client().get(path).status_code == 410


def test_a_link_needs_the_csrf_token_to_be_spent(operator):
    path = services.sign_in_link(operator)
    assert Client(enforce_csrf_checks=True).post(path).status_code == 403
    assert SignInLink.objects.get().spent_at is None


def test_who_came_by_a_link_is_asked_for_a_password(manager):
    user = services.add_person(manager, "dora", role=Role.VIEWER)
    client = Client()
    response = client.post(services.sign_in_link(user), follow=True)
    assert response.redirect_chain[-1][0] == "/"
    assert "Set a password" in text_of(response)
    page = client.get("/account/").content.decode()
    assert 'name="current"' not in page
    saved = client.post(
        "/account/", {"new": "a long enough secret", "again": "a long enough secret"}
    )
    assert saved.status_code == 302
    assert signed_in(client)
    assert signed_in_by_password("dora", "a long enough secret")


def signed_in_by_password(name: str, password: str) -> bool:
    client = Client()
    sign_in(client, name, password)
    return signed_in(client)


def test_changing_the_password_ends_the_other_sessions(operator):
    here, there = Client(), Client()
    sign_in(here, "alice")
    sign_in(there, "alice")
    new = "another long secret"
    here.post("/account/", {"current": PASSWORD, "new": new, "again": new})
    assert signed_in(here)
    assert not signed_in(there)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            {"current": "wrong", "new": "a long enough secret", "again": "a long enough secret"},
            "not your present",
        ),
        ({"current": PASSWORD, "new": "short", "again": "short"}, "too short"),
        (
            {"current": PASSWORD, "new": "a long enough secret", "again": "another one entirely"},
            "not the same",
        ),
    ],
)
def test_a_password_that_cannot_be_is_refused_at_its_field(operator, fields, says):
    response = as_(operator).post("/account/", fields)
    assert response.status_code == 400
    assert says in text_of(response)


def test_a_token_is_shown_once_and_revoked(operator):
    client = as_(operator)
    made = client.post("/tokens/", {"name": "nightly CI", "days": "90", "role": "viewer"})
    (text,) = re.findall(r"dvp_[\w-]{43}", made.content.decode())
    assert tokens.find(text) == operator
    assert "no-store" in made.headers["Cache-Control"]
    page = client.get("/tokens/").content.decode()
    assert "<bdi>nightly CI</bdi>" in page
    assert text not in page
    client.post(f"/tokens/{ApiToken.objects.get().key}/revoke/")
    assert tokens.find(text) is None
    assert "<bdi>nightly CI</bdi>" not in client.get("/tokens/").content.decode()


def test_a_token_gets_the_role_the_end_and_the_project_that_were_chosen(manager, project):
    client = as_(manager)
    form = {"name": "ci", "days": "7", "role": "operator", "project": project.slug}
    made = client.post("/tokens/", form)
    row = ApiToken.objects.get()
    assert (row.role, row.project) == ("operator", project)
    assert timedelta(days=6) < row.expires_at - timezone.now() <= timedelta(days=7)
    page = made.content.decode()
    assert '<td class="nowrap">operator</td>' in page
    assert f'<a href="/projects/{project.slug}/">Payments</a>' in page


def test_the_form_of_a_token_offers_no_more_than_one_may_give(operator, manager, project):
    mine, hers = (as_(user).get("/tokens/").content.decode() for user in (operator, manager))
    assert 'value="operator" selected' in mine
    assert 'value="reviewer"' not in mine and "until revoked" not in mine
    assert 'value="manager" selected' in hers and "until revoked" in hers
    form = {"name": "x", "days": "0", "role": "manager", "project": "nothing"}
    refused = as_(operator).post("/tokens/", form)
    assert refused.status_code == 400
    assert not ApiToken.objects.exists()


def test_nobody_but_a_manager_revokes_anothers_token(operator, reviewer, manager):
    row, text = tokens.create(operator, "ci")
    assert as_(reviewer).post(f"/tokens/{row.key}/revoke/").status_code == 404
    assert tokens.find(text) == operator
    as_(manager).post(f"/tokens/{row.key}/revoke/")
    assert tokens.find(text) is None


def test_a_manager_adds_a_person_and_gives_them_the_link(manager):
    response = as_(manager).post(
        "/people/new/", {"username": "dora", "full_name": "Dora Maar", "role": "reviewer"}
    )
    (path,) = re.findall(r"http://testserver(/sign-in/[\w-]+/)", response.content.decode())
    user = User.objects.get(username="dora")
    assert role_of(user) is Role.REVIEWER
    assert response.headers["Cache-Control"] == "no-store"
    client = Client()
    client.post(path)
    assert signed_in(client)


def test_a_name_that_is_taken_is_said_at_its_field_and_nothing_typed_is_lost(manager, operator):
    response = as_(manager).post(
        "/people/new/", {"username": "alice", "full_name": "Alice Two", "role": "viewer"}
    )
    assert response.status_code == 400
    page = response.content.decode()
    assert "already" in page
    assert 'value="Alice Two"' in page


def test_a_manager_changes_roles_but_not_the_last_managers(manager, operator):
    client = as_(manager)
    client.post(f"/people/{operator.key}/", {"action": "role", "role": "reviewer"})
    assert role_of(User.objects.get(pk=operator.pk)) is Role.REVIEWER
    response = client.post(f"/people/{manager.key}/", {"action": "role", "role": "viewer"})
    assert response.status_code == 409
    assert "only manager" in text_of(response)


def test_deactivating_ends_sessions_at_once_and_is_undone_by_reactivating(manager, operator):
    theirs, client = Client(), as_(manager)
    sign_in(theirs, "alice")
    client.post(f"/people/{operator.key}/", {"action": "deactivate"})
    assert not signed_in(theirs)
    assert not signed_in_by_password("alice", PASSWORD)
    assert "deactivated" in text_of(client.get("/people/"))
    client.post(f"/people/{operator.key}/", {"action": "reactivate"})
    assert signed_in_by_password("alice", PASSWORD)


def test_a_person_without_a_role_sees_themselves_and_nothing_else(stranger):
    client = as_(stranger)
    assert "ask a manager" in text_of(client.get("/account/"))
    assert client.get("/tokens/").status_code == 200
    assert client.get("/projects/").status_code == 403


def test_people_are_listed_with_the_same_number_of_queries_however_many(
    manager, person, django_assert_max_num_queries
):
    for number in range(10):
        person(f"p{number}", Role.VIEWER)
    client = as_(manager)
    with django_assert_max_num_queries(13):
        assert client.get(reverse("people")).status_code == 200


def test_the_apis_page_names_every_operation_and_loads_nothing_from_elsewhere(operator):
    page = as_(operator).get("/api/devaipod/docs").content.decode()
    for name in ("/api/devaipod/runs", "/api/devaipod/reviews/{key}/promote", "/api/devaipod/pods"):
        assert name in page
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)
