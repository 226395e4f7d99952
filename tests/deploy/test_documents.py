"""What `deploy/kubernetes` renders to, before any cluster sees it."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from tests.deploy.access import CONTROL_PLANE, granted
from tests.deploy.kubectl import DEPLOY, rendered
from tests.deploy.restricted import violations
from tests.docs.test_docs import variables_read

pytestmark = pytest.mark.slow

Document = dict[str, Any]
FOLDERS = ["base", "overlays/ingress", "overlays/pod-address", "overlays/postgresql"]
NAMESPACES = {"devaipod-infra", "devaipod-agents"}
LEVELS = {
    "pod-security.kubernetes.io/enforce": "restricted",
    "pod-security.kubernetes.io/warn": "restricted",
    "pod-security.kubernetes.io/audit": "restricted",
}


@cache
def documents(folder: str) -> tuple[Document, ...]:
    return tuple(rendered(DEPLOY / folder))


def of_kind(folder: str, kind: str) -> list[Document]:
    return [one for one in documents(folder) if one["kind"] == kind]


def the(folder: str, kind: str, name: str, namespace: str | None = None) -> Document:
    (found,) = (
        one
        for one in of_kind(folder, kind)
        if one["metadata"]["name"].startswith(name)
        and namespace in (None, one["metadata"].get("namespace"))
    )
    return found


def pod(folder: str) -> Document:
    spec: Document = the(folder, "Deployment", "control-plane")["spec"]["template"]["spec"]
    return spec


def settings(folder: str) -> dict[str, str]:
    data: dict[str, str] = the(folder, "ConfigMap", "settings")["data"]
    return data


def test_every_folder_is_rendered_here():
    found = {str(one.parent.relative_to(DEPLOY)) for one in DEPLOY.rglob("kustomization.yaml")}
    assert found == set(FOLDERS)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_pod_keeps_the_rules_of_restricted(folder):
    found = [
        one["spec"]["template"]["spec"]
        for one in documents(folder)
        if "template" in one.get("spec", {})
    ]
    assert found
    assert [violations(spec) for spec in found] == [[] for _ in found]


@pytest.mark.parametrize("folder", FOLDERS)
def test_everything_stands_in_one_of_the_two_namespaces_which_ask_for_restricted(folder):
    namespaces = of_kind(folder, "Namespace")
    assert {one["metadata"]["name"] for one in namespaces} == NAMESPACES
    for one in namespaces:
        assert one["metadata"]["labels"].items() >= LEVELS.items()
    rest = [one for one in documents(folder) if one["kind"] != "Namespace"]
    assert {one["metadata"].get("namespace") for one in rest} == NAMESPACES
    # Nothing that counts for the whole cluster.
    assert not [one["kind"] for one in documents(folder) if one["kind"].startswith("Cluster")]


def test_no_container_has_a_writable_root_and_each_has_its_resources_named():
    for container in [*pod("base")["initContainers"], *pod("base")["containers"]]:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["resources"]["requests"] and container["resources"]["limits"]["memory"]


def test_the_one_role_grants_what_the_table_says_and_nothing_else():
    (role,) = of_kind("base", "Role")
    assert role["metadata"]["namespace"] == "devaipod-agents"
    found = {
        (verb, resource)
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert {tuple(rule["apiGroups"]) for rule in role["rules"]} == {("",)}
    assert found == granted()
    (binding,) = of_kind("base", "RoleBinding")
    (subject,) = binding["subjects"]
    assert f"system:serviceaccount:{subject['namespace']}:{subject['name']}" == CONTROL_PLANE


def test_no_agent_is_given_a_token_of_its_account():
    account = the("base", "ServiceAccount", "default", "devaipod-agents")
    assert account["automountServiceAccountToken"] is False


def test_agents_reach_the_gateways_port_and_nothing_else_and_nothing_reaches_them():
    policy = the("base", "NetworkPolicy", "gateway-alone")["spec"]
    assert policy["podSelector"] == {}
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert "ingress" not in policy
    (rule,) = policy["egress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 8401}]
    (peer,) = rule["to"]
    # Both in one peer: pods of that name in that namespace, not one or the other.
    assert set(peer) == {"namespaceSelector", "podSelector"}
    infra = the("base", "Namespace", "devaipod-infra")["metadata"]["labels"]
    assert peer["namespaceSelector"]["matchLabels"].items() <= infra.items()
    labels = the("base", "Deployment", "control-plane")["spec"]["template"]["metadata"]["labels"]
    assert peer["podSelector"]["matchLabels"].items() <= labels.items()


def test_the_gateways_port_is_open_to_agents_alone_and_the_webs_to_all_but_them():
    gateway, web = the("base", "NetworkPolicy", "control-plane")["spec"]["ingress"]
    assert gateway["ports"] == [{"protocol": "TCP", "port": 8401}]
    assert gateway["from"] == [
        {"namespaceSelector": {"matchLabels": {"io.devaipod.domain": "agents"}}}
    ]
    assert web["ports"] == [{"protocol": "TCP", "port": 8000}]
    (peer,) = web["from"]
    (expression,) = peer["namespaceSelector"]["matchExpressions"]
    assert expression == {"key": "io.devaipod.domain", "operator": "NotIn", "values": ["agents"]}


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_setting_is_one_that_the_program_reads(folder):
    (container,) = pod(folder)["containers"]
    named = {*settings(folder), *(one["name"] for one in container["env"])} - {"POD_IP"}
    assert named - variables_read() == set()


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_document_holds_a_secret_but_the_examples_placeholders(folder):
    found = of_kind(folder, "Secret")
    assert bool(found) == (folder == "overlays/postgresql")


def test_one_control_plane_at_a_time_is_migrated_before_it_serves():
    deployment = the("base", "Deployment", "control-plane")["spec"]
    assert deployment["replicas"] == 1
    assert deployment["strategy"] == {"type": "Recreate"}
    (migrate,) = pod("base")["initContainers"]
    (serve,) = pod("base")["containers"]
    assert migrate["args"] == ["migrate"]
    assert migrate["image"] == serve["image"]
    # The same state and settings, or it would migrate another database.
    assert migrate["envFrom"] == serve["envFrom"]
    assert migrate["volumeMounts"] == serve["volumeMounts"]


def test_an_ingress_leads_to_the_web_alone():
    ingress = the("overlays/ingress", "Ingress", "control-plane")["spec"]
    (rule,) = ingress["rules"]
    (path,) = rule["http"]["paths"]
    assert path["backend"]["service"] == {"name": "control-plane", "port": {"name": "web"}}
    assert settings("overlays/ingress")["DEVAIPOD_URL"] == f"https://{rule['host']}"
    hosts = settings("overlays/ingress")["DEVAIPOD_ALLOWED_HOSTS"].split(",")
    assert {rule["host"], "localhost", "127.0.0.1"} == set(hosts)


def test_a_database_of_ones_own_comes_from_a_secret_that_must_be_there():
    secret = the("overlays/postgresql", "Secret", "settings")
    assert set(secret["data"]) == {"DATABASE_URL", "REDIS_URL"}
    spec = pod("overlays/postgresql")
    for container in [*spec["initContainers"], *spec["containers"]]:
        _, reference = container["envFrom"]
        assert reference["secretRef"] == {"name": secret["metadata"]["name"], "optional": False}


@pytest.mark.parametrize(
    ("folder", "address"),
    [
        ("base", "http://$(CONTROL_PLANE_SERVICE_HOST):8401"),
        ("overlays/pod-address", "http://$(POD_IP):8401"),
    ],
)
def test_sidecars_are_told_an_address_that_needs_no_dns(folder, address):
    (container,) = pod(folder)["containers"]
    names = [one["name"] for one in container["env"]]
    assert names[-1] == "DEVAIPOD_GATEWAY_ADDRESS"
    assert container["env"][-1]["value"] == address
    # Kubernetes gives the first to every pod that starts after the Service is there; a variable must stand before its use.
    assert the(folder, "Service", "control-plane")["metadata"]["name"] == "control-plane"
