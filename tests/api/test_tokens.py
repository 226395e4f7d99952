"""What a token can do: the lesser of its role and its person's, for its project alone, until its end."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from devaipod_web.accounts import services, tokens
from devaipod_web.accounts.models import ApiToken
from devaipod_web.accounts.permissions import LEAST_ROLE, ORDER, REACH, ROUTES, Reach, Role
from devaipod_web.api.problems import Problem
from devaipod_web.api.reach import check
from devaipod_web.projects.models import Project
from tests.api.conftest import ROOT, problem, streamed
from tests.api.test_auth import operations
from tests.api.things import fill

pytestmark = [pytest.mark.django_db(transaction=True)]


def bearer(text: str):
    """Calls with a token's text."""
    client = Client()

    def call(method: str, path: str, body: object = None):
        return client.generic(
            method,
            ROOT + path,
            json.dumps(body) if body is not None else "",
            content_type="application/json",
            headers={"Authorization": f"Bearer {text}"},
        )

    return call


# --- role ---------------------------------------------------------------------------------------------------------

#: One operation of each permission, with a body that its form takes.
SAMPLES: dict[str, tuple[str, str, object]] = {
    "run_get": ("GET", "/runs/nothing000", None),
    "run_stop": ("POST", "/runs/nothing000/stop", {}),
    "review_reject": ("POST", "/reviews/nothing000/reject", {}),
    "project_archive": ("POST", "/projects/nothing/archive", None),
}


@pytest.mark.parametrize("own", [None, *ORDER])
@pytest.mark.parametrize("given", ORDER)
def test_a_token_may_do_the_lesser_of_its_role_and_its_persons(person, own, given):
    user = person("somebody", own)
    call = bearer(tokens.create(user, "tests", role=given)[1])
    for name, (method, path, body) in SAMPLES.items():
        answer = call(method, path, body)
        needed = LEAST_ROLE[ROUTES[f"api:{name}"]]
        held = min(ORDER.index(own), ORDER.index(given)) if own is not None else -1
        # Nothing of that name is there: who may is told so (404), who may not that the role is missing (403).
        may = held >= ORDER.index(needed)
        assert answer.status_code == (404 if may or own is None else 403), (name, own, given)
    role = call("GET", "/status").json()["role"]
    assert role == ("" if own is None else ORDER[held])


def test_a_refusal_says_that_the_token_is_what_is_missing(manager, project):
    call = bearer(tokens.create(manager, "tests", role=Role.VIEWER)[1])
    answer = call("POST", f"/projects/{project.slug}/archive")
    found = problem(answer, 403, "role-needed")
    assert "this token has viewer" in found["detail"]
    assert "token with the role manager" in found["next_step"]


def test_a_persons_role_that_is_lowered_lowers_the_token_at_once(manager, operator, project):
    call = bearer(tokens.create(operator, "tests", role=Role.OPERATOR)[1])
    body = {"project": project.slug, "task": "x"}
    assert call("POST", "/runs", body).status_code == 201
    services.change_role(manager, operator, role=Role.VIEWER)
    problem(call("POST", "/runs", body), 403, "role-needed")


# --- project ------------------------------------------------------------------------------------------------------


@pytest.fixture
def two(project, operator):
    """Two projects with some of everything: a token is bound to the first."""
    other = Project.objects.create(
        slug="billing", name="Billing", upstream_url="https://forge.example/acme/billing.git"
    )
    return fill(project, operator), fill(other, operator)


def test_every_operation_says_how_a_bound_token_meets_it():
    listed = {name for name in ROUTES if name.startswith("api:")}
    assert {name for name in REACH if name.startswith("api:")} == listed
    # Sockets that take tokens stand there too; pages never take any.
    assert set(REACH) - listed <= {name for name in ROUTES if name.startswith("ws:")}


def test_what_says_nothing_of_its_reach_refuses_a_bound_token(two, manager):
    mine, _ = two
    row, _ = tokens.create(manager, "tests", project=mine.project)
    manager.through = row
    with pytest.raises(Problem) as caught:
        check(manager, "api:nobody_thought_of_it", {"key": mine.runs["running"].key})
    assert (caught.value.status, caught.value.code) == (403, "token-bound")


def addresses(things) -> dict[Reach, dict[str, str]]:
    return {
        Reach.RUN: {"{key}": things.runs["waiting"].key},
        Reach.POD: {"{name}": things.pods["failed"].name},
        Reach.REVIEW: {"{key}": things.review.key},
        Reach.PROJECT: {"{slug}": things.project.slug},
    }


def raw_operations():
    from devaipod_web.api.app import api

    for prefix, router in api._routers:
        for path, view in router.path_operations.items():
            for one in view.operations:
                yield str(one.operation_id), one.methods[0], prefix + path


def bodies(things) -> dict[str, object]:
    return {
        "run_create": {"project": things.project.slug, "task": "x"},
        "run_prompt": {"text": "x"},
        "run_input": {"text": "x"},
        "run_labels": {"labels": {}},
        "pod_create": {"project": things.project.slug, "argv": ["true"]},
        "run_permission": {"request": things.asked.key, "option_id": "once"},
        "review_promote": {"head": "0" * 40},
        "review_reject": {"head": "0" * 40},
        "project_update": {},
        "token_create": {"name": "x"},
    }


def whole(answer: Any) -> str:
    """The text of an answer, streamed or not."""
    if not answer.streaming:
        return str(answer.content.decode())
    return json.dumps(streamed(answer))


@pytest.mark.parametrize("role", ORDER)
def test_a_bound_token_meets_every_operation_of_another_project_as_its_row_says(two, person, role):
    mine, other = two
    user = person("somebody", role)
    call = bearer(tokens.create(user, "tests", project=mine.project)[1])
    secrets = [other.project.slug, *(run.key for run in other.runs.values())]
    for name, method, path in raw_operations():
        reach, permission = REACH[f"api:{name}"], ROUTES[f"api:{name}"]
        for part, value in addresses(other).get(reach, {}).items():
            path = path.replace(part, value)
        if name == "token_revoke":
            continue  # it has a test of its own
        answer = call(method, path, bodies(other).get(name))
        least = LEAST_ROLE.get(permission)
        if least is not None and ORDER.index(role) < ORDER.index(least):
            assert answer.status_code == 403, (name, role)
            continue
        if reach is Reach.INSTALLATION:
            problem(answer, 403, "token-bound")
        elif reach in (Reach.LIST, Reach.CALLER):
            assert answer.status_code in (200, 201), (name, answer.content)
        else:
            problem(answer, 404, "not-found")
        if reach is Reach.LIST:
            assert not [word for word in secrets if word in whole(answer)], name


def test_what_is_out_of_reach_reads_like_what_is_nowhere(two, manager):
    mine, other = two
    call = bearer(tokens.create(manager, "tests", project=mine.project)[1])
    for path, there, nowhere in (
        ("/runs/{}", other.runs["running"].key, "nothing000"),
        ("/pods/{}", other.pods["failed"].name, "nothing"),
        ("/reviews/{}", other.review.key, "nothing000"),
        ("/projects/{}", other.project.slug, "nothing"),
        ("/runs/{}/stop", other.runs["running"].key, "nothing000"),
    ):
        method = "POST" if path.endswith("stop") else "GET"
        found, missing = call(method, path.format(there)), call(method, path.format(nowhere))
        assert found.status_code == missing.status_code == 404
        assert found.content.decode().replace(there, nowhere) == missing.content.decode()


def test_a_bound_token_does_everything_within_its_project(two, manager):
    mine, _ = two
    call = bearer(tokens.create(manager, "tests", project=mine.project)[1])
    for name, method, path in raw_operations():
        reach = REACH[f"api:{name}"]
        if reach in (Reach.INSTALLATION, Reach.CALLER) or name == "project_archive":
            continue
        for part, value in addresses(mine).get(reach, {}).items():
            path = path.replace(part, value)
        answer = call(method, path, bodies(mine).get(name))
        assert answer.status_code not in (401, 403, 404), (name, answer.content)


def test_a_bound_tokens_lists_and_figures_are_its_projects(two, manager):
    mine, other = two
    call = bearer(tokens.create(manager, "tests", project=mine.project)[1])
    whole = bearer(tokens.create(manager, "all")[1])
    for path in ("/runs", "/pods", "/reviews", "/projects"):
        rows = call("GET", path).json()["results"]
        assert {row.get("project", row.get("slug")) for row in rows} == {mine.project.slug}, path
        assert 2 * len(rows) == len(whole("GET", path).json()["results"])
        asked = call("GET", f"{path}?project={other.project.slug}")
        if path != "/projects":
            assert asked.json()["results"] == []
    figures, all_figures = call("GET", "/status").json(), whole("GET", "/status").json()
    assert figures["project"] == mine.project.slug
    for name in ("active_runs", "queued_runs", "waiting_permissions", "open_reviews"):
        assert 2 * figures[name] == all_figures[name] > 0, name
    spent = call("GET", "/usage").json()
    assert [row["group"] for row in spent["results"]] == [mine.project.slug]
    assert spent["total"]["calls"] * 2 == whole("GET", "/usage").json()["total"]["calls"]


def test_a_run_of_a_bound_token_must_name_its_project(two, operator):
    mine, other = two
    call = bearer(tokens.create(operator, "tests", project=mine.project)[1])
    assert call("POST", "/runs", {"project": mine.project.slug, "task": "x"}).status_code == 201
    problem(call("POST", "/runs", {"project": other.project.slug, "task": "x"}), 404, "not-found")
    found = problem(call("POST", "/runs", {"task": "x"}), 403, "token-bound")
    assert mine.project.slug in found["next_step"]
    # A project whose short name is this one's key would otherwise be reached by it.
    problem(call("POST", "/runs", {"project": mine.project.key, "task": "x"}), 404, "not-found")
    # Of two spellings in one body the last one counts, for the check as for the run.
    both = f'{{"project": "{mine.project.slug}", "task": "x", "project": "{other.project.slug}"}}'
    answer = Client().post(
        ROOT + "/runs",
        both,
        content_type="application/json",
        headers={
            "Authorization": f"Bearer {tokens.create(operator, 'b', project=mine.project)[1]}"
        },
    )
    problem(answer, 404, "not-found")


def test_a_token_ends_with_its_project(two, manager):
    mine, _ = two
    empty = Project.objects.create(slug="empty", name="E", upstream_url="https://f.example/e.git")
    text = tokens.create(manager, "tests", project=empty)[1]
    empty.delete()
    assert tokens.find(text) is None


# --- making tokens ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", ORDER)
@pytest.mark.parametrize("wanted", [None, *ORDER])
def test_nobody_makes_a_token_that_may_do_more_than_they(call, person, own, wanted):
    somebody = call(person("somebody", own))
    body = {"name": "ci", **({"role": wanted} if wanted else {})}
    answer = somebody.post("/tokens", body)
    if wanted is not None and ORDER.index(wanted) > ORDER.index(own):
        problem(answer, 403, "beyond-own-reach")
    else:
        assert answer.json()["role"] == (wanted or own)


def test_a_token_made_by_a_token_reaches_no_further_and_ends_no_later(two, manager):
    mine, other = two
    soon = timezone.now() + timedelta(days=2)
    row, text = tokens.create(
        manager, "first", role=Role.OPERATOR, project=mine.project, expires_at=soon
    )
    call = bearer(text)
    problem(call("POST", "/tokens", {"name": "x", "role": "manager"}), 403, "beyond-own-reach")
    problem(call("POST", "/tokens", {"name": "x", "project": "billing"}), 404, "no-such-project")
    made = call("POST", "/tokens", {"name": "second", "days": 90}).json()
    second = ApiToken.objects.get(key=made["key"])
    assert (second.role, second.project) == ("operator", mine.project)
    assert second.expires_at == row.expires_at
    problem(bearer(made["token"])("GET", f"/projects/{other.project.slug}"), 404, "not-found")


def test_by_a_token_one_sees_and_ends_only_tokens_that_reach_no_further(two, manager):
    mine, other = two
    wide, _ = tokens.create(manager, "wide")
    elsewhere, _ = tokens.create(manager, "elsewhere", project=other.project)
    higher, _ = tokens.create(manager, "higher", project=mine.project)
    same, _ = tokens.create(manager, "same", project=mine.project, role=Role.VIEWER)
    _, text = tokens.create(manager, "first", role=Role.REVIEWER, project=mine.project)
    call = bearer(text)
    assert {row["name"] for row in call("GET", "/tokens").json()} == {"first", "same"}
    for row in (wide, elsewhere, higher):
        assert call("DELETE", f"/tokens/{row.key}").status_code == 404
    assert call("DELETE", f"/tokens/{same.key}").status_code == 204


@pytest.mark.parametrize(
    ("role", "days", "status"),
    [
        (Role.OPERATOR, 1, 201),
        (Role.OPERATOR, 366, 201),
        (Role.OPERATOR, 367, 400),
        (Role.OPERATOR, 0, 400),
        (Role.MANAGER, 0, 201),
        (Role.MANAGER, 367, 400),
        (Role.MANAGER, -1, 422),
    ],
)
def test_a_token_counts_for_as_long_as_the_installation_allows(call, person, role, days, status):
    answer = call(person("somebody", role)).post("/tokens", {"name": "ci", "days": days})
    assert answer.status_code == status, answer.content
    if status == 201:
        ends = answer.json()["expires_at"]
        assert (ends is None) == (days == 0)
    elif status == 400:
        problem(answer, 400, "bad-lifetime")


def test_a_token_counts_for_ninety_days_unless_said_otherwise(call, operator, settings):
    call(operator).post("/tokens", {"name": "ci"})
    left = ApiToken.objects.get(name="ci").expires_at - timezone.now()
    assert timedelta(days=89) < left <= timedelta(days=90)
    settings.TOKEN_MAX_DAYS = 7
    problem(call(operator).post("/tokens", {"name": "long"}), 400, "bad-lifetime")


def test_a_token_that_has_ended_is_refused(operator):
    _, text = tokens.create(operator, "old", expires_at=timezone.now() - timedelta(seconds=1))
    problem(bearer(text)("GET", "/status"), 401, "token-refused")


def test_a_stranger_learns_no_projects_name_by_making_tokens(call, stranger, project):
    answer = call(stranger).post("/tokens", {"name": "x", "project": project.slug})
    problem(answer, 404, "no-such-project")


def test_the_operations_that_are_tried_here_are_all_there_are():
    assert {name for name, _, _ in raw_operations()} == {name for name, _, _ in operations()}
