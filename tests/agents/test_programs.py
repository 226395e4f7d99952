"""The real programs of every agent that npm has, in real pods without a network, on the scripted demo in their own wire form.

One run an agent goes the whole way: it asks and a person answers, edits, commits, is reviewed, is prompted again in the same
session, is cancelled, loses its pod and takes its session up in the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator

import pytest

from devaipod_web import db, home
from devaipod_web.accounts.models import User
from devaipod_web.budgets import ledger
from devaipod_web.forges.git import git
from devaipod_web.host import podman_service
from devaipod_web.llm import demo, upstream, vault
from devaipod_web.llm.models import LlmCall, Provider
from devaipod_web.projects.models import Project
from devaipod_web.reviews.models import Review
from devaipod_web.runs.models import PermissionRequest, PermissionState, Run, RunPod
from devaipod_web.runs.services.launch import launch
from devaipod_web.runs.services.permissions import answer
from devaipod_web.runs.services.prompt import prompt
from devaipod_web.runs.services.stop import cancel_turn
from devaipod_web.runs.supervisor.records import cool
from pods.agents import PROFILES
from tests.agents.image import podman
from tests.agents.upstream import playing
from tests.e2e.installation import make_upstream
from tests.runs.world import World, story, world

pytestmark = [pytest.mark.podman, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

TASK = "Say in the README what the till does"
#: Agents refuse to run a mere `sleep`.
WAITS = "python3 -c 'import time; time.sleep(61)'"


@pytest.fixture(scope="module", autouse=True)
def podman_service_ends():
    """The API service of this test session's installation goes when these tests are done."""
    yield
    podman_service.stop()


@pytest.fixture
def shop(tmp_path, settings):
    """A project with a real upstream and the scripted demo, where a person is asked."""
    settings.LOCAL_REPOSITORY_ROOTS = [str(tmp_path)]
    upstream = make_upstream(tmp_path / "shop")
    ada = User.objects.create(username="ada")
    return Project.objects.create(
        slug="shop", name="Shop", upstream_url=str(upstream), created_by=ada
    ), ada


@pytest.fixture
async def place():
    async with world() as here:
        yield here


@contextlib.asynccontextmanager
async def answering(run: Run, by: User) -> AsyncIterator[None]:
    """A person who allows whatever the run asks, once each time."""

    def allow() -> None:
        for asked in PermissionRequest.objects.filter(run=run, state=PermissionState.OPEN):
            option = next(o["id"] for o in asked.options if o["kind"] == "allow_once")
            answer(asked, by, option_id=option)

    async def keep() -> None:
        while True:
            await db.write(allow)
            await asyncio.sleep(0.1)

    task = asyncio.create_task(keep())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def payloads(run: Run, kind: str) -> list[dict]:
    return [row.payload for row in run.events.filter(kind=kind).order_by("seq")]


def turns_ended(number: int):
    return lambda run: run.events.filter(kind="turn.ended").count() >= number


@pytest.mark.parametrize("agent", [key for key, p in PROFILES.items() if p.speaks_acp and p.image])
async def test_the_real_program_works_asks_goes_on_and_is_cancelled(
    agent: str, place: World, shop: tuple[Project, User]
):
    project, ada = shop
    run = await db.write(launch, project, ada, task=TASK, agent=agent)
    unasked = await db.write(launch, project, ada, task=TASK, agent=agent, permission_policy="allow")  # fmt: skip
    async with answering(run, ada):
        ended = await place.until(run, "succeeded", 120)
        await place.wait(run, lambda r: Review.objects.filter(run=r).exists(), 20, "a review")
    await ledger.current().beat()  # what was settled is written now
    await db.read(check_work, await place.run(run.key), agent)

    # A follow-up, in the same session of the same pod.
    await db.write(prompt, ended, ada, "Look once more\ndemo: no-edit")
    async with answering(run, ada):
        await place.wait(run, turns_ended(2), 60, "to end its second turn")
        await place.until(run, "succeeded", 20)
    await db.read(check_follow_up, await place.run(run.key))

    # The pod goes; a prompt brings a new one, which takes the session up. Its turn would last a minute, and is cancelled.
    await db.write(cool, run.pk)
    await place.gone(run, 30)
    await db.write(prompt, await place.run(run.key), ada, f"Wait\ndemo: no-edit\ndemo: run {WAITS}")
    async with answering(run, ada):
        await place.wait(run, waits, 60, "to wait in its third turn")
    await db.write(cancel_turn, await place.run(run.key), ada)
    await place.wait(run, turns_ended(3), 20, "to end its cancelled turn")
    await db.read(check_taken_up, await place.run(run.key))
    await place.until(unasked, "succeeded", 60)
    await db.read(check_unasked, await place.run(unasked.key))


#: Kind of a provider → a model of it whose price is known, and the form that OpenCode speaks with it.
OTHERS = {
    "anthropic": ("claude-sonnet-4-5", "anthropic-messages"),
    "gemini": ("gemini-2.5-pro", "gemini"),
}


async def test_opencode_speaks_the_form_of_the_provider_that_it_has(
    place: World, shop: tuple[Project, User], settings
):
    settings.ALLOWED_PRIVATE_NETWORKS = ["127.0.0.0/8"]
    project, ada = shop
    runs = {}
    async with playing() as address:
        for kind, (model, _) in OTHERS.items():
            provider = await db.write(
                Provider.objects.create,
                name=kind,
                kind=kind,
                base_url=address,
                credential=vault.seal(b"a key"),
            )
            runs[kind] = await db.write(
                launch,
                project,
                ada,
                task=TASK,
                provider=provider,
                model=model,
                permission_policy="allow",
            )
        for run in runs.values():
            await place.until(run, "succeeded", 120)
    await ledger.current().beat()
    for kind, (model, form) in OTHERS.items():
        calls = await db.read(list, LlmCall.objects.filter(run=runs[kind]))
        assert {(call.form, call.model, call.status) for call in calls} == {(form, model, 200)}
        assert all(call.cost for call in calls)
        await db.read(check_unasked, await place.run(runs[kind].key))
    await upstream.close()


def check_work(run: Run, agent: str) -> None:
    asked = PermissionRequest.objects.filter(run=run)
    assert asked.exists(), story(run)
    assert set(asked.values_list("state", flat=True)) == {PermissionState.ALLOWED}
    review = Review.objects.get(run=run)
    files = changed(review)
    assert any(re.fullmatch(r"notes/[\w-]+\.md", name) for name in files), (files, story(run))
    assert review.files == len(files)
    # The agent's own commit, not the sidecar's snapshot of what it left.
    assert payloads(run, "work.staged")[-1]["commits"] >= 1
    assert not payloads(run, "work.staged")[-1]["snapshot"], story(run)
    assert payloads(run, "tool_call") or payloads(run, "tool_call.update")
    assert payloads(run, "message")
    assert not payloads(run, "agent.junk"), payloads(run, "agent.junk")
    assert not payloads(run, "sidecar.note"), payloads(run, "sidecar.note")
    calls = LlmCall.objects.filter(run=run)
    assert set(calls.values_list("form", flat=True)) == {PROFILES[agent].forms[0]}
    assert set(calls.values_list("model", "status")) == {(demo.MODEL, 200)}
    assert run.tokens_in > 0 and run.tokens_out > 0
    assert not payloads(run, "model.refused"), payloads(run, "model.refused")


def changed(review: Review) -> list[str]:
    """The paths that differ between a review's base and its head."""
    repository = home.run_repository(review.run.project.key, review.run.key)
    words = ["diff", "--name-only", review.base, review.head]
    return git(words, repository=repository).decode().splitlines()


def waits(run: Run) -> bool:
    names = [pod.name for pod in RunPod.objects.filter(run=run, ended_at=None)]
    return any("sleep(61)" in podman("top", f"{name}-agent", "args", check=False) for name in names)


def check_follow_up(run: Run) -> None:
    assert [turn["stop_reason"] for turn in payloads(run, "turn.ended")] == ["end_turn"] * 2
    (session,) = payloads(run, "session.started")
    assert (session["how"], session["context_lost"]) == ("new", False)
    assert RunPod.objects.filter(run=run).count() == 1


def check_unasked(run: Run) -> None:
    # Gemini CLI asks about a command with many quotes even so; the policy answers, and nobody waits.
    asked = PermissionRequest.objects.filter(run=run)
    assert not asked.filter(by_policy=False).exists(), story(run)
    assert asked.count() <= (run.agent == "gemini"), story(run)
    assert "waiting" not in [state["to"] for state in payloads(run, "run.state")]
    assert not payloads(run, "sidecar.note"), payloads(run, "sidecar.note")
    staged = payloads(run, "work.staged")[-1]
    assert (staged["commits"], staged["snapshot"]) == (1, False), story(run)


def check_taken_up(run: Run) -> None:
    first, second = payloads(run, "session.started")
    # Gemini CLI 0.61 does not always find its session again; then the run says that context was lost.
    lost = run.agent == "gemini" and second["how"] == "new"
    assert lost or second["how"] in ("resumed", "loaded"), story(run)
    assert (second["session_id"] == first["session_id"]) is not lost
    assert second["context_lost"] is lost
    assert payloads(run, "turn.ended")[2]["stop_reason"] == "cancelled", story(run)
