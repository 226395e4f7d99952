"""The supervisor on real podman, with the real sidecar and an agent that does what the prompt says."""

from __future__ import annotations

import asyncio
import subprocess
from datetime import timedelta

import pytest
from django.utils import timezone

from devaipod_web import db, home
from devaipod_web.accounts.models import User
from devaipod_web.host import podman_service
from devaipod_web.projects.models import Project
from devaipod_web.reviews.models import Review
from devaipod_web.runs import logs, retention
from devaipod_web.runs.models import PermissionRequest, Run, RunPod
from devaipod_web.runs.services.launch import launch
from devaipod_web.runs.services.permissions import answer
from devaipod_web.runs.services.prompt import prompt
from devaipod_web.runs.services.stop import stop
from devaipod_web.runs.supervisor import sweep as sweep_module
from devaipod_web.runs.supervisor.records import cool
from devaipod_web.runs.supervisor.sweep import sweep
from pods.spec import LABEL_RUN
from tests.agents.image import podman, scripted_image
from tests.e2e.installation import make_upstream
from tests.runs.world import SIDECAR_IMAGE, world

pytestmark = [pytest.mark.podman, pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.fixture(scope="module", autouse=True)
def podman_service_ends():
    """The API service of this test session's installation goes when these tests are done."""
    yield
    podman_service.stop()


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


def mount(*words: str, program: str = "mount") -> None:
    """Mount or unmount something of the test's own."""
    subprocess.run([program, *words], check=True)


def reviewed(files: int):
    """Whether a run's review shows this many files."""
    return lambda run: Review.objects.filter(run=run, files=files).exists()


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
    await place.wait(run, reviewed(1), 10, "to have a review")
    assert (await place.run(run.key)).head_commit
    await place.gone(run)
    (pod,) = await db.read(lambda: list(RunPod.objects.filter(run=run)))
    assert pod.ended_at and pod.removed_at
    assert {c["name"] for c in pod.diagnostics["containers"]} == {"agent", "sidecar"}
    lines = logs.read(run.key, pod.name, "agent", after=0, limit=1000)
    assert [line.text.split()[1] for line in lines if line.text.startswith("line ")] == [
        str(n) for n in range(20)
    ]
    assert (await place.run(run.key)).state == "succeeded"


async def test_a_person_answers_and_asks_for_more_in_the_warm_pod_and_in_a_new_one(
    place, shop, scripted
):
    project, owner = shop
    run = await ask(shop, "ask Touch the till?\nwrite one.txt 1")
    waiting = await place.until(run, "waiting")
    assert waiting.waits_for == "a permission: Touch the till?"
    request = await db.read(PermissionRequest.objects.select_related("pod").get, run=run)
    await db.write(answer, request, owner, option_id="no")
    ended = await place.until(run, "succeeded")
    assert "answer: no" in await db.read(said, ended)
    await db.write(prompt, ended, owner, "write two.txt 2")
    warm = await place.until(run, "succeeded")
    assert warm.attempts == 1
    await db.write(cool, run.pk)
    await place.gone(run)
    await db.write(prompt, warm, owner, "write three.txt 3")
    cold = await place.until(run, "succeeded")
    assert cold.attempts == 2
    await place.wait(run, reviewed(3), 15, "to have three files in review")
    assert (await place.run(run.key)).changed_files == 3
    sessions = await db.read(
        lambda: [e.payload["how"] for e in cold.events.filter(kind="session.started")]
    )
    assert sessions == ["new", "loaded"]


async def test_an_agent_that_dies_in_its_turn_fails_the_run_with_its_last_words_and_its_work_staged(
    place, shop, scripted
):
    project, owner = shop
    run = await ask(shop, "write half.txt done\ndie 7")
    ended = await place.until(run, "failed")
    assert "exit code 7" in ended.reason
    assert "dying as told" in ended.reason
    assert "prompt the run again" in ended.next_step
    await place.wait(run, reviewed(1), 30, "to have its work in review")
    await place.gone(run)
    turn = await db.read(lambda: ended.turns.get())
    assert turn.stop_reason == "interrupted"
    await db.write(prompt, ended, owner, "write rest.txt done")
    again = await place.until(run, "succeeded")
    assert again.attempts == 2
    assert await db.read(lambda: again.turns.count()) == 2


async def test_an_image_without_the_agents_program_is_named_with_what_to_do(place, shop, settings):
    settings.AGENT_IMAGE = SIDECAR_IMAGE
    run = await ask(shop, "hello")
    ended = await place.until(run, "failed")
    assert ended.reason == (
        f"The agent's program `opencode` is not in image {SIDECAR_IMAGE} (exit code 42)."
    )
    assert "another image" in ended.next_step
    await place.gone(run)


async def test_a_sidecar_killed_in_the_middle_brings_a_new_attempt_and_one_pod_only(
    place, shop, scripted
):
    run = await ask(shop, "write a.txt 1\nsleep 4\nwrite b.txt 2")
    await place.wait(run, lambda now: "a.txt" in now.last_line, 60, "to have written a.txt")
    (first,) = await db.read(lambda: list(RunPod.objects.filter(run=run)))
    podman("kill", f"{first.name}-sidecar")
    ended = await place.until(run, "succeeded")
    assert (ended.attempts, ended.lost_pods) == (2, 1)
    await db.read(first.refresh_from_db)
    assert first.removed_at is not None
    label = f"label=io.devaipod.run={run.key}"
    assert len(podman("pod", "ps", "-q", "--filter", label).splitlines()) == 1
    seqs = await db.read(lambda: list(ended.events.values_list("seq", flat=True)))
    assert seqs == list(range(1, len(seqs) + 1))


async def test_another_supervisor_goes_on_where_the_first_was(place, shop, scripted):
    run = await ask(shop, "write a.txt 1\nsleep 5\nwrite b.txt 2")
    await place.until(run, "running")
    await place.end_supervisor()
    await asyncio.sleep(0.5)
    place.start_supervisor(owner="another")
    ended = await place.until(run, "succeeded")
    assert (ended.attempts, ended.lease_owner) == (1, "another")


async def test_a_supervisor_that_takes_over_in_the_middle_of_starting_makes_no_second_pod(
    place, shop, scripted
):
    runs = []
    for index, state in enumerate(["preparing", "starting", "starting"]):
        run = await ask(shop, "write a.txt 1")
        await place.until(run, state)
        if index == 2:
            await asyncio.sleep(0.7)
        # As `kill -9` leaves it: the task is cut wherever it is, leases stay.
        for task in place.supervisor.drivers.values():
            task.cancel()
        await place.end_supervisor()
        place.start_supervisor()
        runs.append(run)
        ended = await place.until(run, "succeeded")
        assert ended.attempts == 1
        assert await db.read(RunPod.objects.filter(run=run).count) == 1


async def test_a_stopped_run_is_stopped_at_once_and_its_work_is_staged(place, shop, scripted):
    project, owner = shop
    run = await ask(shop, "write a.txt 1\nsleep 60")
    await place.wait(run, lambda now: "a.txt" in now.last_line, 60, "to have written a.txt")
    await db.write(stop, run, owner, reason="Enough.")
    assert (await place.run(run.key)).state == "stopped"
    await place.gone(run)
    await place.wait(run, reviewed(1), 10, "to have its work in review")


async def test_a_run_that_takes_too_long_is_timed_out(place, shop, scripted):
    run = await ask(shop, "sleep 300")
    await place.until(run, "running")
    await db.write(Run.objects.filter(pk=run.pk).update, deadline_at=timezone.now())
    ended = await place.until(run, "timed_out", 15)
    assert "wall time" in ended.reason
    await place.gone(run)


async def test_while_podman_does_not_answer_the_run_says_so_and_then_goes_on(place, shop, scripted):
    run = await ask(shop, "sleep 8\nwrite a.txt 1")
    await place.until(run, "running")
    podman_service.stop()
    try:
        await place.wait(
            run,
            lambda now: now.waits_for.startswith("the container backend"),
            15,
            "to say that podman does not answer",
        )
        queued = await ask(shop, "write b.txt 2")
        await place.wait(queued, lambda now: "podman" in now.waits_for, 20, "to wait for podman")
    finally:
        podman_service.ensure()
    for one in (run, queued):
        ended = await place.until(one, "succeeded", 90)
        assert (ended.attempts, ended.waits_for) == (1, "")


async def test_an_image_that_does_not_exist_fails_the_run_in_a_sentence(place, shop, settings):
    settings.AGENT_IMAGE = "localhost/devaipod-no-such-image:1"
    ended = await place.until(await ask(shop, "hello"), "failed", 60)
    assert "localhost/devaipod-no-such-image:1" in ended.reason
    assert ended.next_step
    assert ended.attempts == 0


async def test_an_agent_whose_image_was_never_built_names_the_command_that_builds_it(
    place, shop, settings
):
    missing = "localhost/devaipod-agent-codex:000000000000"
    settings.AGENT_IMAGES = {**settings.AGENT_IMAGES, "codex": missing}
    ended = await place.until(await ask(shop, "hello", agent="codex"), "failed", 60)
    assert ended.finding_code == "image-not-found"
    assert ended.reason == f"The image {missing} of Codex is not on this host."
    assert "`make images AGENTS=codex` on the host builds it" in ended.next_step


async def test_an_upstream_that_is_not_there_fails_the_run_in_a_sentence(place, shop, tmp_path):
    project, _ = shop
    await db.write(
        Project.objects.filter(pk=project.pk).update, upstream_url=str(tmp_path / "nothing.git")
    )
    await db.read(project.refresh_from_db)
    ended = await place.until(await ask(shop, "hello"), "failed", 60)
    assert "nothing.git" in ended.reason
    assert ended.next_step


async def test_no_more_runs_than_places_are_at_work_and_the_queue_moves_up(
    place, shop, scripted, settings
):
    settings.MAX_RUNS = 1
    first, second = await ask(shop, "sleep 2"), await ask(shop, "sleep 0")
    await place.until(first, "running")
    assert (await place.run(second.key)).state == "queued"
    await place.until(first, "succeeded")
    await place.until(second, "succeeded")


async def test_a_run_without_news_is_named_stuck_and_the_next_event_ends_it(
    place, shop, scripted, settings
):
    settings.STUCK_AFTER = timedelta(seconds=2)
    run = await ask(shop, "sleep 7\nwrite a.txt 1")
    stuck = await place.wait(run, lambda now: now.stuck_since, 60, "to be stuck")
    assert stuck.waits_for == "the model's answer"
    ended = await place.until(run, "succeeded")
    assert ended.stuck_since is None


async def test_a_full_disk_for_the_logs_is_said_and_the_run_goes_on(place, shop, scripted):
    run = await ask(shop, "sleep 3\nlog 3000 4000\nwrite a.txt 1\nsleep 3")
    folder = home.run_logs_dir(run.key)
    folder.mkdir(parents=True)
    mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder))
    try:
        await place.wait(
            run,
            lambda now: any("logs are not kept" in n["text"] for n in now.notes),
            60,
            "to say that its logs are not kept",
        )
        mount("-o", "remount,size=16m", str(folder))
        await place.until(run, "succeeded")
        (pod,) = await db.read(lambda: list(RunPod.objects.filter(run=run)))

        def kept(_: Run) -> bool:
            found = logs.read(run.key, pod.name, "agent", after=0, limit=5000)
            numbers = [int(li.text.split()[1]) for li in found if li.text.startswith("line ")]
            return numbers == list(range(3000))

        await place.wait(run, kept, 20, "to have every line once, after there was room again")
        await db.write(cool, run.pk)
        await place.gone(run)
    finally:
        mount("-l", str(folder), program="umount")


async def test_pods_and_volumes_that_nobody_answers_for_are_removed_and_others_left(
    place, shop, scripted, monkeypatch
):
    run = await ask(shop, "hello")
    await place.until(run, "succeeded")
    (pod,) = await db.read(lambda: list(RunPod.objects.filter(run=run)))
    await place.end_supervisor()
    # As after the loss of the database: the pod is there, its row is not.
    await db.write(lambda: Run.objects.all().delete())
    assert await sweep(place.backend, home.installation_id()) == []
    monkeypatch.setattr(sweep_module, "MIN_AGE", timedelta(0))
    assert pod.name in await sweep(place.backend, home.installation_id())
    assert await place.backend.pod(pod.name) is None
    assert await sweep(place.backend, "another1") == []


async def test_retention_removes_the_volumes_of_an_old_run_and_a_prompt_starts_from_its_work(
    place, shop, scripted
):
    project, owner = shop
    run = await ask(shop, "write a.txt 1")
    ended = await place.until(run, "succeeded")
    await place.wait(run, reviewed(1), 15, "to have a review")
    await db.write(cool, run.pk)
    await place.gone(run)
    old = timezone.now() - timedelta(days=8)
    await db.write(Run.objects.filter(pk=run.pk).update, ended_at=old)
    items = await db.read(retention.plan)
    assert [item.what for item in items] == ["volumes"]
    await retention.apply(items, lambda _: place.backend)
    labels = {LABEL_RUN: run.key}
    assert await place.backend.volumes(labels) == []
    await db.write(prompt, ended, owner, "write b.txt 2")
    await place.until(run, "succeeded")
    await place.wait(run, reviewed(2), 15, "to have both files in review")


async def test_the_real_opencode_plays_the_scripted_demo_to_a_review(place, shop):
    run = await ask(shop, "Say in the README what the till does", permission_policy="allow")
    ended = await place.until(run, "succeeded", 180)
    await place.wait(run, reviewed(2), 15, "to have a note and its mention in review")
    await place.wait(
        run, lambda one: Run.objects.get(pk=one.pk).tokens_out > 0, 15, "to have its tokens counted"
    )
    kinds = await db.read(lambda: set(ended.events.values_list("kind", flat=True)))
    assert {"tool_call", "message", "work.staged", "turn.ended"} <= kinds
    assert not await db.read(lambda: ended.events.filter(kind="agent.junk").exists())
