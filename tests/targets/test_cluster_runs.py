"""Runs on a real cluster and on real podman, side by side: the supervisor, the gateway's port, the fallback order, the queue."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest

from devaipod_web import db
from devaipod_web.accounts.models import User
from devaipod_web.host import images, podman_service
from devaipod_web.parts import GatewayPort
from devaipod_web.projects.models import Project
from devaipod_web.runs import backends, diagnosis, logs
from devaipod_web.runs.models import Run, RunPod
from devaipod_web.runs.services.launch import launch
from devaipod_web.runs.services.stop import stop
from devaipod_web.runs.supervisor.status import service
from devaipod_web.targets import queries, services
from devaipod_web.targets.models import Target
from pods import terminal
from pods.spec import AGENT
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
        port = await asyncio.to_thread(kube.port_for_pods, settings.SIDECAR_IMAGE)
        door = GatewayPort(kube.HOST, port)
        await door.start()
        settings.GATEWAY_ADDRESS = f"http://{kube.HOST}:{port}"
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
    await place.wait(run, lambda now: now.head_commit, 10, "to have its review's head")
    await db.write(Run.objects.filter(pk=run.pk).update, keep_warm_until=None)
    await place.gone(run)
    lines = logs.read(run.key, pod.name, "agent", after=0, limit=1000)
    assert [line.text.split()[1] for line in lines if line.text.startswith("line ")] == [
        str(n) for n in range(20)
    ]
    pod = await db.read(RunPod.objects.get, pk=pod.pk)
    assert {c["name"] for c in pod.diagnostics["containers"]} >= {"agent", "sidecar"}


async def test_a_run_for_which_the_cluster_has_no_room_goes_to_the_next_target(
    place, project, ada, cluster, namespace
):
    podman = await db.read(Target.objects.get, name="podman")
    await db.write(Project.objects.filter(pk=project.pk).update, targets=[cluster.key, podman.key])
    await asyncio.to_thread(quota, namespace, {"requests.memory": "1Mi"})
    try:
        run = await ask(project, ada, "write note.txt hello\ncommit Add a note")
        await place.until(run, "succeeded", 120)
    finally:
        await asyncio.to_thread(quota, namespace, None)
    assert await where(run) == "podman"
    moves = await db.read(
        lambda: [
            (e.payload["from"], e.payload["to"], e.payload["reason"])
            for e in run.events.filter(kind="run.state")
        ]
    )
    ((_, _, why),) = [move for move in moves if move[:2] == ("starting", "queued")]
    assert why.startswith("test had no room: ")
    assert "quota" in why
    row = await db.read(Target.objects.get, pk=cluster.pk)
    assert row.full_until is not None
    # Nothing of the refused attempt is left there.
    pods = await asyncio.to_thread(kube.api, "GET", f"/api/v1/namespaces/{namespace}/pods")
    assert not [p for p in pods["items"] if run.key in p["metadata"]["name"]]


async def test_without_another_target_a_run_waits_for_room_and_goes_on_when_there_is_some(
    place, project, ada, cluster, namespace, monkeypatch
):
    monkeypatch.setattr(services, "FULL_PAUSE", timedelta(seconds=2))
    await asyncio.to_thread(quota, namespace, {"requests.memory": "1Mi"})
    try:
        run = await ask(project, ada, "write note.txt hello\ncommit Add a note")
        await place.wait(run, lambda now: now.refusals >= 1, 60, "to be refused")
        waiting = await place.until(run, "queued", 30)
        assert "had no room" in waiting.reason
        assert waiting.target_id is None
        (shown,) = await db.read(queries.queue_places, waiting)
        assert (shown.room.name, shown.place) == ("test", 1)
        assert "it had no room" in queries.words([shown])
    finally:
        await asyncio.to_thread(quota, namespace, None)
    done = await place.until(run, "succeeded", 150)
    assert (done.target_id, done.refusals) == (cluster.pk, 0)


async def test_a_run_that_waits_for_podman_holds_up_nobody_who_goes_to_the_cluster(
    place, project, ada, cluster
):
    first = await ask(project, ada, "sleep 60", target="podman")
    await place.until(first, "running", 60)
    second = await ask(project, ada, "write a.txt 1", target="podman")
    third = await ask(project, ada, "write b.txt 1", target="test")
    await place.until(third, "succeeded", 120)
    now = await place.run(second.key)
    assert now.state == "queued"
    assert queries.words(await db.read(queries.queue_places, now)) == "place 1 in the queue"
    await db.write(stop, first, ada)
    await db.write(stop, second, ada)
    assert [await where(first), await where(third)] == ["podman", "test"]


async def test_a_target_that_does_not_answer_is_passed_over(place, project, ada, cluster, settings):
    """A cluster whose API server is away: the run goes to podman, and the row says why."""
    away = await db.write(
        lambda: services.save(
            ada,
            None,
            name="away",
            namespace="x",
            kubeconfig_text=kube.kubeconfig().replace(":16443", ":1"),
        )
    )
    podman = await db.read(Target.objects.get, name="podman")

    def is_down() -> bool:
        return Target.objects.get(pk=away.pk).health == "down"

    async with asyncio.timeout(60):
        while not await db.read(is_down):
            await asyncio.sleep(0.2)
    await db.write(Project.objects.filter(pk=project.pk).update, targets=[away.key, podman.key])
    run = await ask(project, ada, "write note.txt hello")
    await place.until(run, "succeeded", 90)
    assert await where(run) == "podman"
    row = await db.read(Target.objects.get, pk=away.pk)
    assert row.error
    assert "away" in service.backend_error


async def test_what_people_ask_of_a_run_on_a_cluster_is_answered_from_there(
    place, project, ada, cluster
):
    """Diagnosis as a view asks for it, in a thread and with a backend of its own; a terminal as a consumer has it."""
    run = await ask(project, ada, "sleep 90")
    await place.until(run, "running", 120)
    document = await asyncio.to_thread(diagnosis.of_run, await place.run(run.key))
    assert (document["backend"], document["state"]) == ("kubernetes", "running")
    assert {one["name"] for one in document["containers"]} >= {"agent", "sidecar"}
    pod = await db.read(RunPod.objects.select_related("target").get, run=run)
    assert pod.agent_started_at is not None
    program = await terminal.open_terminal(
        backends.of_target(pod.target), pod.name, AGENT, ["sh", "-c", "id -u"], tty=False
    )
    said = b""
    while piece := await program.read():
        said += piece
    assert said.strip() == b"1000"
    await program.close()
    await db.write(stop, run, ada)
    await place.until(run, "stopped", 30)
    await place.gone(run)
