"""Runs on a real cluster and on real podman, side by side: the supervisor, the gateway's port, the fallback order, the queue."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from devaipod_web import db
from devaipod_web.accounts.models import User
from devaipod_web.host import images, podman_service
from devaipod_web.parts import GatewayPort
from devaipod_web.projects.models import Project
from devaipod_web.runs import backends, logs
from devaipod_web.runs.models import Run, RunPod
from devaipod_web.runs.services.launch import launch
from devaipod_web.targets import services
from devaipod_web.targets.models import Target
from tests.agents.image import scripted_image
from tests.e2e.installation import make_upstream
from tests.pods import cluster as kube
from tests.runs.world import World, world

pytestmark = [
    pytest.mark.kube,
    pytest.mark.podman,
    pytest.mark.slow,
    pytest.mark.django_db(transaction=True),
]

#: The host as pods of the cluster reach it.
HOST = os.environ.get("DEVAIPOD_TEST_KUBE_HOST", "10.88.7.1")


@pytest.fixture(scope="module", autouse=True)
def podman_service_ends():
    """The API service of this test session's installation goes when these tests are done."""
    yield
    podman_service.stop()


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    """The namespace of this module and process, with the images on its node."""
    with kube.namespace(f"devaipod-targets-{os.getpid()}") as name:
        yield name


@pytest.fixture
async def place(settings) -> AsyncIterator[World]:
    settings.MAX_RUNS = 1
    async with world() as here:
        settings.AGENT_IMAGE = scripted_image()
        # This checkout's own, whoever tagged another one `dev` meanwhile.
        settings.SIDECAR_IMAGE = images.references().sidecar
        await asyncio.to_thread(kube.load, (settings.AGENT_IMAGE, settings.SIDECAR_IMAGE))
        with socket.create_server((HOST, 0)) as free:
            port = free.getsockname()[1]
        door = GatewayPort(HOST, port)
        await door.start()
        settings.GATEWAY_ADDRESS = f"http://{HOST}:{port}"
        yield here
        await here.end_supervisor()
        await door.stop()
        await backends.close()


@pytest.fixture
def ada(transactional_db) -> User:
    return User.objects.create_superuser("ada")


@pytest.fixture
def cluster(ada, namespace) -> Target:
    return services.save(
        ada, None, name="test", namespace=namespace, kubeconfig_text=kube.kubeconfig()
    )


@pytest.fixture
def project(ada, tmp_path, settings, cluster) -> Project:
    settings.LOCAL_REPOSITORY_ROOTS = [str(tmp_path)]
    upstream = make_upstream(tmp_path / "shop")
    return Project.objects.create(
        slug="shop",
        name="Shop",
        upstream_url=str(upstream),
        permission_policy="ask",
        created_by=ada,
        targets=[cluster.key],
        memory_bytes=512 * 1024**2,
        cpus=0.2,
    )


async def ask(project: Project, ada: User, task: str, **more: Any) -> Run:
    return await db.write(launch, project, ada, task=task, **more)


def quota(namespace: str, hard: dict[str, str] | None) -> None:
    path = f"/api/v1/namespaces/{namespace}/resourcequotas"
    if hard is None:
        kube.api("DELETE", f"{path}/tight")
        return
    kind = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "tight"}}
    kube.api("POST", path, {**kind, "spec": {"hard": hard}})


async def where(run: Run) -> str:
    return await db.read(lambda: str(Run.objects.select_related("target").get(pk=run.pk).target))


async def test_a_run_on_a_cluster_goes_the_whole_way(place, project, ada, cluster):
    run = await ask(project, ada, "write note.txt hello there\ncommit Add a note\nlog 20 200")
    ended = await place.until(run, "succeeded", 150)
    assert ended.session_id
    assert ended.target_id == cluster.pk
    steps = await db.read(lambda: [e.payload["step"] for e in ended.events.filter(kind="run.step")])
    assert list(dict.fromkeys(steps)) == [
        "mirror",
        "image",
        "pod",
        "clone",
        "start",
        "agent",
    ]
    (pod,) = await db.read(lambda: list(RunPod.objects.filter(run=run)))
    assert (pod.backend, pod.target_id) == ("kubernetes", cluster.pk)
    # The address that its tokens count from, and no other.
    assert pod.address.startswith("10.")
    assert (await place.run(run.key)).head_commit
    await db.write(Run.objects.filter(pk=run.pk).update, keep_warm_until=None)
    await place.gone(run)
    lines = logs.read(run.key, pod.name, "agent", after=0, limit=1000)
    assert [line.text.split()[1] for line in lines if line.text.startswith("line ")] == [
        str(n) for n in range(20)
    ]
    pod = await db.read(RunPod.objects.get, pk=pod.pk)
    assert {c["name"] for c in pod.diagnostics["containers"]} >= {"agent", "sidecar"}
