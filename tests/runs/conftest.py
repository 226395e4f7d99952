from __future__ import annotations

import itertools

import pytest
from django.utils import timezone

from devaipod_web.accounts.models import User
from devaipod_web.projects.models import Project
from devaipod_web.runs.models import Run, RunPod
from devaipod_web.runs.services.ingest import ingest
from devaipod_web.runs.services.launch import launch
from devaipod_web.runs.services.transition import transition
from devaipod_web.runs.states import State


@pytest.fixture
def ada():
    return User.objects.create(username="ada")


@pytest.fixture
def bob():
    return User.objects.create(username="bob")


@pytest.fixture
def project(ada):
    return Project.objects.create(
        slug="shop", name="Shop", upstream_url="https://example.org/shop.git", created_by=ada
    )


@pytest.fixture
def run(project, ada):
    return launch(project, ada, task="Mend the till")


class Sidecar:
    """Speaks for a pod as its sidecar does: numbered events, one after the other."""

    def __init__(self, pod: RunPod, last: int = 0) -> None:
        self.pod = pod
        self.numbers = itertools.count(last + 1)

    def event(self, kind: str, /, **payload):
        return {
            "source_seq": next(self.numbers),
            "kind": kind,
            "v": 1,
            "at": timezone.now().isoformat(),
            "payload": payload,
        }

    def says(self, kind: str, /, **payload) -> int:
        return ingest(self.pod.pk, [self.event(kind, **payload)])


def pod_of(run: Run, attempt: int = 1) -> RunPod:
    return RunPod.objects.create(
        run=run,
        attempt=attempt,
        name=f"devaipod-shop-{run.key}-{attempt}",
        backend="podman",
        image="localhost/agent",
        control_digest=f"c{run.key}{attempt}",
        data_digest=f"d{run.key}{attempt}",
    )


@pytest.fixture
def started(run):
    """A run whose pod is up and whose sidecar has just connected."""
    transition(run.pk, State.PREPARING, reason="")
    transition(run.pk, State.STARTING, reason="")
    return Sidecar(pod_of(run))


@pytest.fixture
def working(started):
    """A run in the middle of its first turn."""
    started.says("workspace.ready", head="a" * 40, branch="b", resumed=False, seconds=0.1)
    started.says("session.started", session_id="s1", how="new", context_lost=False)
    run = started.pod.run
    started.says("command.applied", command=run.commands.get(kind="prompt").key)
    started.says("turn.started", turn=1, text="Mend the till")
    return started


def state_of(run: Run) -> str:
    return Run.objects.values_list("state", flat=True).get(pk=run.pk)
