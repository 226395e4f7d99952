"""Targets over the API."""

from __future__ import annotations

import pytest

from devaipod_web.runs.services.launch import launch
from devaipod_web.targets import services
from devaipod_web.targets.models import Target
from tests.api.conftest import problem
from tests.targets.conftest import GATEWAY, kubeconfig

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def cluster(manager):
    return services.save(
        manager,
        None,
        name="cluster-a",
        kubeconfig_text=kubeconfig(server="https://127.0.0.1:1"),
        gateway_address=GATEWAY,
    )


def test_a_cluster_is_added_changed_tested_and_removed(call, manager):
    mona = call(manager)
    body = {"name": "b", "kubeconfig": kubeconfig(server="https://127.0.0.1:1"), "max_runs": 5}
    made = mona("POST", "/targets", body)
    assert made.status_code == 201, made.content
    found = made.json()
    assert "very-secret" not in made.content.decode()
    assert (found["has_kubeconfig"], found["namespace"], found["most_runs"]) == (True, "agents", 5)
    # Neither the server's setting nor the target names one.
    assert found["closed"] == "its pods have no address of the gateway"
    key = found["key"]
    changed = mona("PATCH", f"/targets/{key}", {"gateway_address": GATEWAY, "max_runs": None})
    assert (changed.json()["closed"], changed.json()["max_runs"]) == ("", None)
    tested = mona("POST", f"/targets/{key}/test").json()
    assert tested["ok"] is False
    assert tested["message"]
    assert mona.get(f"/targets/{key}").json()["health"] == "down"
    assert mona.get("/targets/b").json()["key"] == key
    assert mona("DELETE", f"/targets/{key}").status_code == 204
    assert [row["name"] for row in mona.get("/targets").json()] == ["podman"]


def test_what_is_wrong_with_a_target_is_said_at_its_field(call, manager):
    body = {"name": "No", "kubeconfig": "{", "gateway_address": "x"}
    found = problem(call(manager)("POST", "/targets", body), 400, "invalid-target")
    named = {one["field"] for one in found["errors"]}
    assert {"name", "kubeconfig", "gateway_address"} <= named


def test_podman_and_what_is_in_use_cannot_be_removed(call, manager, cluster, project):
    mona = call(manager)
    podman = Target.objects.get(name="podman")
    problem(mona("DELETE", f"/targets/{podman.key}"), 409, "target-in-use")
    mona("PATCH", f"/projects/{project.slug}", {"targets": ["cluster-a"]})
    problem(mona("DELETE", f"/targets/{cluster.key}"), 409, "target-in-use")


def test_a_viewer_sees_targets_and_changes_none(call, operator, cluster):
    otto = call(operator)
    assert len(otto.get("/targets").json()) == 2
    problem(otto("POST", f"/targets/{cluster.key}/test"), 403, "role-needed")


def test_a_run_names_its_target_and_says_where_it_waits(call, operator, cluster, project):
    otto = call(operator)
    body = {"project": project.slug, "task": "x", "target": "cluster-a"}
    made = otto("POST", "/runs", body).json()
    assert (made["target"], made["asked_target"]) == (None, "cluster-a")
    assert made["queue_place"] == 1
    (place,) = made["queue_places"]
    assert (place["target"], place["place"], place["closed"]) == ("cluster-a", 1, "")
    found = problem(otto("POST", "/runs", {**body, "target": "nowhere"}), 400, "bad-request")
    assert "cluster-a" in found["next_step"]


def test_a_project_has_targets_and_placement(call, manager, cluster, project):
    mona = call(manager)
    body = {
        "targets": ["cluster-a", "podman"],
        "node_selector": ["disk=ssd"],
        "tolerations": ["agents=only:NoSchedule"],
        "workspace": "pvc",
    }
    found = mona("PATCH", f"/projects/{project.slug}", body).json()
    podman = Target.objects.get(name="podman")
    assert found["targets"] == [cluster.key, podman.key]
    assert found["tolerations"] == ["agents=only:NoSchedule"]
    body = {"tolerations": ["a b"], "node_selector": ["x"], "runtime_class": "No!"}
    wrong = problem(mona("PATCH", f"/projects/{project.slug}", body), 400, "invalid-project")
    assert {one["field"] for one in wrong["errors"]} == set(body)


def test_the_queue_place_is_the_best_of_a_runs_targets(call, operator, manager, cluster, project):
    podman = Target.objects.get(name="podman")
    launch(project, operator, task="at podman", target="podman")
    project.targets = [podman.key, cluster.key]
    project.save()
    second = launch(project, operator, task="anywhere")
    found = call(operator).get(f"/runs/{second.key}").json()
    assert found["queue_place"] == 1
    assert [(p["target"], p["place"]) for p in found["queue_places"]] == [
        ("podman", 2),
        ("cluster-a", 1),
    ]
