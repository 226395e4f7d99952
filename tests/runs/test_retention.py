from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from django.utils import timezone

from devaipod_web import home
from devaipod_web.runs import retention
from devaipod_web.runs.models import Run, RunPod
from tests.runs.conftest import pod_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def old(run):
    """A run that ended 31 days ago and has logs."""
    pod = pod_of(run)
    RunPod.objects.filter(pk=pod.pk).update(ended_at=timezone.now(), removed_at=timezone.now())
    ended = timezone.now() - timedelta(days=31)
    Run.objects.filter(pk=run.pk).update(state="failed", ended_at=ended, attempts=1)
    folder = home.run_logs_dir(run.key) / pod.name / "agent"
    folder.mkdir(parents=True)
    (folder / "000000000001.log").write_text("x" * 100)
    return run


class Volumes:
    """Remembers which volumes were to go."""

    def __init__(self) -> None:
        self.removed: list[str] = []

    async def remove_volume(self, name: str) -> None:
        self.removed.append(name)


def what(items):
    return [(item.what, item.run, item.bytes) for item in items]


def test_a_plan_names_what_would_go_and_touches_nothing(old):
    assert what(retention.plan()) == [("logs", old.key, 100), ("volumes", old.key, 0)]
    assert home.run_logs_dir(old.key).is_dir()
    assert what(retention.plan()) == what(retention.plan())


def test_logs_stay_thirty_days_and_volumes_seven(old):
    Run.objects.filter(pk=old.pk).update(ended_at=timezone.now() - timedelta(days=8))
    assert [item.what for item in retention.plan()] == ["volumes"]
    Run.objects.filter(pk=old.pk).update(ended_at=timezone.now() - timedelta(days=6))
    assert retention.plan() == []


@pytest.mark.parametrize("state", ["running", "queued", "waiting"])
def test_a_run_that_goes_on_keeps_everything(old, state):
    Run.objects.filter(pk=old.pk).update(state=state)
    assert retention.plan() == []


def test_a_run_with_a_pod_keeps_everything(old):
    RunPod.objects.update(removed_at=None)
    assert retention.plan() == []


async def test_what_was_planned_goes_once_and_the_run_says_so(old):
    backend = Volumes()
    items = await asyncio.to_thread(retention.plan)
    done = await retention.apply(items, lambda _: backend)  # type: ignore[arg-type,return-value]
    assert what(done) == what(items)
    assert await retention.apply(items, lambda _: backend) == []  # type: ignore[arg-type,return-value]
    assert not home.run_logs_dir(old.key).exists()
    assert [name.rpartition("-")[2] for name in backend.removed] == ["workspace", "home", "state"]
    fresh = await Run.objects.aget(pk=old.pk)
    assert fresh.logs_pruned_at
    assert fresh.volumes_pruned_at
    assert await fresh.events.filter(kind="run.note").acount() == 2


async def test_a_run_that_went_on_after_the_plan_keeps_everything(old):
    items = await asyncio.to_thread(retention.plan)
    await Run.objects.filter(pk=old.pk).aupdate(state="queued")
    backend = Volumes()
    assert await retention.apply(items, lambda _: backend) == []  # type: ignore[arg-type,return-value]
    assert backend.removed == []
