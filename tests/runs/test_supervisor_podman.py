"""The supervisor on real podman, with the real sidecar and an agent that does what the prompt says."""

from __future__ import annotations

from datetime import timedelta

import pytest

from devaipod_web import db, home
from devaipod_web.accounts.models import User
from devaipod_web.projects.models import Project
from devaipod_web.runs import logs
from devaipod_web.runs.models import Run, RunPod
from devaipod_web.runs.services.launch import launch
from tests.e2e.installation import make_upstream
from tests.runs.world import podman, scripted_image, world

pytestmark = [pytest.mark.podman, pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def shop(tmp_path, settings):
    """A project with a real upstream and the scripted agent."""
    settings.LOCAL_REPOSITORY_ROOTS = [str(tmp_path)]
    upstream = make_upstream(tmp_path / "shop")
    ada = User.objects.create(username="ada")
    project = Project.objects.create(
        slug="shop",
        name="Shop",
        upstream_url=str(upstream),
        permission_policy="ask",
        created_by=ada,
    )
    return project, ada


@pytest.fixture
async def place(settings):
    settings.MAX_RUNS = 2
    async with world() as here:
        yield here


async def ask(shop, task: str, **more) -> Run:
    project, owner = shop
    return await db.write(launch, project, owner, task=task, **more)


async def test_a_sidecar_that_cannot_run_is_tried_three_times_and_then_the_run_says_why(
    place, shop, settings
):
    # The base image of ours has no program of that name.
    settings.SIDECAR_IMAGE = podman(
        "images", "--format", "{{.Repository}}:{{.Tag}}", "localhost/devaipod-base"
    ).splitlines()[0]
    run = await ask(shop, "hello")
    ended = await place.until(run, "failed", 90)
    assert "The pod was lost 3 times" in ended.reason
    assert "No module named" in ended.reason
    assert ended.next_step
    await place.gone(run)
    pods = await db.read(lambda: list(RunPod.objects.filter(run=run)))
    assert [pod.attempt for pod in pods] == [1, 2, 3]
    for pod in pods:
        (sidecar,) = [c for c in pod.diagnostics["containers"] if c["name"] == "sidecar"]
        assert sidecar["exit_code"] == 1
        assert any("No module named" in line for line in sidecar["logs"])
        assert not home.pod_token_dir(pod.name).exists()
        assert not home.pod_socket_dir(pod.key).exists()
    label = f"label=io.devaipod.run={run.key}"
    assert podman("pod", "ps", "-q", "--filter", label) == ""


@pytest.fixture
def scripted(place, settings):
    settings.AGENT_IMAGE = scripted_image()


def said(run: Run) -> str:
    return "".join(str(row.payload.get("text", "")) for row in run.events.filter(kind="message"))


async def test_a_run_goes_the_whole_way_and_its_pod_goes_when_it_is_no_longer_warm(
    place, shop, scripted, settings
):
    settings.KEEP_WARM = timedelta(seconds=1)
    run = await ask(shop, "write note.txt hello there\ncommit Add a note\nlog 20 200")
    ended = await place.until(run, "succeeded")
    assert ended.session_id
    steps = await db.read(lambda: [e.payload["step"] for e in ended.events.filter(kind="run.step")])
    assert steps == ["mirror", "image", "pod", "clone", "start", "agent"]
    review = await place.wait(run, lambda now: hasattr(now, "review"), 10, "to have a review")
    assert review.head_commit
    await place.gone(run)
    (pod,) = await db.read(lambda: list(RunPod.objects.filter(run=run)))
    assert pod.ended_at and pod.removed_at
    assert {c["name"] for c in pod.diagnostics["containers"]} == {"agent", "sidecar"}
    lines = logs.read(run.key, pod.name, "agent", after=0, limit=1000)
    assert [line.text.split()[1] for line in lines if line.text.startswith("line ")] == [
        str(n) for n in range(20)
    ]
    assert (await place.run(run.key)).state == "succeeded"
