"""From a `PodSpec` to libpod's own documents (SpecGenerator JSON): pure functions, compared whole by their tests.

podman-py's keyword arguments drop `no_new_privileges`, health checks and secrets in silence against podman 4.3, so
the documents are written here and posted as they are.
"""

from __future__ import annotations

from typing import Any

from pods.errors import PodRefused
from pods.spec import LABEL_PREFIX, ContainerSpec, Mount, PodSpec, VolumeKind, VolumeSpec

#: A volume's kind, and on those that go with a pod its name.
LABEL_VOLUME = LABEL_PREFIX + "volume"
LABEL_POD = LABEL_PREFIX + "pod"

#: Of a CPU quota; 100 ms is the kernel's own default period (sched-bwc).
CPU_PERIOD_MICROSECONDS = 100_000
#: A container whose process ignores SIGTERM is killed after this; `stop` asks with a time of its own.
STOP_SECONDS = 10
HEALTH_TIMEOUT_NANOSECONDS = 3_000_000_000
#: Failures in a container's first seconds do not count.
HEALTH_START_NANOSECONDS = 5_000_000_000
HEALTH_RETRIES = 3


def container_name(pod: str, container: str) -> str:
    """A container's name on the host, unique because the pod's is."""
    return f"{pod}-{container}"


def pod_document(spec: PodSpec) -> dict[str, Any]:
    """The pod: one network namespace with only a loopback device, nothing else shared."""
    document: dict[str, Any] = {
        "name": spec.name,
        "labels": dict(spec.labels),
        "shared_namespaces": ["net"],
        "netns": {"nsmode": "none"},
        "infra_name": container_name(spec.name, "infra"),
        "exit_policy": "continue",
    }
    if spec.infra_image:
        document["infra_image"] = spec.infra_image
    if spec.infra_argv:
        document["infra_command"] = list(spec.infra_argv)
    return document


def container_document(
    pod: PodSpec, container: ContainerSpec, *, user: str, limits: bool = True
) -> dict[str, Any]:
    """One container of the pod, created and not started.

    `user` is numeric uid:gid. `limits` is False where the host's cgroups cannot hold any (rootless on
    cgroups v1 refuses to start with them). Raises PodRefused for a mount that contradicts itself.
    """
    document: dict[str, Any] = {
        "name": container_name(pod.name, container.name),
        "pod": pod.name,
        "image": container.image,
        "entrypoint": list(container.argv),
        "command": [],
        "env": dict(container.env),
        "user": user,
        "labels": dict(pod.labels),
        "cap_drop": ["ALL"],
        "no_new_privileges": True,
        "read_only_filesystem": container.read_only_root,
        "restart_policy": "no",
        "stop_timeout": STOP_SECONDS,
        "log_configuration": {"driver": "k8s-file", "size": container.limits.log_bytes},
        "volumes": [_named(mount, pod) for mount in container.mounts if mount.volume],
        "mounts": [_mount(mount) for mount in container.mounts if not mount.volume],
        # Variables of the host's own containers.conf (proxies with credentials, say) stay out.
        "httpproxy": False,
    }
    if container.workdir:
        document["work_dir"] = container.workdir
    if limits:
        document["resource_limits"] = {
            "memory": {
                "limit": container.limits.memory_bytes,
                "swap": container.limits.memory_bytes,
            },
            "pids": {"limit": container.limits.pids},
            "cpu": {
                "period": CPU_PERIOD_MICROSECONDS,
                "quota": int(container.limits.cpus * CPU_PERIOD_MICROSECONDS),
            },
        }
    if container.health_argv:
        document["healthconfig"] = {
            "Test": ["CMD", *container.health_argv],
            # No timer of podman's (systemd's, where that runs): `check_health` is who runs the check.
            "Interval": 0,
            "Timeout": HEALTH_TIMEOUT_NANOSECONDS,
            "StartPeriod": HEALTH_START_NANOSECONDS,
            "Retries": HEALTH_RETRIES,
        }
    return document


def _named(mount: Mount, pod: PodSpec) -> dict[str, Any]:
    if mount.host_path or mount.tmpfs_bytes:
        raise PodRefused(f"The mount at {mount.target} names a volume and something else.")
    options = ["ro" if mount.read_only else "rw", "nosuid", "nodev"]
    homes = [volume.name for volume in pod.volumes if volume.kind is VolumeKind.HOME]
    if mount.volume not in homes:
        # A new home begins with what the image has in it (tools that its maker put there); nothing else is copied.
        options.append("nocopy")
    return {"Name": mount.volume, "Dest": mount.target, "Options": options}


def _mount(mount: Mount) -> dict[str, Any]:
    if bool(mount.host_path) == bool(mount.tmpfs_bytes):
        raise PodRefused(f"The mount at {mount.target} is neither a host folder nor a tmpfs.")
    if mount.tmpfs_bytes:
        # noexec would break programs that unpack a library of theirs there (OpenCode does).
        return {
            "type": "tmpfs",
            "source": "tmpfs",
            "destination": mount.target,
            "options": ["rw", f"size={mount.tmpfs_bytes}", "mode=1777", "nosuid", "nodev"],
        }
    return {
        "type": "bind",
        "source": mount.host_path,
        "destination": mount.target,
        "options": ["ro" if mount.read_only else "rw", "nosuid", "nodev", "rbind", "rprivate"],
    }


def volume_document(
    volume: VolumeSpec, *, pod: PodSpec, user: str, device: str = ""
) -> dict[str, Any]:
    """A named volume of a pod; with `device`, an ext4 image that is mounted as a loop device and so bounds bytes and inodes.

    `user` is numeric uid:gid. A plain volume is made for that user and podman leaves it so (the options uid and gid turn
    off its chown to whatever the image has at the mount point). ext4 takes no such option: see `PodmanBackend.start`.
    """
    labels = {**pod.labels, LABEL_VOLUME: str(volume.kind)}
    if volume.kind is VolumeKind.STDIO:
        labels[LABEL_POD] = pod.name
    uid, _, gid = user.partition(":")
    options = {"o": f"uid={uid},gid={gid}"}
    if device:
        # discard: what the agent deletes goes back to the host's disk.
        options = {"type": "ext4", "device": device, "o": "loop,nosuid,nodev,discard"}
    return {"Name": volume.name, "Labels": labels, "Options": options}
