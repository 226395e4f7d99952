"""Every error below /api/devaipod/ is a problem document, also those that never reach an operation."""

from __future__ import annotations

import json

import pytest
from django.test import Client

from tests.api.conftest import problem
from tests.live import serving

pytestmark = [pytest.mark.django_db(transaction=True)]

ROOT = "/api/devaipod"


@pytest.mark.parametrize("path", ["/", "/nothing", "/runs/x/y/z", "/runs/", "/docs/x", "/%00"])
def test_an_unknown_address_is_a_problem_document(call, viewer, path):
    found = problem(call(viewer).get(path), 404, "not-found")
    assert "/api/devaipod/docs" in found["next_step"]


def test_an_address_elsewhere_is_still_a_page(client, viewer):
    client.force_login(viewer)
    for path in ("/nothing/", "/api/devaipodx/runs"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert answer.headers["Content-Type"].startswith("text/html")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/runs", {"GET", "POST"}),
        ("DELETE", "/status", {"GET"}),
        ("TRACE", "/runs", {"GET", "POST"}),
        ("OPTIONS", "/runs", {"GET", "POST"}),
        ("POST", "/runs/nothing000", {"GET", "DELETE"}),
    ],
)
def test_another_method_is_refused_with_those_that_are_taken(call, viewer, method, path, allowed):
    answer = call(viewer)(method, path)
    found = problem(answer, 405, "method-not-allowed")
    assert set(answer.headers["Allow"].split(", ")) == allowed
    assert all(word in found["detail"] for word in allowed)


def send(caller, data: bytes | str, path: str = "/runs"):
    return caller.client.post(
        ROOT + path,
        data,
        content_type="application/json",
        headers={"Authorization": f"Bearer {caller.token}"},
    )


@pytest.mark.parametrize(
    "data",
    [
        "{",
        "nonsense",
        b"\xff\xfe\x00",
        '{"project": "payments", "task": NaN}',
        '{"project": "payments", "task": 1e999}',
        '{"project": "payments", "task": "\\ud800"}',
        '{"project": "payments", "task": "a\\u0000b"}',
        "[" * 100_000,
        '{"task":' * 5000,
    ],
)
def test_a_body_that_is_no_json_is_refused(call, operator, data):
    found = problem(send(call(operator), data), 400, "bad-body")
    assert "JSON" in found["next_step"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], ""),
        ("text", ""),
        ({"task": "x"}, "project"),
        ({"project": "payments", "task": 5}, "task"),
        ({"project": "payments", "task": "x", "wall_seconds": "60"}, "wall_seconds"),
        ({"project": "payments", "task": "x", "wall_seconds": 10**30}, "wall_seconds"),
        ({"project": "payments", "task": "x", "permission_policy": "never"}, "permission_policy"),
        ({"project": "payments", "task": "x" * 200_001}, "task"),
        ({"project": "payments", "task": "x", "nonsense": 1}, "nonsense"),
    ],
)
def test_a_form_that_is_not_understood_names_the_field(call, operator, project, body, field):
    found = problem(call(operator).post("/runs", body), 422, "invalid-request")
    assert [error["field"] for error in found["errors"]] == [field]
    assert found["detail"].startswith(field or "request")


def test_no_body_at_all_is_a_form_that_is_not_understood(call, operator):
    problem(send(call(operator), ""), 422, "invalid-request")


def test_a_whole_number_may_have_a_point(call, operator, project):
    answer = send(call(operator), '{"project": "payments", "task": "x", "wall_seconds": 60.0}')
    assert answer.json()["wall_seconds"] == 60


def test_a_body_that_is_too_large_is_refused(call, operator, settings):
    alice = call(operator)
    body = json.dumps({"project": "payments", "task": "x" * settings.DATA_UPLOAD_MAX_MEMORY_SIZE})
    for headers in ({}, {"Idempotency-Key": "k"}):
        answer = alice.client.post(
            ROOT + "/runs",
            body,
            content_type="application/json",
            headers={"Authorization": f"Bearer {alice.token}", **headers},
        )
        assert "2,097,152" in problem(answer, 413, "too-large")["detail"]


def test_a_foreign_host_is_refused_with_a_problem_document(viewer):
    answer = Client(headers={"Host": "evil.example"}).get(ROOT + "/status")
    assert "evil" not in json.dumps(problem(answer, 400, "bad-request"))


def test_a_fault_before_any_operation_is_a_problem_document_too(viewer, monkeypatch):
    from django.contrib.sessions.backends.db import SessionStore

    client = Client(raise_request_exception=False)
    client.force_login(viewer)

    def broken(self):
        raise RuntimeError("/secret/path")

    # The session is read before the API is reached.
    monkeypatch.setattr(SessionStore, "load", broken)
    answer = client.get(ROOT + "/status")
    assert "secret" not in json.dumps(problem(answer, 500, "internal"))


def test_a_nul_in_a_parameter_is_refused(call, viewer):
    assert "text" in problem(call(viewer).get("/runs?text=a%00b"), 400, "bad-text")["detail"]


def test_the_page_of_the_documentation_stays_a_page(client):
    answer = client.get(ROOT + "/docs")
    assert answer.status_code == 302
    assert answer.headers["Location"].startswith("/sign-in/")


def test_over_a_real_socket_it_is_the_same(db, operator, call):
    import http.client
    from urllib.parse import urlsplit

    with serving() as url:
        for method, path, status in (
            ("GET", "/nothing", 404),
            ("PATCH", "/runs", 405),
            ("POST", "/runs", 401),
        ):
            connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
            connection.request(method, ROOT + path, body=b"{")
            answer = connection.getresponse()
            assert (answer.status, answer.headers["Content-Type"]) == (
                status,
                "application/problem+json",
            )
            assert json.loads(answer.read())["status"] == status
            connection.close()
