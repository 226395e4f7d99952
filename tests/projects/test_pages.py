from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client

from devaipod_web.accounts.models import User
from devaipod_web.llm.models import Provider
from devaipod_web.projects.models import Project
from devaipod_web.runs.models import Run

pytestmark = pytest.mark.django_db(transaction=True)

NEW = {
    "name": "Payments API",
    "upstream_url": "https://forge.example/acme/payments.git",
    "upstream_branch": "main",
    "production_url": "",
    "provider": "",
    "model": "",
    "permission_policy": "ask",
}


def as_(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def text_of(response: Any) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", response.content.decode()))


def test_a_manager_makes_a_project_and_lands_on_it(manager):
    response = as_(manager).post("/projects/new/", NEW, follow=True)
    assert response.redirect_chain == [("/projects/payments-api/", 302)]
    assert "Payments API" in text_of(response)
    assert "scripted demo, no AI" in text_of(response)
    assert "Launch the first run" in text_of(response)


def test_an_address_that_is_refused_is_said_at_its_field_and_nothing_typed_is_lost(manager):
    response = as_(manager).post(
        "/projects/new/", {**NEW, "upstream_url": "ext::sh -c id", "name": "Kept name"}
    )
    assert response.status_code == 400
    page = response.content.decode()
    assert 'value="Kept name"' in page
    assert "ext::sh -c id" in page
    assert not Project.objects.exists()


def test_an_empty_list_says_what_will_be_here(manager, viewer):
    assert "Make a project" in text_of(as_(manager).get("/projects/"))
    assert "A manager makes them" in text_of(as_(viewer).get("/projects/"))


def test_the_list_shows_what_each_project_is_doing(viewer, project, run):
    page = text_of(as_(viewer).get("/projects/"))
    assert "Payments" in page
    assert "Retry webhooks" in page
    assert "queued" in page


def test_the_list_takes_the_same_number_of_queries_however_long(
    viewer, django_assert_max_num_queries
):
    for number in range(12):
        Project.objects.create(
            slug=f"p{number}", name=f"P{number}", upstream_url="https://x.example/y"
        )
    client = as_(viewer)
    with django_assert_max_num_queries(14):
        assert client.get("/projects/").status_code == 200


def test_the_overview_shows_runs_reviews_and_what_runs_may_do(operator, project, run):
    page = text_of(as_(operator).get("/projects/payments/"))
    for words in (
        "Retry webhooks",
        "No change of this project waits",
        "Networknone",
        "Stops after2 h",
    ):
        assert words in page


SECTIONS = {
    "repository": {
        "name": "Renamed",
        "description": "",
        "upstream_url": "https://forge.example/acme/payments.git",
        "upstream_branch": "develop",
        "production_url": "",
        "production_prefix": "bot/",
    },
    "agent": {"agent": "opencode", "provider": "", "model": ""},
    "permissions": {"permission_policy": "allow"},
    "limits": {
        "wall_seconds": "1 h 30 min",
        "memory_bytes": "2.5",
        "cpus": "1.5",
        "pids": "256",
        "workspace_bytes": "8",
        "workspace_inodes": "500000",
    },
    "image": {
        "image": "registry.example/team/image:1",
        "image_pattern": "registry.example/{owner}/{repo}-devcontainer:{branch}",
        "allowed_images": "registry.example/team/*\nregistry.example/other:1",
    },
}


@pytest.mark.parametrize("section", SECTIONS)
def test_each_tab_is_saved_on_its_own_and_says_what_was_saved(manager, project, section):
    client = as_(manager)
    path = f"/projects/payments/settings/{section}/"
    assert client.get(path).status_code == 200
    saved = client.post(path, SECTIONS[section], follow=True)
    assert saved.redirect_chain == [(path, 302)]
    again = client.post(path, SECTIONS[section], follow=True)
    assert "Nothing was different" in text_of(again)
    if section != "agent":
        assert "Saved:" in text_of(saved)


def test_limits_are_written_as_people_write_them(manager, project):
    client = as_(manager)
    client.post("/projects/payments/settings/limits/", SECTIONS["limits"])
    project.refresh_from_db()
    assert project.wall_seconds == 5400
    assert project.memory_bytes == 2_684_354_560
    page = client.get("/projects/payments/settings/limits/").content.decode()
    assert 'value="1 h 30 min"' in page
    assert 'value="2.5"' in page


@pytest.mark.parametrize("words", ["soon", "5", "1 fortnight", "-3 h", "999 d", ""])
def test_a_duration_that_cannot_be_is_refused_at_its_field(manager, project, words):
    response = as_(manager).post(
        "/projects/payments/settings/limits/", {**SECTIONS["limits"], "wall_seconds": words}
    )
    if words == "5":  # five minutes
        assert response.status_code == 302
        return
    assert response.status_code == 400
    project.refresh_from_db()
    assert project.wall_seconds == 7200


def test_a_project_with_a_provider_no_longer_says_demo(manager, project):
    provider = Provider.objects.create(name="Acme models", base_url="https://m.example/v1")
    client = as_(manager)
    client.post(
        "/projects/payments/settings/agent/",
        {"agent": "opencode", "provider": provider.key, "model": "vendor/large"},
    )
    page = text_of(client.get("/projects/payments/"))
    assert "Acme models · vendor/large" in page
    assert "scripted demo" not in page


def test_a_project_is_archived_after_its_runs_and_brought_back(manager, project, run):
    client = as_(manager)
    refused = client.post("/projects/payments/archive/", follow=True)
    assert "has not ended" in text_of(refused)
    Run.objects.update(state="stopped")
    client.post("/projects/payments/archive/")
    assert "<bdi>Payments</bdi>" not in client.get("/projects/").content.decode()
    assert "Payments" in text_of(client.get("/projects/?archived=1"))
    client.post("/projects/payments/archive/", {"action": "restore"})
    project.refresh_from_db()
    assert project.archived_at is None


def test_settings_are_for_managers_and_the_rest_do_not_see_their_tabs(operator, project):
    client = as_(operator)
    assert client.get("/projects/payments/settings/limits/").status_code == 403
    assert "/settings/" not in client.get("/projects/payments/").content.decode()


def test_a_tab_that_is_not_there_is_not_found(manager, project):
    assert as_(manager).get("/projects/payments/settings/nothing/").status_code == 404
    assert as_(manager).get("/projects/nothing/").status_code == 404


def test_what_people_type_is_text_on_every_page(manager):
    evil = "<script>alert(1)</script>\u202eevil"
    project = Project.objects.create(
        slug="evil", name=evil, description=evil, upstream_url="https://x.example/y"
    )
    client = as_(manager)
    for path in ("/projects/", f"/projects/{project.slug}/", f"/projects/{project.slug}/settings/"):
        assert "<script>alert" not in client.get(path).content.decode(), path


def test_a_providers_key_is_on_no_page(manager):
    client = as_(manager)
    key = "sk-test-0123456789abcdef"
    made = client.post(
        "/providers/new/",
        {"name": "Acme", "base_url": "https://m.example/v1", "credential": key},
        follow=True,
    )
    row = Provider.objects.get()
    refused = client.post(
        f"/providers/{row.key}/", {"name": "", "base_url": row.base_url, "credential": key}
    )
    for response in (
        made,
        refused,
        client.get("/providers/"),
        client.get(f"/providers/{row.key}/"),
    ):
        assert key not in response.content.decode()
    assert "set, shown never" in text_of(client.get("/providers/"))


def test_the_test_button_says_what_the_provider_said(manager, settings):
    settings.ALLOWED_PRIVATE_NETWORKS = ["127.0.0.0/8"]
    row = Provider.objects.create(name="Local", base_url="http://127.0.0.1:9/v1")
    client = as_(manager)
    whole = client.post(f"/providers/{row.key}/test/")
    assert "does not answer" in text_of(whole)
    part = client.post(f"/providers/{row.key}/test/", headers={"HX-Request": "true"})
    assert "does not answer" in text_of(part)
    assert "<html" not in part.content.decode()
