"""The published pod security level `restricted` as a pure function; the test cluster is too old to enforce it by itself.

Rules and their names: the Kubernetes documentation's "Pod Security Standards", Baseline and Restricted, as of Kubernetes 1.34, for pods
of Linux. What the page allows as undefined or null is allowed here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Document = dict[str, Any]

#: Baseline, "Seccomp" and Restricted, "Seccomp".
SECCOMP = ("RuntimeDefault", "Localhost")
#: Restricted, "Volume Types".
VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
#: Baseline, "SELinux": types and no user or role.
SELINUX_TYPES = {
    "",
    "container_t",
    "container_init_t",
    "container_kvm_t",
    "container_engine_t",
}
#: Baseline, "Sysctls".
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
}


def violations(pod_spec: Document) -> list[str]:
    """Which rules of `restricted` a pod's spec breaks and where, `Rule: where`; empty when none."""
    return [
        *_of_pod(pod_spec),
        *(one for kind, c in _containers(pod_spec) for one in _of(kind, c, pod_spec)),
    ]


def _containers(spec: Document) -> Iterator[tuple[str, Document]]:
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(kind) or []:
            yield f"{kind}[{container.get('name', '?')}]", container


def _of_pod(spec: Document) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield f"Host Namespaces: {name}"
    for volume in spec.get("volumes") or []:
        for kind in set(volume) - {"name"} - VOLUMES:
            rule = "HostPath Volumes" if kind == "hostPath" else "Volume Types"
            yield f"{rule}: volumes[{volume.get('name', '?')}] is {kind}"
    context = spec.get("securityContext") or {}
    for one in context.get("sysctls") or []:
        if one.get("name") not in SYSCTLS:
            yield f"Sysctls: {one.get('name')}"
    yield from _of_context("the pod", context)


def _of(where: str, container: Document, spec: Document) -> Iterator[str]:
    context = container.get("securityContext") or {}
    of_pod = spec.get("securityContext") or {}
    yield from _of_context(where, context)
    if context.get("privileged"):
        yield f"Privileged Containers: {where}"
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"Privilege Escalation: {where}"
    if not context.get("runAsNonRoot", of_pod.get("runAsNonRoot")):
        yield f"Running as Non-root: {where}"
    if not (context.get("seccompProfile") or of_pod.get("seccompProfile")):
        yield f"Seccomp: {where} names no profile"
    capabilities = context.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or []):
        yield f"Capabilities: {where} does not drop ALL"
    for added in set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"}:
        yield f"Capabilities: {where} adds {added}"
    if context.get("procMount") not in (None, "", "Default"):
        yield f"/proc Mount Type: {where}"
    for port in container.get("ports") or []:
        if port.get("hostPort"):
            yield f"Host Ports: {where} takes {port['hostPort']}"
    yield from _hosts_of_probes(where, container)


def _of_context(where: str, context: Document) -> Iterator[str]:
    """What may stand in the security context of a pod as well as of a container."""
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        yield f"HostProcess: {where}"
    if context.get("runAsUser") == 0:
        yield f"Running as Non-root user: {where}"
    profile = context.get("seccompProfile")
    if profile and profile.get("type") not in SECCOMP:
        yield f"Seccomp: {where} is {profile.get('type')}"
    armor = context.get("appArmorProfile")
    if armor and armor.get("type") not in SECCOMP:
        yield f"AppArmor: {where} is {armor.get('type')}"
    selinux = context.get("seLinuxOptions") or {}
    if selinux.get("type", "") not in SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        yield f"SELinux: {where}"


def _hosts_of_probes(where: str, container: Document) -> Iterator[str]:
    lifecycle = container.get("lifecycle") or {}
    asked = {
        **{
            name: container.get(name)
            for name in ("livenessProbe", "readinessProbe", "startupProbe")
        },
        **{name: lifecycle.get(name) for name in ("postStart", "preStop")},
    }
    for name, probe in asked.items():
        for way in ("httpGet", "tcpSocket"):
            if ((probe or {}).get(way) or {}).get("host"):
                yield f"Host Probes / Lifecycle Hooks: {where}.{name}"
