"""The documents that a cluster is sent: compared whole, and held against the published rules of `restricted`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from pods.errors import PodRefused
from pods.kubernetes_documents import (
    claim_document,
    helper_document,
    is_claimed,
    pod_document,
    secret_document,
)
from pods.spec import (
    AGENT,
    SIDECAR,
    ContainerSpec,
    Limits,
    Mount,
    Placement,
    PodSpec,
    VolumeKind,
    VolumeSpec,
)

MIB = 1024**2
LABELS = {"io.devaipod.installation": "abc", "io.devaipod.run": "k3v9"}
WORKSPACE = VolumeSpec("devaipod-abc-k3v9-workspace", VolumeKind.WORKSPACE, 400 * MIB)
HOME = VolumeSpec("devaipod-abc-k3v9-home", VolumeKind.HOME, 200 * MIB)
STATE = VolumeSpec("devaipod-abc-k3v9-state", VolumeKind.STATE, 100 * MIB)
STDIO = VolumeSpec("devaipod-abc-k3v9-1-stdio", VolumeKind.STDIO, MIB)
LIMITS = Limits(memory_bytes=1024 * MIB, cpus=1.6, pids=9, log_bytes=16 * MIB)
POD = PodSpec(
    name="devaipod-shop-k3v9-1",
    labels=LABELS,
    agent=ContainerSpec(
        name=AGENT,
        image="registry.example/agent:1",
        argv=("sh", "-c", "exec agent $(date)"),
        env={"HOME": "/home/agent", "PRICE": "$5 $(NOT)"},
        workdir="/workspaces/shop",
        mounts=(
            Mount("/workspaces/shop", volume=WORKSPACE.name),
            Mount("/run/devaipod-stdio", volume=STDIO.name, read_only=True),
            Mount("/home/agent", volume=HOME.name),
            Mount("/tmp", tmpfs_bytes=32 * MIB),
        ),
        limits=LIMITS,
    ),
    sidecar=ContainerSpec(
        name=SIDECAR,
        image="registry.example/sidecar:1",
        argv=("python3", "-m", "pods.sidecar"),
        workdir="/var/lib/devaipod",
        mounts=(
            Mount("/workspaces/shop", volume=WORKSPACE.name),
            Mount("/run/devaipod-stdio", volume=STDIO.name),
            Mount("/var/lib/devaipod", volume=STATE.name),
            Mount("/tmp", tmpfs_bytes=8 * MIB),
        ),
        limits=replace(LIMITS, memory_bytes=512 * MIB, cpus=1.0),
        health_argv=("python3", "-m", "pods.sidecar.health"),
    ),
    volumes=(WORKSPACE, HOME, STATE, STDIO),
    secrets={"control": "c-token", "data": "d-token"},
    gateway="http://gateway.infra:8080",
    prepare=("python3", "-m", "pods.sidecar.prepare"),
    deadline_seconds=7200,
)
ALIASES = {"gateway.infra": "10.1.2.3"}
SECURITY = {
    "runAsNonRoot": True,
    "privileged": False,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def container(document: dict[str, Any], name: str) -> dict[str, Any]:
    """A container of a pod's document, init containers among them."""
    spec = document["spec"]
    return next(
        one for one in (*spec["initContainers"], *spec["containers"]) if one["name"] == name
    )


def test_a_pod_has_no_right_no_name_service_and_no_account_of_the_cluster() -> None:
    document = pod_document(POD, aliases=ALIASES)
    assert document["metadata"] == {
        "name": POD.name,
        "labels": {**LABELS, "app.kubernetes.io/managed-by": "devaipod"},
    }
    inside = {
        key: value
        for key, value in document["spec"].items()
        if key not in ("volumes", "containers", "initContainers")
    }
    assert inside == {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 10,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "shareProcessNamespace": False,
        "hostNetwork": False,
        "hostPID": False,
        "hostIPC": False,
        "dnsPolicy": "None",
        "dnsConfig": {
            "nameservers": ["127.0.0.1"],
            "options": [{"name": "timeout", "value": "1"}, {"name": "attempts", "value": "1"}],
        },
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "runAsGroup": 1000,
            "fsGroup": 1000,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "hostAliases": [{"ip": "10.1.2.3", "hostnames": ["gateway.infra"]}],
        "activeDeadlineSeconds": 7200,
    }


def test_the_agents_container_whole() -> None:
    assert container(pod_document(POD), AGENT) == {
        "name": "agent",
        "image": "registry.example/agent:1",
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", "exec agent $$(date)"],
        "env": [
            {"name": "HOME", "value": "/home/agent"},
            {"name": "PRICE", "value": "$$5 $$(NOT)"},
        ],
        "workingDir": "/workspaces/shop",
        "resources": {
            "requests": {
                "cpu": "16m",
                "memory": str(256 * MIB),
                "ephemeral-storage": str(64 * MIB),
            },
            "limits": {
                "cpu": "1600m",
                "memory": str(1024 * MIB),
                "ephemeral-storage": str((64 + 16 + 32 + 400 + 200) * MIB),
            },
        },
        "securityContext": SECURITY,
        "terminationMessagePolicy": "File",
        "volumeMounts": [
            {"name": "workspace", "mountPath": "/workspaces/shop", "subPath": "v"},
            {
                "name": "stdio",
                "mountPath": "/run/devaipod-stdio",
                "subPath": "v",
                "readOnly": True,
            },
            {"name": "home", "mountPath": "/home/agent", "subPath": "v"},
            {"name": "scratch-agent-tmp", "mountPath": "/tmp"},
            {"name": "shm-agent", "mountPath": "/dev/shm"},
        ],
    }


def test_the_volumes_whole() -> None:
    shm = {"medium": "Memory", "sizeLimit": str(64 * MIB)}
    assert pod_document(POD)["spec"]["volumes"] == [
        {"name": "workspace", "emptyDir": {"sizeLimit": str(400 * MIB)}},
        {"name": "home", "emptyDir": {"sizeLimit": str(200 * MIB)}},
        {"name": "state", "emptyDir": {"sizeLimit": str(100 * MIB)}},
        {"name": "stdio", "emptyDir": {"medium": "Memory", "sizeLimit": str(MIB)}},
        {"name": "shm-agent", "emptyDir": shm},
        {"name": "scratch-agent-tmp", "emptyDir": {"sizeLimit": str(32 * MIB)}},
        {"name": "shm-sidecar", "emptyDir": shm},
        {"name": "scratch-sidecar-tmp", "emptyDir": {"sizeLimit": str(8 * MIB)}},
        {"name": "token", "secret": {"secretName": POD.name, "defaultMode": 0o440}},
    ]


def test_the_clone_is_in_an_init_container_after_the_agents_home() -> None:
    document = pod_document(POD)
    home, prepare = document["spec"]["initContainers"]
    assert (home["name"], home["image"]) == ("home", POD.agent.image)
    assert home["volumeMounts"] == [{"name": "home", "mountPath": "/devaipod-volumes/home"}]
    assert home["env"] == []
    assert (prepare["name"], prepare["image"]) == ("prepare", POD.sidecar.image)
    assert prepare["command"][-3:] == ["python3", "-m", "pods.sidecar.prepare"]
    assert {one["name"]: one["value"] for one in prepare["env"]} == {
        "DEVAIPOD_WORKSPACE": "/devaipod-volumes/workspace/v",
        "DEVAIPOD_STATE_DIR": "/devaipod-volumes/state/v",
        "DEVAIPOD_STDIO_DIR": "/devaipod-volumes/stdio/v",
        "DEVAIPOD_GATEWAY": "http://gateway.infra:8080",
    }


def test_tokens_and_the_gateways_address_are_the_sidecars_alone() -> None:
    document = pod_document(POD, aliases=ALIASES)
    assert "token" not in str(document).replace("'token'", "").replace(
        "devaipod-token", ""
    ).replace("automountServiceAccountToken", "")
    for name in (AGENT, "home"):
        one = container(document, name)
        assert "token" not in [mount["name"] for mount in one["volumeMounts"]]
        assert "DEVAIPOD_GATEWAY" not in [env["name"] for env in one["env"]]
    for name in (SIDECAR, "prepare"):
        one = container(document, name)
        assert {"name": "token", "mountPath": "/run/devaipod-token", "readOnly": True} in one[
            "volumeMounts"
        ]


def test_the_secret_goes_with_its_pod() -> None:
    assert secret_document(POD, uid="u-1") == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": POD.name,
            "labels": {**LABELS, "app.kubernetes.io/managed-by": "devaipod"},
            "ownerReferences": [
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": POD.name,
                    "uid": "u-1",
                    "blockOwnerDeletion": False,
                    "controller": False,
                }
            ],
        },
        "type": "Opaque",
        "immutable": True,
        "stringData": {"control": "c-token", "data": "d-token"},
    }
    assert "c-token" not in repr(POD)


def test_a_project_may_keep_its_workspace_on_claims() -> None:
    kept = replace(POD, placement=Placement(workspace="pvc", storage_class="fast"))
    assert [is_claimed(volume, kept) for volume in kept.volumes] == [True, True, True, False]
    volumes = pod_document(kept)["spec"]["volumes"]
    assert volumes[0] == {
        "name": "workspace",
        "persistentVolumeClaim": {"claimName": WORKSPACE.name},
    }
    assert claim_document(WORKSPACE, kept) == {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": WORKSPACE.name,
            "labels": {
                **LABELS,
                "app.kubernetes.io/managed-by": "devaipod",
                "io.devaipod.volume": "workspace",
            },
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": str(400 * MIB)}},
            "storageClassName": "fast",
        },
    }
    # What is on a claim does not count for the node's disk.
    limits = container(pod_document(kept), AGENT)["resources"]["limits"]
    assert limits["ephemeral-storage"] == str((64 + 16 + 32) * MIB)


def test_where_a_pod_may_run_is_the_projects_word() -> None:
    tolerations = ({"key": "agents", "operator": "Exists", "effect": "NoSchedule"},)
    where = Placement({"pool": "agents"}, tolerations, "gvisor", ("registry-key",))
    spec = pod_document(replace(POD, placement=where))["spec"]
    assert spec["nodeSelector"] == {"pool": "agents"}
    assert spec["tolerations"] == [dict(tolerations[0])]
    assert spec["runtimeClassName"] == "gvisor"
    assert spec["imagePullSecrets"] == [{"name": "registry-key"}]


@pytest.mark.parametrize(
    ("user", "uid", "gid"),
    [("", 1000, 1000), ("node", 1000, 1000), ("1234", 1234, 1234), ("1234:77", 1234, 77)],
)
def test_a_user_is_a_number_or_the_one_that_all_have(user: str, uid: int, gid: int) -> None:
    document = pod_document(replace(POD, agent=replace(POD.agent, user=user)))
    context = document["spec"]["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (uid, gid, gid)


@pytest.mark.parametrize("user", ["0", "00", "0:1000", "1000:0"])
def test_root_is_refused_under_every_spelling(user: str) -> None:
    with pytest.raises(PodRefused, match="root"):
        pod_document(replace(POD, agent=replace(POD.agent, user=user)))


@pytest.mark.parametrize(
    "mount",
    [
        Mount("/x"),
        Mount("/x", host_path="/etc"),
        Mount("/x", volume="other"),
        Mount("/x", volume=WORKSPACE.name, tmpfs_bytes=1),
    ],
)
def test_a_mount_that_contradicts_itself_or_is_of_a_host_is_refused(mount: Mount) -> None:
    with pytest.raises(PodRefused, match="/x"):
        pod_document(replace(POD, agent=replace(POD.agent, mounts=(mount,))))


# --- Pod Security Standards, https://kubernetes.io/docs/concepts/security/pod-security-standards/ ---------------------------------

#: Volume types that `restricted` allows.
VOLUME_TYPES = frozenset(
    {
        *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral"),
        *("persistentVolumeClaim", "projected", "secret"),
    }
)
SAFE_SYSCTLS = frozenset(
    {
        *("kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies"),
        *("net.ipv4.ping_group_range", "net.ipv4.ip_unprivileged_port_start"),
    }
)


def violations(document: dict[str, Any]) -> Iterator[str]:
    """What in a pod's document the level `restricted` (and so `baseline`) forbids, in the words of the standard's controls."""
    spec, annotations = document["spec"], document["metadata"].get("annotations") or {}
    pod = spec.get("securityContext") or {}
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield f"Host Namespaces: {key}"
    for volume in spec.get("volumes") or ():
        kinds = set(volume) - {"name"}
        if not kinds <= VOLUME_TYPES:
            yield f"Volume Types: {kinds}"
    if {one["name"] for one in pod.get("sysctls") or ()} - SAFE_SYSCTLS:
        yield "Sysctls"
    if any("apparmor" in key and value == "unconfined" for key, value in annotations.items()):
        yield "AppArmor"
    if pod.get("windowsOptions", {}).get("hostProcess"):
        yield "HostProcess"
    everyone = [
        *(spec.get("initContainers") or ()),
        *(spec.get("containers") or ()),
        *(spec.get("ephemeralContainers") or ()),
    ]
    for one in everyone:
        yield from (f"{one['name']}: {what}" for what in _of_container(one, pod))


def _of_container(one: dict[str, Any], pod: dict[str, Any]) -> Iterator[str]:
    own = one.get("securityContext") or {}

    def either(key: str) -> Any:
        return own.get(key, pod.get(key))

    if own.get("privileged"):
        yield "Privileged Containers"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "Privilege Escalation"
    capabilities = own.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or ()):
        yield "Capabilities: drop"
    if set(capabilities.get("add") or ()) - {"NET_BIND_SERVICE"}:
        yield "Capabilities: add"
    if either("runAsNonRoot") is not True:
        yield "Running as Non-root"
    if either("runAsUser") == 0:
        yield "Running as Non-root user"
    if (either("seccompProfile") or {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "Seccomp"
    if own.get("procMount", "Default") != "Default":
        yield "/proc Mount Type"
    selinux = either("seLinuxOptions") or {}
    if (
        selinux.get("user")
        or selinux.get("role")
        or selinux.get("type", "") not in ("", "container_t")
    ):
        yield "SELinux"
    if any(port.get("hostPort") for port in one.get("ports") or ()):
        yield "Host Ports"
    for probe in ("livenessProbe", "readinessProbe", "startupProbe", "lifecycle"):
        if "'host'" in str(one.get(probe)):
            yield "Host Probes / Lifecycle Hooks"


EXTRA = ContainerSpec(name="db", image="registry.example/db:1", argv=("db",))
PODS = {
    "plain": POD,
    "without secrets": replace(POD, secrets={}, gateway="", prepare=()),
    "with a beside": replace(POD, extra=(EXTRA,)),
    "on claims": replace(POD, placement=Placement(workspace="pvc")),
    "placed": replace(POD, placement=Placement({"a": "b"}, ({"key": "k"},), "kata", ("s",))),
    "another user": replace(POD, agent=replace(POD.agent, user="4321")),
    "writable root": replace(POD, agent=replace(POD.agent, read_only_root=False)),
}


@pytest.mark.parametrize("name", PODS)
def test_every_pod_is_of_the_restricted_level(name: str) -> None:
    assert list(violations(pod_document(PODS[name], aliases=ALIASES))) == []


def test_helper_pods_are_of_the_restricted_level_too() -> None:
    document = helper_document(
        "devaipod-pull-x", image="img:1", argv=["true"], labels=LABELS, seconds=60
    )
    assert list(violations(document)) == []
    assert document["spec"]["activeDeadlineSeconds"] == 60
    assert [one["name"] for one in document["spec"]["containers"]] == ["helper"]


def test_the_rules_find_what_is_forbidden() -> None:
    document = pod_document(POD)
    spec = document["spec"]
    spec["hostPID"] = True
    spec["volumes"].append({"name": "host", "hostPath": {"path": "/"}})
    spec["containers"][0]["securityContext"] = {
        "privileged": True,
        "capabilities": {"add": ["SYS_ADMIN"]},
    }
    spec["securityContext"] = {"runAsUser": 0}
    found = set(violations(document))
    for words in (
        "Host Namespaces: hostPID",
        "Volume Types: {'hostPath'}",
        "agent: Privileged Containers",
        "agent: Privilege Escalation",
        "agent: Capabilities: drop",
        "agent: Capabilities: add",
        "agent: Running as Non-root",
        "agent: Running as Non-root user",
        "agent: Seccomp",
    ):
        assert words in found, words
