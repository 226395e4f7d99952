from __future__ import annotations

import pytest
from django.test import Client

from devaipod_web.llm.models import Provider
from devaipod_web.projects.models import Project
from tests.api.conftest import problem

pytestmark = [pytest.mark.django_db(transaction=True)]

NEW = {"name": "Payments", "upstream_url": "https://forge.example/acme/payments.git"}


def test_a_manager_makes_changes_and_archives_a_project(call, manager):
    mona = call(manager)
    made = mona.post("/projects", {**NEW, "permission_policy": "allow", "cpus": 1})
    assert made.status_code == 201, made.content
    assert made.json()["slug"] == "payments"
    changed = mona("PATCH", "/projects/payments", {"wall_seconds": 600}).json()
    assert (changed["wall_seconds"], changed["permission_policy"]) == (600, "allow")
    assert mona.get("/projects").json()["results"][0]["slug"] == "payments"
    assert mona.post("/projects/payments/archive").json()["archived_at"]
    assert mona.get("/projects").json()["results"] == []
    assert len(mona.get("/projects?archived=true").json()["results"]) == 1


def test_every_field_that_cannot_be_is_named_at_once(call, manager):
    answer = call(manager).post("/projects", {**NEW, "upstream_url": "ext::sh", "pids": 1})
    found = problem(answer, 400, "invalid-project")
    assert {item["field"] for item in found["errors"]} == {"upstream_url", "pids"}
    assert not Project.objects.exists()


def test_a_provider_is_listed_without_its_key_and_chosen_by_it(call, manager, project):
    row = Provider.objects.create(
        name="Acme", base_url="https://m.example/v1", credential=b"sealed-bytes"
    )
    mona = call(manager)
    listed = mona.get("/providers")
    (shown,) = listed.json()
    assert (shown["key"], shown["name"], shown["has_credential"]) == (row.key, "Acme", True)
    assert b"sealed" not in listed.content
    changed = mona("PATCH", "/projects/payments", {"provider": row.key, "model": "m-1"}).json()
    assert (changed["provider"], changed["provider_label"]) == (row.key, "Acme")
    back = mona("PATCH", "/projects/payments", {"provider": None, "model": ""}).json()
    assert back["provider_label"] == "scripted demo, no AI"


def test_the_openapi_document_has_every_operation_behind_a_bearer_token(call, viewer):
    document = call(viewer).get("/openapi.json").json()
    assert document["openapi"].startswith("3.")
    for path, methods in document["paths"].items():
        assert path.startswith("/api/devaipod/")
        for found in methods.values():
            assert found["security"], path
            assert found["summary"], path
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert Client().get("/api/devaipod/openapi.json").status_code == 401


def test_retention_says_what_it_would_remove_and_removes_nothing(call, manager, run):
    mona = call(manager)
    assert mona.get("/retention").json() == []
    assert mona.post("/retention").json() == []
