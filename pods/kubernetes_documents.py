"""From a `PodSpec` to Kubernetes' own documents: pure functions, compared whole and held against `restricted` by their tests.

All containers of a pod start together on a cluster. What comes before them are two init containers: `home` runs in the agent's image
(so that a missing one is told first) and gives a new home what the image has in it; `prepare` is the sidecar's image and makes the
workspace. Each volume holds one folder, which an init container makes: a volume's own top belongs to root, and git takes no
repository in a folder of somebody else's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pods.errors import PodRefused
from pods.spec import (
    AGENT,
    GATEWAY_DIR,
    LABEL_PREFIX,
    SIDECAR,
    TOKEN_DIR,
    ContainerSpec,
    Limits,
    Mount,
    PodSpec,
    VolumeKind,
    VolumeSpec,
)

HOME = "home"
PREPARE = "prepare"
#: Init container → the container whose beginning it is, to whoever looks at the pod.
STANDS_FOR: Mapping[str, str] = {HOME: AGENT, PREPARE: SIDECAR}

LABEL_VOLUME = LABEL_PREFIX + "volume"
#: On pods that belong to no run.
LABEL_HELPER = LABEL_PREFIX + "helper"
HELPER = "helper"
LABEL_MANAGED = "app.kubernetes.io/managed-by"
MANAGED = {LABEL_MANAGED: "devaipod"}
#: When we ended the pod ourselves (RFC 3339): its deadline is not the reason then.
ANNOTATION_STOPPED = LABEL_PREFIX + "stopped-at"

#: Whoever runs in a pod, unless the project sets another number: names are not looked up, no node shows us its images.
USER = "1000:1000"
#: The one folder of each volume, and where init containers see the volumes whole.
FOLDER = "v"
ROOTS = "/devaipod-volumes"
MIB = 1024**2
#: A container whose process ignores SIGTERM is killed after this.
STOP_SECONDS = 10
STDIO_BYTES = 1 * MIB
#: Of its own for each container: those of a pod share one otherwise.
SHM_BYTES = 64 * MIB
#: On a node's disk, beside the volumes: what a runtime keeps for a container, and the most of its log that is counted.
SPARE_BYTES = 64 * MIB
#: A check is a process; a node may have a hundred of our pods.
HEALTH_PERIOD_SECONDS = 20
HEALTH_TIMEOUT_SECONDS = 3
HEALTH_RETRIES = 3
#: What a scheduler sets aside of a limit. Agents wait for their model most of the time: memory is what fills a node.
CPU_SHARE = 100
MEMORY_SHARE = 4
MIN_CPU_MILLI = 5

_MAKE = 'umask 022; for d in $1; do mkdir -p "$d" || exit 1; done; shift; exec "$@"'
_FILL = (
    'umask 022; mkdir -p "$2" || exit 1; [ -e "$2/../.filled" ] || { cp -Rp "$1/." "$2/" 2>/dev/null; : > "$2/../.filled"; }; '
    "exit 0"
)


def pod_document(
    spec: PodSpec, *, aliases: Mapping[str, str] | None = None, user: str = ""
) -> dict[str, Any]:
    """The pod. `aliases` are names (host: address) that it may use: it asks no DNS. Raises PodRefused for what contradicts itself."""
    uid, gid = _numbers(user or spec.agent.user)
    containers = (spec.agent, spec.sidecar, *spec.extra)
    document: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": STOP_SECONDS,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "shareProcessNamespace": False,
        "hostNetwork": False,
        "hostPID": False,
        "hostIPC": False,
        # "None" wants a server: nobody answers there.
        "dnsPolicy": "None",
        "dnsConfig": {
            "nameservers": ["127.0.0.1"],
            "options": [{"name": "timeout", "value": "1"}, {"name": "attempts", "value": "1"}],
        },
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": uid,
            "runAsGroup": gid,
            "fsGroup": gid,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": list(_volumes(spec)),
        "initContainers": list(_init_containers(spec)),
        "containers": [_container(spec, one) for one in containers],
    }
    if aliases:
        document["hostAliases"] = [
            {"ip": address, "hostnames": [host]} for host, address in sorted(aliases.items())
        ]
    if spec.deadline_seconds:
        document["activeDeadlineSeconds"] = spec.deadline_seconds
    _place(document, spec)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": spec.name, "labels": {**spec.labels, **MANAGED}},
        "spec": document,
    }


def secret_document(spec: PodSpec, *, uid: str) -> dict[str, Any]:
    """The run's tokens, owned by the pod of this `uid`: they go when it goes."""
    owner = {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": spec.name,
        "uid": uid,
        "blockOwnerDeletion": False,
        "controller": False,
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": spec.name,
            "labels": {**spec.labels, **MANAGED},
            "ownerReferences": [owner],
        },
        "type": "Opaque",
        "immutable": True,
        "stringData": dict(spec.secrets),
    }


def claim_document(volume: VolumeSpec, spec: PodSpec) -> dict[str, Any]:
    """The claim of a volume that outlives its pod."""
    claim: dict[str, Any] = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": str(volume.size_bytes or SPARE_BYTES)}},
    }
    if spec.placement.storage_class:
        claim["storageClassName"] = spec.placement.storage_class
    labels = {**spec.labels, **MANAGED, LABEL_VOLUME: str(volume.kind)}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": volume.name, "labels": labels},
        "spec": claim,
    }


def is_claimed(volume: VolumeSpec, spec: PodSpec) -> bool:
    """Whether a volume of the pod is a claim, which outlives it, rather than a folder that goes with it."""
    return spec.placement.workspace == "pvc" and volume.kind is not VolumeKind.STDIO


# --- containers ---------------------------------------------------------------------------------------------


def _container(spec: PodSpec, one: ContainerSpec) -> dict[str, Any]:
    mounts = [*_mounts(spec, one), {"name": f"shm-{one.name}", "mountPath": "/dev/shm"}]  # noqa: S108
    if one.name == SIDECAR and spec.secrets:
        mounts.append({"name": "token", "mountPath": TOKEN_DIR, "readOnly": True})
    if one.name == SIDECAR and spec.gateway_map:
        mounts.append({"name": "gateway", "mountPath": GATEWAY_DIR, "readOnly": True})
    document: dict[str, Any] = {
        "name": one.name,
        "image": one.image,
        # Never "Always", the default of the tag `latest`: an image may be on the nodes alone.
        "imagePullPolicy": "IfNotPresent",
        "command": _words(one.argv),
        "env": _env(spec, one),
        "resources": _resources(spec, one),
        "securityContext": _security(read_only=one.read_only_root),
        "volumeMounts": mounts,
        "terminationMessagePolicy": "File",
    }
    if one.workdir:
        document["workingDir"] = one.workdir
    if one.health_argv:
        document["readinessProbe"] = {
            "exec": {"command": _words(one.health_argv)},
            "periodSeconds": HEALTH_PERIOD_SECONDS,
            "timeoutSeconds": HEALTH_TIMEOUT_SECONDS,
            "failureThreshold": HEALTH_RETRIES,
            "successThreshold": 1,
        }
    return document


def _init_containers(spec: PodSpec) -> Iterator[dict[str, Any]]:
    home = next((v for v in spec.volumes if v.kind is VolumeKind.HOME), None)
    at = next((m.target for m in spec.agent.mounts if home and m.volume == home.name), "")
    if at:
        root = f"{ROOTS}/{VolumeKind.HOME}"
        filled = replace(
            spec.agent,
            name=HOME,
            argv=("sh", "-c", _FILL, "sh", at, f"{root}/{FOLDER}"),
            env={},
            workdir="/",
            mounts=(),
            health_argv=(),
        )
        document = _container(spec, filled)
        document["volumeMounts"] = [{"name": str(VolumeKind.HOME), "mountPath": root}]
        yield document
    yield _prepare(spec)


def _prepare(spec: PodSpec) -> dict[str, Any]:
    """The sidecar's beginning: makes the folders of the volumes, then what the spec says."""
    kinds = (VolumeKind.WORKSPACE, VolumeKind.STATE, VolumeKind.STDIO)
    there = [kind for kind in kinds if any(v.kind is kind for v in spec.volumes)]
    folders = {kind: f"{ROOTS}/{kind}/{FOLDER}" for kind in there}
    variables = {
        VolumeKind.WORKSPACE: "DEVAIPOD_WORKSPACE",
        VolumeKind.STATE: "DEVAIPOD_STATE_DIR",
        VolumeKind.STDIO: "DEVAIPOD_STDIO_DIR",
    }
    program = spec.prepare or ("true",)
    one = replace(
        spec.sidecar,
        argv=("sh", "-c", _MAKE, "sh", " ".join(folders.values()), *program),
        env={**spec.sidecar.env, **{variables[kind]: path for kind, path in folders.items()}},
        workdir="/",
        mounts=tuple(mount for mount in spec.sidecar.mounts if not mount.volume),
        health_argv=(),
    )
    document = _container(spec, one)
    document["name"] = PREPARE
    document["volumeMounts"] += [
        {"name": str(kind), "mountPath": f"{ROOTS}/{kind}"} for kind in there
    ]
    return document


def _env(spec: PodSpec, one: ContainerSpec) -> list[dict[str, str]]:
    env = dict(one.env)
    if one.name == SIDECAR and spec.gateway:
        env["DEVAIPOD_GATEWAY"] = spec.gateway
    return [{"name": name, "value": _plain(value)} for name, value in env.items()]


def _plain(text: str) -> str:
    """A text that the kubelet leaves as it is: it replaces `$(NAME)`, and `$$` is its way to write one dollar sign."""
    return text.replace("$", "$$")


def _words(argv: Sequence[str]) -> list[str]:
    return [_plain(word) for word in argv]


def _security(*, read_only: bool) -> dict[str, Any]:
    return {
        "runAsNonRoot": True,
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": read_only,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _resources(spec: PodSpec, one: ContainerSpec) -> dict[str, dict[str, str]]:
    limits = one.limits
    milli = int(limits.cpus * 1000)
    disk = SPARE_BYTES + limits.log_bytes + sum(mount.tmpfs_bytes for mount in one.mounts)
    # A volume counts for the container that fills it.
    kinds = (VolumeKind.STATE,) if one.name == SIDECAR else (VolumeKind.WORKSPACE, VolumeKind.HOME)
    if one.name in (AGENT, SIDECAR):
        owned = [v for v in spec.volumes if v.kind in kinds and not is_claimed(v, spec)]
        disk += sum(volume.size_bytes for volume in owned)
    return {
        "requests": {
            "cpu": f"{max(min(MIN_CPU_MILLI, milli), milli // CPU_SHARE)}m",
            "memory": str(limits.memory_bytes // MEMORY_SHARE),
            "ephemeral-storage": str(min(SPARE_BYTES, disk)),
        },
        "limits": {
            "cpu": f"{milli}m",
            "memory": str(limits.memory_bytes),
            "ephemeral-storage": str(disk),
        },
    }


# --- volumes ------------------------------------------------------------------------------------------------


def _volumes(spec: PodSpec) -> Iterator[dict[str, Any]]:
    for volume in spec.volumes:
        name = str(volume.kind)
        if is_claimed(volume, spec):
            yield {"name": name, "persistentVolumeClaim": {"claimName": volume.name}}
            continue
        folder: dict[str, Any] = {}
        if volume.kind is VolumeKind.STDIO:
            folder = {"medium": "Memory", "sizeLimit": str(volume.size_bytes or STDIO_BYTES)}
        elif volume.size_bytes:
            folder = {"sizeLimit": str(volume.size_bytes)}
        yield {"name": name, "emptyDir": folder}
    for one in (spec.agent, spec.sidecar, *spec.extra):
        yield {
            "name": f"shm-{one.name}",
            "emptyDir": {"medium": "Memory", "sizeLimit": str(SHM_BYTES)},
        }
        for mount in one.mounts:
            if mount.tmpfs_bytes:
                # On the node's disk: in memory it would count against the container's own limit.
                size = {"sizeLimit": str(mount.tmpfs_bytes)}
                yield {"name": _scratch(one, mount), "emptyDir": size}
    if spec.gateway_map:
        # Optional: a pod whose relay is being made anew still starts.
        yield {"name": "gateway", "configMap": {"name": spec.gateway_map, "optional": True}}
    if spec.secrets:
        yield {"name": "token", "secret": {"secretName": spec.name, "defaultMode": 0o440}}


def _mounts(spec: PodSpec, one: ContainerSpec) -> Iterator[dict[str, Any]]:
    kinds = {volume.name: str(volume.kind) for volume in spec.volumes}
    for mount in one.mounts:
        _check(mount, kinds)
        if mount.tmpfs_bytes:
            yield {"name": _scratch(one, mount), "mountPath": mount.target}
            continue
        found: dict[str, Any] = {
            "name": kinds[mount.volume],
            "mountPath": mount.target,
            "subPath": FOLDER,
        }
        if mount.read_only:
            found["readOnly"] = True
        yield found


def _scratch(one: ContainerSpec, mount: Mount) -> str:
    """The name of a container's own scratch folder, a DNS label."""
    place = "".join(c if c.isascii() and c.isalnum() else "-" for c in mount.target.lower())
    return f"scratch-{one.name}{place}"[:63].rstrip("-")


def _check(mount: Mount, kinds: Mapping[str, str]) -> None:
    if mount.host_path:
        raise PodRefused(f"The mount at {mount.target} is a folder of a host, which no pod gets.")
    if bool(mount.volume) == bool(mount.tmpfs_bytes):
        raise PodRefused(f"The mount at {mount.target} is neither a volume nor a tmpfs.")
    if mount.volume and mount.volume not in kinds:
        raise PodRefused(f"The mount at {mount.target} names no volume of the pod.")


# --- the pod ------------------------------------------------------------------------------------------------


def _numbers(user: str) -> tuple[int, int]:
    """(uid, gid) of a user: of a number as it is, of a name the one that everybody has. Raises PodRefused for root."""
    uid, _, gid = user.partition(":")
    if not uid.isdecimal():
        uid, _, gid = USER.partition(":")
    numbers = int(uid), int(gid) if gid.isdecimal() else int(uid)
    if 0 in numbers:
        raise PodRefused(
            f"The user {user} is root, which is refused on a cluster.",
            next_step="Set `remoteUser` in devcontainer.json to an ordinary user's number, or leave it out.",
        )
    return numbers


def _place(document: dict[str, Any], spec: PodSpec) -> None:
    where = spec.placement
    if where.node_selector:
        document["nodeSelector"] = dict(where.node_selector)
    if where.tolerations:
        document["tolerations"] = [dict(one) for one in where.tolerations]
    if where.runtime_class:
        document["runtimeClassName"] = where.runtime_class
    if where.image_pull_secrets:
        document["imagePullSecrets"] = [{"name": name} for name in where.image_pull_secrets]


def helper_document(
    name: str, *, image: str, argv: Sequence[str], labels: Mapping[str, str], seconds: int
) -> dict[str, Any]:
    """A pod of our own that belongs to no run: it has an image pulled, or tries the network. Ends by itself after `seconds`."""
    one = ContainerSpec(
        name=HELPER, image=image, argv=tuple(argv), limits=Limits(memory_bytes=64 * MIB, cpus=0.5)
    )
    spec = PodSpec(name=name, labels=labels, agent=one, sidecar=one, deadline_seconds=seconds)
    document = pod_document(spec)
    document["metadata"]["labels"][LABEL_HELPER] = "1"
    document["spec"]["containers"] = document["spec"]["containers"][:1]
    document["spec"]["volumes"] = document["spec"]["volumes"][:1]
    del document["spec"]["initContainers"]
    return document
