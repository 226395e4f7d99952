"""What an orchestrator asks."""

from __future__ import annotations

import pytest
from django.db import connection
from django.db.utils import OperationalError
from django.test import Client


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_a_probe_is_answered_whatever_host_it_names(path):
    answer = Client().get(path, headers={"host": "10.88.7.12:8000"})
    assert (answer.status_code, answer.content) == (200, b"ok\n")


def test_any_other_page_is_refused_to_a_host_that_is_not_allowed():
    client = Client(raise_request_exception=False)
    assert client.get("/sign-in/", headers={"host": "10.88.7.12:8000"}).status_code == 400


@pytest.mark.django_db
def test_it_is_alive_and_not_ready_while_its_database_does_not_answer(monkeypatch):
    def away() -> None:
        raise OperationalError("connection refused")

    monkeypatch.setattr(connection, "cursor", away)
    answer = Client().get("/readyz")
    assert (answer.status_code, answer.content) == (503, b"The database does not answer.\n")
    assert Client().get("/healthz").status_code == 200
