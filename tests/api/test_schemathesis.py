"""The whole OpenAPI document against the served application: what is sent is made from the document, what comes is held to it.

For each operation schemathesis sends what the document allows and what it forbids, and checks every answer: no fault of the
server, a status, media type, headers and body that are documented, other methods refused with `Allow`, authentication
needed, wrong data refused and right data not. The seed is fixed, so that a failure comes again; a larger run by hand:

    SCHEMATHESIS_EXAMPLES=200 .venv/bin/pytest tests/api/test_schemathesis.py -k run_create
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case, Response

from devaipod_web.accounts import tokens
from devaipod_web.accounts.models import User
from devaipod_web.accounts.permissions import Role
from devaipod_web.api.openapi import document
from devaipod_web.budgets.models import Incident
from devaipod_web.health.verbs import setup as setting_up
from devaipod_web.llm.models import Provider
from devaipod_web.projects.models import Project
from devaipod_web.reviews.services.refresh import refresh
from devaipod_web.runs.models import Run
from devaipod_web.runs.states import State
from devaipod_web.targets import services as targets
from devaipod_web.webhooks import services as hooking
from tests.api.things import Things, fill, token
from tests.forges.world import World
from tests.live import serving
from tests.targets.conftest import kubeconfig

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "8"))
SEED = 20261124
NDJSON = "application/x-ndjson"
SECONDS = 30

DOCUMENT = document()
COMPONENTS = {"components": DOCUMENT["components"]}


def configuration(examples: int, *, edges: bool = True) -> schemathesis.Config:
    """`edges`: also every edge of every field, which an answer of 403 hides."""
    return schemathesis.Config.from_dict(
        {
            "seed": SEED,
            "generation": {
                "max-examples": examples,
                "deterministic": True,
                "database": "none",
                "no-shrink": True,
            },
            "phases": {"coverage": {"enabled": edges}},
            "checks": {
                # Documented ones (`status_code_conformance` looks): a backend or forge that does not answer.
                "not_a_server_error": {"expected-statuses": ["2xx", "4xx", 502, 503, 504]},
                # 400 is a rule that no schema can say (an address that the guard refuses); 422, the form, is never right here.
                "positive_data_acceptance": {
                    "expected-statuses": ["2xx", 400, 401, 403, 404, 409, 410, 413, 502, 503, 504]
                },
            },
        }
    )


manager_api = schemathesis.openapi.from_dict(DOCUMENT, config=configuration(EXAMPLES))
viewer_api = schemathesis.openapi.from_dict(
    DOCUMENT, config=configuration(max(1, EXAMPLES // 4), edges=False)
)


@dataclass
class Served:
    """A server with some of everything in it, and how it is called."""

    url: str
    token: str
    names: dict[str, list[str]]
    ended: list[str]
    things: Things
    sent: int = 0

    def check(self, case: Case) -> None:
        """Send the case to what is there, mostly, and hold the answer to the document."""
        place(case, self.names, self.ended)
        place_body(case, self.things)
        self.sent += 1
        new_key(case, self.sent)
        headers = {"Authorization": f"Bearer {self.token}"}
        case.call_and_validate(
            base_url=self.url,
            headers=headers,
            timeout=SECONDS,
            additional_checks=[every_line_conforms],
        )


def place(case: Case, names: dict[str, list[str]], ended: list[str]) -> None:
    """Put the name of something that is there into the address, save for one in four: made-up names find nothing."""
    operation = case.operation.definition.raw["operationId"]
    for name, value in (case.path_parameters or {}).items():
        there = ended if operation in ("run_events", "pod_logs") else names[operation]
        number = zlib.crc32(repr(value).encode())
        # A stream that follows a run at work goes on and on: these are given ended ones alone.
        if there and (number % 4 or operation in ("run_events", "pod_logs")):
            case.path_parameters[name] = there[number // 4 % len(there)]


def a_run(body: dict[str, Any], things: Things) -> dict[str, Any]:
    """The body of a run that can be launched. What belongs to a command alone makes any other run a bad request, as a made-up agent does."""
    kept: dict[str, Any] = {n: body[n] for n in ("title", "wall_seconds") if n in body}
    return {**kept, "project": things.project.slug, "task": body.get("task") or "Retry."}


def place_body(case: Case, things: Things) -> None:
    """Make one in two right answers and promotions right in substance, too: made-up ones name nothing that is there."""
    operation, body = case.operation.definition.raw["operationId"], case.body
    if not isinstance(body, dict) or zlib.crc32(repr(sorted(body)).encode()) % 2:
        return
    if operation == "run_create" and isinstance(body.get("project"), str):
        case.body = a_run(body, things)
    if operation == "run_permission" and set(body) == {"request", "option_id"}:
        case.path_parameters["key"] = things.asked.run.key
        case.body = {"request": things.asked.key, "option_id": "once"}
    if operation == "review_promote" and isinstance(body.get("head"), str):
        case.path_parameters["key"] = things.review.key
        ticks = [risk["id"] for risk in things.review.risks if risk["tick"]]
        case.body = {"head": things.review.head, "ticks": ticks}


def new_key(case: Case, number: int) -> None:
    """Give a key that may be sent an end of its own: the document can't say that a used one is another request's (422)."""
    sent: Any = case.headers or {}
    given = sent.get("Idempotency-Key")
    if isinstance(given, str) and re.fullmatch("[!-~]{1,200}", given):
        sent["Idempotency-Key"] = f"{given}.{number}"


def every_line_conforms(ctx: object, response: Response, case: Case) -> None:
    """Each line of a stream is a document of its schema, and nothing else is on it but blanks."""
    if response.headers.get("content-type", [""])[0] != NDJSON:
        return
    operation: Any = case.operation.definition.raw
    schema = operation["responses"]["200"]["content"][NDJSON]["schema"]
    validator = jsonschema_rs.validator_for({**schema, **COMPONENTS})
    lines = [line for line in response.content.split(b"\n") if line.strip()]
    for line in lines:
        validator.validate(json.loads(line))


@pytest.fixture
def served(
    request, tmp_path, settings, monkeypatch, person: Callable[..., User]
) -> Iterator[Callable[..., Served]]:
    settings.LOCAL_REPOSITORY_ROOTS = [str(tmp_path)]
    # Only the web app is served here: nobody will say anything of the other services.
    monkeypatch.setattr(setting_up, "SPEAK_SECONDS", 0.0)

    def serve(user: User) -> Served:
        provider = Provider.objects.create(name="Acme", base_url="https://m.example/v1")
        project = Project.objects.create(
            slug="payments", name="Payments", upstream_url="https://forge.example/acme/p.git"
        )
        things = fill(project, user)
        if "/reviews/" in request.node.name:
            review_of(tmp_path, things)
        names = names_of(things, user, provider)
        return Served(url, token(user), names, things_ended(request, things), things)

    with serving() as url:
        yield serve


def review_of(tmp_path: Any, things: Things) -> None:
    """Give the succeeded run a real repository with a real change, and a review of it."""
    run = things.runs[State.SUCCEEDED]
    things.review.delete()
    Run.objects.filter(pk=run.pk).update(branch=f"agent/{run.key}/work")
    run.refresh_from_db()
    world = World(tmp_path, things.project, run)
    world.prepare()
    world.work({"a.py": "x = 1\n", ".github/workflows/ci.yml": "on: push\n"})
    world.push()
    things.review = refresh(run.key)


def names_of(things: Things, user: User, provider: Provider) -> dict[str, list[str]]:
    """Operation → names that its address may have."""
    runs = [run.key for run in things.runs.values()]
    pods = [pod.name for pod in things.pods.values()]
    reviews = [things.review.key, things.review.run.key]
    # Never the token that the calls are made with: everything after it would be refused.
    spare = [tokens.create(user, f"spare {number}")[0].key for number in range(3)]
    free = Provider.objects.create(name="Free", base_url="https://free.example/v1")
    empty = Project.objects.create(
        slug="empty", name="Empty", upstream_url="https://f.example/e.git"
    )
    hooks = [
        hooking.create(
            user, name=name, url=f"https://receiver.example/{name}", events=["run.state"]
        )[0]
        for name in ("Chat", "Ops")
    ]
    away = targets.save(
        user, None, name="away", kubeconfig_text=kubeconfig(server="https://127.0.0.1:1")
    )
    sent = [hooking.test(hook, user).key for hook in hooks]
    found: dict[str, list[str]] = {}
    for path, methods in DOCUMENT["paths"].items():
        kinds = {"runs": runs, "pods": pods, "reviews": reviews, "tokens": spare}
        kinds |= {
            "projects": [things.project.slug, empty.slug],
            "providers": [provider.key, free.key],
            "budgets": [row.key for row in things.budgets],
            "incidents": [row.key for row in Incident.objects.order_by("pk")],
            "webhooks": [hook.key for hook in hooks],
            "deliveries": sent,
            "services": ["web", "gateway", "podman"],
            "targets": ["podman", away.key],
        }
        for operation in methods.values():
            found[operation["operationId"]] = kinds.get(path.split("/")[3], [])
    return found


def things_ended(request: Any, things: Things) -> list[str]:
    """What a stream of this operation comes to its end for."""
    if "/pods/" in request.node.name:
        return [pod.name for pod in things.pods.values() if pod.removed_at is not None]
    return [run.key for run in things.ended]


@pytest.fixture
def as_manager(served, person) -> Served:
    made: Served = served(person("mona", Role.MANAGER))
    return made


@pytest.fixture
def as_viewer(served, person) -> Served:
    made: Served = served(person("vera", Role.VIEWER))
    return made


#: The installation is shared by an operation's calls on purpose: one sees what another left.
shared = settings(deadline=None, suppress_health_check=list(HealthCheck))


@manager_api.parametrize()
@shared
def test_a_managers_calls_are_answered_as_the_document_says(case: Case, as_manager: Served):
    as_manager.check(case)


#: What makes a thing, then what is done to it, with the status of each; `{key}` is the thing's.
CHAINS: dict[str, list[tuple[str, str, Any, int]]] = {
    "run": [
        ("POST", "/runs", {"project": "payments", "task": "Retry."}, 201),
        ("GET", "/runs/{key}", None, 200),
        ("PATCH", "/runs/{key}/labels", {"labels": {"ticket": "41"}}, 200),
        ("POST", "/runs/{key}/prompt", {"text": "And test it."}, 202),
        ("GET", "/runs/{key}/diagnostics", None, 200),
        ("DELETE", "/runs/{key}", None, 409),
        ("POST", "/runs/{key}/stop", {}, 200),
        ("DELETE", "/runs/{key}", None, 204),
        ("GET", "/runs/{key}", None, 404),
    ],
    "pod": [
        ("POST", "/pods", {"project": "payments", "argv": ["make", "test"]}, 201),
        ("GET", "/runs/{key}", None, 200),
        ("POST", "/runs/{key}/prompt", {"text": "no"}, 409),
        ("POST", "/runs/{key}/stop", {}, 200),
        ("DELETE", "/runs/{key}", None, 204),
    ],
    "provider": [
        ("POST", "/providers", {"name": "New", "base_url": "https://n.example/v1"}, 201),
        ("GET", "/providers/{key}", None, 200),
        ("PATCH", "/providers/{key}", {"name": "Newer"}, 200),
        ("DELETE", "/providers/{key}", None, 204),
        ("GET", "/providers/{key}", None, 404),
    ],
    "target": [
        ("POST", "/targets", {"name": "new", "kubeconfig": kubeconfig(), "gateway_mode": "relay"}, 201),
        ("GET", "/targets/{key}", None, 200),
        ("PATCH", "/targets/{key}", {"enabled": False, "max_runs": 3}, 200),
        ("DELETE", "/targets/{key}", None, 204),
        ("GET", "/targets/{key}", None, 404),
    ],
    "webhook": [
        ("POST", "/webhooks", {"name": "New", "url": "https://n.example/", "events": ["run.state"]}, 201),
        ("PATCH", "/webhooks/{key}", {"enabled": False}, 200),
        ("POST", "/webhooks/{key}/test", None, 409),
        ("PATCH", "/webhooks/{key}", {"enabled": True}, 200),
        ("POST", "/webhooks/{key}/rotate", None, 200),
        ("POST", "/webhooks/{key}/test", None, 202),
        ("GET", "/webhooks/{key}/deliveries", None, 200),
        ("DELETE", "/webhooks/{key}", None, 204),
        ("GET", "/webhooks/{key}", None, 404),
    ],
    "token": [
        ("POST", "/tokens", {"name": "new"}, 201),
        ("DELETE", "/tokens/{key}", None, 204),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_what_one_call_makes_the_next_ones_find_and_lose(name: str, as_manager: Served):
    """Each answer of a chain is held to the document too."""
    schema = schemathesis.openapi.from_dict(DOCUMENT, config=configuration(EXAMPLES))
    bearer = {"Authorization": f"Bearer {as_manager.token}"}
    key = ""
    for method, path, body, status in CHAINS[name]:
        more = {} if body is None else {"body": body, "media_type": "application/json"}
        case = schema["/api/devaipod" + path][method].Case(
            path_parameters={"key": key} if "{key}" in path else {}, headers=bearer, **more
        )
        answer = case.call(base_url=as_manager.url, timeout=SECONDS)
        case.validate_response(
            answer, headers=bearer, transport_kwargs={"base_url": as_manager.url}
        )
        assert answer.status_code == status, (method, path, answer.text)
        key = key or answer.json()["key"]


@viewer_api.parametrize()
@shared
def test_a_viewers_calls_are_answered_as_the_document_says(case: Case, as_viewer: Served):
    as_viewer.check(case)
