from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from devaipod_web.runs.supervisor.pod_spec import Facts, build, pod_name
from pods.spec import ContainerSpec, Limits, Mount, PodSpec, VolumeKind, VolumeSpec

FACTS = Facts(
    installation="inst",
    run="runrunrun2",
    attempt=2,
    project="projprojpr",
    slug="shop",
    owner="ownerowner",
    image="localhost/agent:dev",
    user="1000:1000",
    home="/home/agent",
    argv=("sh", "-c", "exec opencode acp"),
    workspace="/workspaces/shop",
    sidecar_image="localhost/sidecar:dev",
    token_dir=Path("/var/devaipod/pods/p/token"),
    socket_dir=Path("/run/devaipod-inst/podkey"),
    limits=Limits(memory_bytes=3 * 1024**3, cpus=2.0, pids=512),
    workspace_bytes=4 * 1024**3,
    workspace_inodes=400_000,
    env={"OPENAI_API_KEY": "held-by-the-gateway"},
)


def test_the_whole_pod():
    assert build(FACTS) == PodSpec(
        name="devaipod-shop-runrunrun2-2",
        labels={
            "io.devaipod.installation": "inst",
            "io.devaipod.run": "runrunrun2",
            "io.devaipod.attempt": "2",
            "io.devaipod.project": "projprojpr",
            "io.devaipod.owner": "ownerowner",
        },
        agent=ContainerSpec(
            name="agent",
            image="localhost/agent:dev",
            argv=("sh", "-c", "exec opencode acp"),
            env={"HOME": "/home/agent", "OPENAI_API_KEY": "held-by-the-gateway"},
            user="1000:1000",
            workdir="/workspaces/shop",
            mounts=(
                Mount("/workspaces/shop", volume="devaipod-inst-runrunrun2-workspace"),
                Mount(
                    "/run/devaipod-stdio",
                    volume="devaipod-inst-runrunrun2-2-stdio",
                    read_only=True,
                ),
                Mount("/home/agent", volume="devaipod-inst-runrunrun2-home"),
                Mount("/tmp", tmpfs_bytes=512 * 1024**2),
            ),
            limits=Limits(memory_bytes=3 * 1024**3, cpus=2.0, pids=512),
        ),
        sidecar=ContainerSpec(
            name="sidecar",
            image="localhost/sidecar:dev",
            argv=("python3", "-m", "pods.sidecar"),
            user="1000:1000",
            workdir="/var/lib/devaipod",
            mounts=(
                Mount("/workspaces/shop", volume="devaipod-inst-runrunrun2-workspace"),
                Mount("/run/devaipod-stdio", volume="devaipod-inst-runrunrun2-2-stdio"),
                Mount("/var/lib/devaipod", volume="devaipod-inst-runrunrun2-state"),
                Mount(
                    "/run/devaipod-token", host_path="/var/devaipod/pods/p/token", read_only=True
                ),
                Mount("/run/devaipod", host_path="/run/devaipod-inst/podkey", read_only=True),
                Mount("/tmp", tmpfs_bytes=64 * 1024**2),
            ),
            limits=Limits(memory_bytes=512 * 1024**2, cpus=1.0, pids=128),
            health_argv=("python3", "-m", "pods.sidecar.health"),
        ),
        volumes=(
            VolumeSpec(
                "devaipod-inst-runrunrun2-workspace", VolumeKind.WORKSPACE, 4 * 1024**3, 400_000
            ),
            VolumeSpec("devaipod-inst-runrunrun2-home", VolumeKind.HOME, 2 * 1024**3, 200_000),
            VolumeSpec("devaipod-inst-runrunrun2-state", VolumeKind.STATE, 2 * 1024**3, 200_000),
            VolumeSpec("devaipod-inst-runrunrun2-2-stdio", VolumeKind.STDIO, 1024**2),
        ),
        infra_image="localhost/sidecar:dev",
        infra_argv=("catatonit", "-P"),
    )


def test_the_agent_sees_neither_tokens_nor_the_gateways_socket():
    targets = {mount.target for mount in build(FACTS).agent.mounts}
    assert not targets & {"/run/devaipod", "/run/devaipod-token", "/var/lib/devaipod"}
    assert not any(mount.host_path for mount in build(FACTS).agent.mounts)


def test_the_run_keeps_its_volumes_from_attempt_to_attempt():
    def names(spec):
        return {v.name for v in spec.volumes if v.kind is not VolumeKind.STDIO}

    assert names(build(FACTS)) == names(build(replace(FACTS, attempt=3)))


@pytest.mark.parametrize("slug", ["shop", "a" * 60, "with_under", "-", "x-" * 20, "Ünïcode-slug"])
def test_a_pods_name_is_a_dns_label(slug):
    name = pod_name(slug.encode("ascii", "ignore").decode(), "runrunrun2", 12)
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name)
