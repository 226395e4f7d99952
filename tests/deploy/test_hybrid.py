"""What `deploy/hybrid` renders to: the rights of a control plane outside of the cluster, and who reaches the relay."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from pods import kubernetes_relay_documents as relay
from tests.deploy.access import AGENTS, GRANTED
from tests.deploy.kubectl import ROOT, rendered

pytestmark = pytest.mark.slow

#: What keeping a relay needs beside what runs need.
FOR_THE_RELAY = {
    "pods/portforward": {"create", "get"},
    "secrets": {"patch"},
    "configmaps": {"create", "patch", "delete"},
}


@cache
def documents() -> dict[tuple[str, str], dict[str, Any]]:
    found = rendered(ROOT / "deploy" / "hybrid")
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


def test_its_role_has_what_runs_and_the_relay_need_and_no_more():
    granted: dict[str, set[str]] = {}
    for rule in documents()["Role", "control-plane"]["rules"]:
        assert rule["apiGroups"] == [""]
        for resource in rule["resources"]:
            granted.setdefault(resource, set()).update(rule["verbs"])
    wanted = {resource: set(verbs) for resource, verbs in GRANTED.items()}
    for resource, verbs in FOR_THE_RELAY.items():
        wanted.setdefault(resource, set()).update(verbs)
    assert granted == wanted


def test_it_is_bound_in_the_agents_namespace_alone():
    assert not any(kind.startswith("Cluster") for kind, _ in documents())
    for (kind, _), one in documents().items():
        if kind != "Namespace":
            assert one["metadata"]["namespace"] == AGENTS
    (subject,) = documents()["RoleBinding", "control-plane"]["subjects"]
    assert (subject["name"], subject["namespace"]) == ("control-plane", AGENTS)


def test_no_pod_gets_a_token_by_itself():
    for name in ("default", "control-plane"):
        assert documents()["ServiceAccount", name]["automountServiceAccountToken"] is False


def test_the_policies_name_the_relay_as_it_is_made():
    pod = relay.pod("abc", image="i", token="t")
    labels = pod["metadata"]["labels"]
    (port,) = pod["spec"]["containers"][0]["ports"]
    agents = documents()["NetworkPolicy", "relay-alone"]["spec"]
    itself = documents()["NetworkPolicy", "relay"]["spec"]
    (out,) = agents["egress"]
    (to,) = out["to"]
    assert to["podSelector"]["matchLabels"].items() <= labels.items()
    assert itself["podSelector"]["matchLabels"].items() <= labels.items()
    (excepted,) = agents["podSelector"]["matchExpressions"]
    assert labels[excepted["key"]] in excepted["values"]
    assert [one["port"] for one in out["ports"]] == [port["containerPort"]]
    assert [one["port"] for one in itself["ingress"][0]["ports"]] == [port["containerPort"]]
    assert "egress" not in itself
    assert "ingress" not in agents
