"""The documents that podman is sent, compared whole."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pods.errors import PodRefused
from pods.podman_documents import container_document, pod_document, volume_document
from pods.spec import ContainerSpec, Limits, Mount, PodSpec, VolumeKind, VolumeSpec

LABELS = {"io.devaipod.installation": "abc", "io.devaipod.run": "k3v9"}
HOME = VolumeSpec("abc-k3v9-home", VolumeKind.HOME, 2048, 100)
WORKSPACE = VolumeSpec("abc-k3v9-workspace", VolumeKind.WORKSPACE, 4096, 200)
STDIO = VolumeSpec("abc-k3v9-1-stdio", VolumeKind.STDIO)
AGENT = ContainerSpec(
    name="agent",
    image="localhost/agent:dev",
    argv=("sh", "-c", "exec agent"),
    env={"HOME": "/home/agent"},
    workdir="/workspaces/shop",
    mounts=(
        Mount("/workspaces/shop", volume=WORKSPACE.name),
        Mount("/home/agent", volume=HOME.name),
        Mount("/run/devaipod-stdio", volume=STDIO.name, read_only=True),
        Mount("/run/devaipod", host_path="/run/abc/k3v9", read_only=True),
        Mount("/tmp", tmpfs_bytes=1024),
    ),
    limits=Limits(memory_bytes=1000, cpus=1.5, pids=7, log_bytes=99),
)
POD = PodSpec(
    name="devaipod-shop-k3v9-1",
    labels=LABELS,
    agent=AGENT,
    sidecar=replace(AGENT, name="sidecar"),
    volumes=(WORKSPACE, HOME, STDIO),
    infra_image="localhost/sidecar:dev",
    infra_argv=("catatonit", "-P"),
)


def test_a_pod_has_a_network_of_loopback_alone_and_shares_nothing_else() -> None:
    assert pod_document(POD) == {
        "name": "devaipod-shop-k3v9-1",
        "labels": LABELS,
        "shared_namespaces": ["net"],
        "netns": {"nsmode": "none"},
        "infra_name": "devaipod-shop-k3v9-1-infra",
        "exit_policy": "continue",
        "infra_image": "localhost/sidecar:dev",
        "infra_command": ["catatonit", "-P"],
    }


def test_a_container_has_no_right_that_it_does_not_need() -> None:
    safe = ["nosuid", "nodev"]
    assert container_document(POD, AGENT, user="1000:1000") == {
        "name": "devaipod-shop-k3v9-1-agent",
        "pod": "devaipod-shop-k3v9-1",
        "image": "localhost/agent:dev",
        "entrypoint": ["sh", "-c", "exec agent"],
        "command": [],
        "env": {"HOME": "/home/agent"},
        "user": "1000:1000",
        "labels": LABELS,
        "cap_drop": ["ALL"],
        "no_new_privileges": True,
        "read_only_filesystem": True,
        "restart_policy": "no",
        "stop_timeout": 10,
        "log_configuration": {"driver": "k8s-file", "size": 99},
        "volumes": [
            {
                "Name": WORKSPACE.name,
                "Dest": "/workspaces/shop",
                "Options": ["rw", *safe, "nocopy"],
            },
            {"Name": HOME.name, "Dest": "/home/agent", "Options": ["rw", *safe]},
            {
                "Name": STDIO.name,
                "Dest": "/run/devaipod-stdio",
                "Options": ["ro", *safe, "nocopy"],
            },
        ],
        "mounts": [
            {
                "type": "bind",
                "source": "/run/abc/k3v9",
                "destination": "/run/devaipod",
                "options": ["ro", *safe, "rbind", "rprivate"],
            },
            {
                "type": "tmpfs",
                "source": "tmpfs",
                "destination": "/tmp",
                "options": ["rw", "size=1024", "mode=1777", *safe],
            },
        ],
        "httpproxy": False,
        "work_dir": "/workspaces/shop",
        "resource_limits": {
            "memory": {"limit": 1000, "swap": 1000},
            "pids": {"limit": 7},
            "cpu": {"period": 100_000, "quota": 150_000},
        },
    }


def test_a_host_that_can_hold_no_limits_is_asked_for_none() -> None:
    assert "resource_limits" not in container_document(POD, AGENT, user="1:1", limits=False)


def test_a_mount_that_contradicts_itself_is_refused() -> None:
    for mount in (
        Mount("/x"),
        Mount("/x", volume="v", host_path="/etc"),
        Mount("/x", host_path="/etc", tmpfs_bytes=1),
    ):
        with pytest.raises(PodRefused, match="/x"):
            container_document(POD, replace(AGENT, mounts=(mount,)), user="1:1")


def test_a_bounded_volume_is_an_image_and_a_plain_one_belongs_to_its_user() -> None:
    assert volume_document(WORKSPACE, pod=POD, user="7:8", device="/d/x.ext4") == {
        "Name": WORKSPACE.name,
        "Labels": {**LABELS, "io.devaipod.volume": "workspace"},
        "Options": {"type": "ext4", "device": "/d/x.ext4", "o": "loop,nosuid,nodev,discard"},
    }
    assert volume_document(STDIO, pod=POD, user="7:8") == {
        "Name": STDIO.name,
        "Labels": {**LABELS, "io.devaipod.volume": "stdio", "io.devaipod.pod": POD.name},
        "Options": {"o": "uid=7,gid=8"},
    }
