"""The rules of `restricted`: a pod that keeps them all, and one change for each that breaks it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.deploy.restricted import violations

GOOD: dict[str, Any] = {
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [
        {
            "name": "one",
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            },
            "livenessProbe": {"httpGet": {"path": "/", "port": 80}},
        }
    ],
    "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "keys", "secret": {"secretName": "k"}}],
}


def changed(*path: Any, to: Any) -> dict[str, Any]:
    """A copy of GOOD with one value put in."""
    spec: Any = copy.deepcopy(GOOD)
    found = spec
    for step in path[:-1]:
        found = found[step] if isinstance(step, int) else found.setdefault(step, {})
    found[path[-1]] = to
    assert isinstance(spec, dict)
    return spec


def test_a_pod_that_keeps_every_rule_breaks_none():
    assert violations(GOOD) == []


CONTEXT = ("containers", 0, "securityContext")


@pytest.mark.parametrize(
    ("rule", "path", "to"),
    [
        ("HostProcess", ("securityContext", "windowsOptions"), {"hostProcess": True}),
        ("Host Namespaces", ("hostNetwork",), True),
        ("Host Namespaces", ("hostPID",), True),
        ("Host Namespaces", ("hostIPC",), True),
        ("Privileged Containers", (*CONTEXT, "privileged"), True),
        ("Capabilities", (*CONTEXT, "capabilities"), {}),
        ("Capabilities", (*CONTEXT, "capabilities"), {"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
        ("HostPath Volumes", ("volumes",), [{"name": "v", "hostPath": {"path": "/"}}]),
        ("Volume Types", ("volumes",), [{"name": "v", "nfs": {"server": "s", "path": "/"}}]),
        ("Host Ports", ("containers", 0, "ports"), [{"containerPort": 80, "hostPort": 80}]),
        (
            "Host Probes / Lifecycle Hooks",
            ("containers", 0, "livenessProbe"),
            {"tcpSocket": {"host": "10.0.0.1", "port": 80}},
        ),
        ("AppArmor", (*CONTEXT, "appArmorProfile"), {"type": "Unconfined"}),
        ("SELinux", (*CONTEXT, "seLinuxOptions"), {"type": "spc_t"}),
        ("SELinux", ("securityContext", "seLinuxOptions"), {"user": "system_u"}),
        ("/proc Mount Type", (*CONTEXT, "procMount"), "Unmasked"),
        ("Sysctls", ("securityContext", "sysctls"), [{"name": "kernel.msgmax", "value": "1"}]),
        ("Seccomp", ("securityContext", "seccompProfile"), {"type": "Unconfined"}),
        ("Seccomp", ("securityContext", "seccompProfile"), None),
        ("Seccomp", (*CONTEXT, "seccompProfile"), {"type": "Unconfined"}),
        ("Privilege Escalation", (*CONTEXT, "allowPrivilegeEscalation"), True),
        ("Privilege Escalation", (*CONTEXT, "allowPrivilegeEscalation"), None),
        ("Running as Non-root", ("securityContext", "runAsNonRoot"), None),
        ("Running as Non-root", (*CONTEXT, "runAsNonRoot"), False),
        ("Running as Non-root user", (*CONTEXT, "runAsUser"), 0),
    ],
)
def test_one_change_breaks_the_rule_of_that_name(rule, path, to):
    found = violations(changed(*path, to=to))
    assert found and {one.partition(":")[0] for one in found} == {rule}


def test_init_and_ephemeral_containers_are_looked_at_too():
    for kind in ("initContainers", "ephemeralContainers"):
        assert violations(changed(kind, to=[{"name": "two"}]))


def test_the_one_capability_that_may_be_added_is_allowed():
    spec = changed(*CONTEXT, "capabilities", to={"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]})
    assert violations(spec) == []
