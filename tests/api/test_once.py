"""`Idempotency-Key`: what is sent again is done once, and answered the same."""

from __future__ import annotations

import json
import sqlite3
import threading
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.utils import timezone

from devaipod_web.accounts.models import ApiToken, KeptAnswer
from devaipod_web.api.once import KEEP
from devaipod_web.budgets.models import Budget
from devaipod_web.cli.client import Client, Refused
from devaipod_web.llm.models import Price, Provider
from devaipod_web.projects.models import Project
from devaipod_web.reviews.models import AuditEntry
from devaipod_web.runs.models import Run, Turn
from devaipod_web.webhooks.models import Webhook
from tests.api.conftest import problem
from tests.live import serving

pytestmark = [pytest.mark.django_db(transaction=True)]

TASK = {"project": "payments", "task": "Retry webhooks"}
PROJECT = {"name": "Billing", "upstream_url": "https://forge.example/acme/billing.git"}

#: Operation → path, body, another body, and what it makes.
CREATIONS: dict[str, tuple[str, dict[str, Any], dict[str, Any], Any]] = {
    "run_create": ("/runs", TASK, {**TASK, "task": "another"}, Run),
    "project_create": ("/projects", PROJECT, {**PROJECT, "name": "B"}, Project),
    "provider_create": (
        "/providers",
        {"name": "Acme", "base_url": "https://m.example/v1", "credential": "sk-1"},
        {"name": "Acme", "base_url": "https://m.example/v1", "credential": "sk-2"},
        Provider,
    ),
    "token_create": ("/tokens", {"name": "ci"}, {"name": "ci", "days": 7}, ApiToken),
    "pod_create": (
        "/pods",
        {"project": "payments", "argv": ["make"]},
        {"project": "payments", "argv": ["make", "test"]},
        Run,
    ),
    "webhook_create": (
        "/webhooks",
        {"name": "Ops", "url": "https://receiver.example/hook", "events": ["run.state"]},
        {"name": "Ops", "url": "https://receiver.example/hook", "events": ["review.opened"]},
        Webhook,
    ),
    "price_create": (
        "/prices",
        {"pattern": "x", "sent": "1", "received": "1"},
        {"pattern": "x", "sent": "1", "received": "2"},
        Price,
    ),
    "budget_create": (
        "/budgets",
        {"scope": "installation", "metric": "usd", "window": "day", "limit": "10"},
        {"scope": "installation", "metric": "usd", "window": "day", "limit": "20"},
        Budget,
    ),
    "run_prompt": ("/runs/{run}/prompt", {"text": "more"}, {"text": "less"}, Turn),
}


def key(text: str) -> dict[str, str]:
    return {"Idempotency-Key": text}


def test_every_operation_that_makes_something_takes_a_key():
    from devaipod_web.api.openapi import document

    taking = {
        operation["operationId"]
        for methods in document()["paths"].values()
        for operation in methods.values()
        if any(item["name"] == "Idempotency-Key" for item in operation["parameters"])
    }
    made = {
        operation["operationId"]
        for methods in document()["paths"].values()
        for method, operation in methods.items()
        if method == "post" and {"201", "202"} & set(operation["responses"])
    }
    assert taking == made
    assert set(CREATIONS) <= taking


@pytest.mark.parametrize("name", CREATIONS)
def test_the_same_request_with_the_same_key_is_carried_out_once(call, manager, run, name):
    path, body, other, model = CREATIONS[name]
    mona, path = call(manager), path.format(run=run.key)
    before, audited = model.objects.count(), AuditEntry.objects.count()
    first = mona.post(path, body, **key("k-1"))
    made, entries = model.objects.count() - before, AuditEntry.objects.count() - audited
    # The same document in another order is the same request; the key may be a quoted string (RFC 9651).
    again = mona.post(path, dict(reversed(body.items())), **key('"k-1"'))
    assert first.status_code in (201, 202), first.content
    assert again.status_code == first.status_code
    assert again.json() == first.json()
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert model.objects.count() == before + made == before + 1
    assert AuditEntry.objects.count() == audited + entries
    found = problem(mona.post(path, other, **key("k-1")), 422, "idempotency-key-reused")
    assert "new key" in found["next_step"]
    assert model.objects.count() == before + 1


def test_a_key_belongs_to_one_person_and_one_address(call, manager, operator, run):
    alice, mona = call(operator), call(manager)
    first = alice.post("/runs", TASK, **key("k")).json()["key"]
    assert mona.post("/runs", TASK, **key("k")).json()["key"] != first
    problem(alice.post("/tokens", {"name": "x"}, **key("k")), 422, "idempotency-key-reused")


def test_a_token_that_reaches_less_does_not_get_the_answer_of_one_that_reaches_more(call, manager):
    from devaipod_web.accounts import tokens
    from devaipod_web.accounts.permissions import Role

    mona = call(manager)
    made = mona.post("/tokens", {"name": "ci"}, **key("k"))
    assert made.json()["role"] == "manager"
    mona.token = tokens.create(manager, "less", role=Role.VIEWER)[1]
    problem(mona.post("/tokens", {"name": "ci"}, **key("k")), 422, "idempotency-key-reused")


def test_a_refused_request_leaves_its_key_free_and_nothing_behind(call, manager, project):
    mona = call(manager)
    audited = AuditEntry.objects.count()
    problem(mona.post("/projects", {**PROJECT, "pids": 1}, **key("k")), 400, "invalid-project")
    problem(
        mona.post("/projects", {**PROJECT, "slug": "payments"}, **key("k")), 400, "invalid-project"
    )
    assert not KeptAnswer.objects.exists()
    assert AuditEntry.objects.count() == audited
    assert mona.post("/projects", PROJECT, **key("k")).status_code == 201


@pytest.mark.parametrize("given", ["", " ", "é" * 3, "x" * 256, '""'])
def test_what_is_no_key_is_refused(call, operator, project, given):
    answer = call(operator).post("/runs", TASK, **key(given))
    problem(answer, 400, "bad-idempotency-key")
    assert not Run.objects.exists()


def test_after_a_day_a_key_is_as_good_as_new(call, operator, project):
    alice = call(operator)
    first = alice.post("/runs", TASK, **key("nightly")).json()["key"]
    KeptAnswer.objects.update(at=timezone.now() - KEEP - timedelta(seconds=1))
    KeptAnswer.objects.create(
        user=operator, key_digest="0" * 64, request_digest="0", at=timezone.now() - KEEP * 2
    )
    assert alice.post("/runs", TASK, **key("nightly")).json()["key"] != first
    assert KeptAnswer.objects.count() == 1


@pytest.mark.parametrize("name", ["run_create", "token_create"])
def test_of_many_at_once_one_is_carried_out_and_all_get_its_answer(operator, project, call, name):
    path, body, _, model = CREATIONS[name]
    with serving() as url:
        client = Client(url, call(operator).token)
        before = model.objects.count()
        answers, errors = [], []
        gate = threading.Barrier(8)

        def send() -> None:
            gate.wait()
            try:
                answers.append(client.send("POST", path, body, headers=key("at-once")))
            except Refused as error:
                errors.append(error)

        threads = [threading.Thread(target=send) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert not errors
    assert len(answers) == 8
    assert all(answer == answers[0] for answer in answers)
    assert model.objects.count() == before + 1


def test_a_kept_token_is_in_clear_nowhere_and_opens_with_its_key_alone(call, operator):
    from devaipod_web.llm import vault

    alice, secret = call(operator), str(uuid.uuid4())
    text = alice.post("/tokens", {"name": "ci"}, **key(secret)).json()["token"]
    row = KeptAnswer.objects.get()
    assert json.loads(vault.unseal(bytes(row.body), context=secret.encode()))["token"] == text
    for wrong in (b"", b"another"):
        with pytest.raises(vault.CannotUnseal):
            vault.unseal(bytes(row.body), context=wrong)
    database = sqlite3.connect(settings.DATABASES["default"]["NAME"])
    dump = "\n".join(database.iterdump())
    assert text not in dump
    assert secret not in dump


def test_an_answer_that_can_no_longer_be_opened_is_not_made_again(call, operator, monkeypatch):
    alice = call(operator)
    alice.post("/tokens", {"name": "ci"}, **key("k"))
    monkeypatch.setenv("DEVAIPOD_ENCRYPTION_KEY", "a new one")
    found = problem(alice.post("/tokens", {"name": "ci"}, **key("k")), 409, "answer-lost")
    assert "carried out" in found["detail"]
    assert ApiToken.objects.filter(name="ci").count() == 1


def test_a_run_of_the_api_and_one_of_the_page_share_no_keys(call, operator, project):
    from devaipod_web.runs.services.launch import launch

    page = launch(project, operator, task="x", idempotency_key="k")
    assert call(operator).post("/runs", TASK, **key("k")).json()["key"] != page.key
