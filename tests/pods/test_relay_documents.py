"""The relay's documents: what they guarantee, without a cluster."""

from __future__ import annotations

import re

import pytest

from pods import kubernetes_relay_documents as documents
from pods.spec import LABEL_INSTALLATION
from tests.deploy.restricted import violations

IMAGE = "registry.example/devaipod-sidecar:1"


def pod():
    return documents.pod("abcdefghij", image=IMAGE, token="secret-token")


def test_the_pod_is_restricted_and_has_no_right_in_the_cluster():
    spec = pod()["spec"]
    (container,) = spec["containers"]
    assert violations(spec) == []
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [sorted(volume) for volume in spec["volumes"]] == [["name", "secret"]]
    assert not any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
    assert set(container["resources"]["limits"]) == {"cpu", "memory"}


def test_the_token_is_in_the_secret_alone():
    assert "secret-token" not in str(pod())
    assert documents.secret("abcdefghij", "secret-token")["stringData"] == {"token": "secret-token"}


def test_only_the_sidecars_port_is_named():
    (container,) = pod()["spec"]["containers"]
    assert [port["containerPort"] for port in container["ports"]] == [documents.PORT]


def test_the_sweep_for_pods_without_a_run_does_not_see_it():
    assert LABEL_INSTALLATION not in pod()["metadata"]["labels"]


def test_another_token_is_another_pod():
    other = documents.pod("abcdefghij", image=IMAGE, token="other")
    key = documents.ANNOTATION_TOKEN
    assert other["metadata"]["annotations"][key] != pod()["metadata"]["annotations"][key]


@pytest.mark.parametrize("installation", ["abc", "A_b.C", "x" * 100, "-x-"])
def test_its_name_is_a_label(installation):
    name = documents.relay_name(installation)
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name)


@pytest.mark.parametrize(
    ("address", "url"),
    [("", ""), ("10.1.2.3", "http://10.1.2.3:8401"), ("fd00::1", "http://[fd00::1]:8401")],
)
def test_pods_dial_its_address(address, url):
    assert documents.url(address) == url
