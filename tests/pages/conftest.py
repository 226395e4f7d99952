"""A run that a sidecar works on, and pages read as somebody."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from devaipod_web.runs.models import Run, RunPod
from devaipod_web.runs.services.ingest import ingest
from devaipod_web.runs.services.launch import launch
from devaipod_web.runs.services.transition import transition
from devaipod_web.runs.states import State
from pods.sidecar.protocol import Event

HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)>\u202egnp\x1b[31m'
OPTIONS = [
    {"id": "once", "name": "Allow once", "kind": "allow_once"},
    {"id": "always", "name": "Always allow", "kind": "allow_always"},
    {"id": "no", "name": "Reject", "kind": "reject_once"},
]


class Sidecar:
    """Speaks for a pod as its sidecar does: numbered events, one after the other."""

    def __init__(self, pod: RunPod) -> None:
        self.pod = pod
        self.run = pod.run
        self.numbers = itertools.count(1)

    def says(self, kind: str, /, **payload: Any) -> None:
        event: Event = {
            "source_seq": next(self.numbers),
            "kind": kind,
            "v": 1,
            "at": timezone.now().isoformat(),
            "payload": payload,
        }
        ingest(self.pod.pk, [event])

    def asks(self, request_id: str = "q1", command: str = "alembic upgrade head") -> None:
        call: dict[str, Any] = {"toolCallId": "c1", "title": "bash", "kind": "execute"}
        call["rawInput"] = {"command": command}
        self.says("permission.requested", request_id=request_id, tool_call=call, options=OPTIONS)


def begun(run: Run) -> Sidecar:
    """Bring a queued run into the middle of its first turn."""
    transition(run.pk, State.PREPARING, reason="")
    transition(run.pk, State.STARTING, reason="", attempts=1)
    pod = RunPod.objects.create(
        run=run,
        attempt=1,
        name=f"devaipod-payments-{run.key}-1",
        backend="podman",
        image="localhost/agent",
        control_digest=f"c{run.key}",
        data_digest=f"d{run.key}",
    )
    sidecar = Sidecar(pod)
    sidecar.says("session.started", session_id="s1", how="new", context_lost=False)
    sidecar.says("command.applied", command=run.commands.get(kind="prompt").key)
    sidecar.says("turn.started", turn=1, text=run.task)
    return sidecar


@pytest.fixture(autouse=True)
def quick_passwords(settings):
    """Passwords of tests need no strength, and Django's own hash takes a second each on a busy machine."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def run(project, operator):
    return launch(project, operator, task="Retry webhooks with back-off.")


@pytest.fixture
def working(run) -> Sidecar:
    return begun(run)


@pytest.fixture
def page(client):
    """Read a page as somebody: the text of an answer that was fine."""

    def read(person, name, *args, query="", status=200):
        client.force_login(person)
        answer = client.get(reverse(name, args=args) + query)
        assert answer.status_code == status, answer.content[:2000]
        return answer.content.decode()

    return read


@pytest.fixture
def post(client):
    """Send a form as somebody; the answer after its redirects."""

    def send(person, name, /, *args, htmx=False, **data):
        client.force_login(person)
        headers = {"HX-Request": "true"} if htmx else {}
        return client.post(reverse(name, args=args), data, follow=True, headers=headers)

    return send
