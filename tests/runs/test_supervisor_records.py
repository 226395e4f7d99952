from __future__ import annotations

import os
import subprocess
import sys
import threading
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from devaipod_web.runs.models import Run, RunPod
from devaipod_web.runs.services import commands
from devaipod_web.runs.services.launch import launch
from devaipod_web.runs.services.prompt import prompt
from devaipod_web.runs.services.transition import transition
from devaipod_web.runs.states import TRANSITIONS, State
from devaipod_web.runs.supervisor import lease, records
from pods.findings import finding
from tests.runs.conftest import Sidecar, pod_of, state_of

pytestmark = pytest.mark.django_db(transaction=True)


def test_places_are_given_first_come_first_served(project, ada):
    runs = [launch(project, ada, task=str(n)) for n in range(4)]
    assert [pk for pk, _ in records.admit("me", 2)] == [runs[0].pk, runs[1].pk]
    assert records.admit("me", 2) == []
    records.fail(runs[0].pk, finding("run-failed", "no"))
    assert [pk for pk, _ in records.admit("me", 2)] == [runs[2].pk]
    runs[2].refresh_from_db()
    assert runs[2].lease_owner == "me"
    assert runs[2].deadline_at is not None


def test_two_supervisors_at_once_never_give_more_places_than_there_are(project, ada):
    for n in range(8):
        launch(project, ada, task=str(n))
    given: list[int] = []

    def ask(name: str) -> None:
        for _ in range(5):
            given.extend(pk for pk, _ in records.admit(name, 3))
        connection.close()

    threads = [threading.Thread(target=ask, args=(f"s{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(given) == len(set(given)) == 3


def test_a_follow_up_waits_until_the_last_pod_is_gone(started, ada):
    run = started.pod.run
    records.fail(run.pk, finding("run-failed", "no"))
    prompt(run, ada, "again")
    assert records.admit("me", 5) == []
    records.pod_ended(started.pod.pk)
    records.pod_removed(started.pod.pk)
    assert [pk for pk, _ in records.admit("me", 5)] == [run.pk]


def test_the_row_of_an_attempt_and_the_state_are_written_together_or_not_at_all(run):
    transition(run.pk, State.PREPARING, reason="")

    def make() -> bool:
        return records.new_pod(
            run.pk,
            attempt=1,
            name="devaipod-shop-x-1",
            backend="podman",
            image="i",
            key="k" * 10,
            control_digest="c",
            data_digest="d",
        )

    assert make() is True
    assert make() is False
    assert RunPod.objects.count() == 1
    assert state_of(run) == "starting"


def test_a_lost_pod_brings_a_new_attempt_that_asks_the_turn_again(working):
    run = working.pod.run
    records.lose(run.pk, working.pod.pk, "the sidecar ended with exit code 137.")
    run.refresh_from_db()
    assert (run.state, run.lost_pods) == ("preparing", 1)
    assert "137" in run.reason
    assert RunPod.objects.get(pk=working.pod.pk).ended_at is not None
    asked = run.commands.filter(kind="prompt", state="queued").get()
    assert asked.payload["turn"] == 1
    assert asked.payload["text"].endswith("Mend the till")
    assert "started anew" in asked.payload["text"]


def test_a_prompt_that_was_on_its_way_to_a_lost_pod_is_sent_under_a_new_number(started):
    run = started.pod.run
    (command,) = commands.pending(started.pod)
    commands.mark_sent([command.pk], started.pod)
    records.lose(run.pk, started.pod.pk, "gone.")
    (again,) = commands.pending(pod_of(run, 2))
    assert again.number > command.number
    assert again.payload == {"turn": 1, "text": "Mend the till"}


def test_losing_the_same_pod_twice_counts_once(working):
    for _ in range(2):
        records.lose(working.pod.run_id, working.pod.pk, "it is gone.")
    assert Run.objects.get(pk=working.pod.run_id).lost_pods == 1


def test_after_its_last_attempt_a_run_fails_with_the_cause(working, settings):
    run = working.pod.run
    settings.MAX_ATTEMPTS = 1
    records.lose(run.pk, working.pod.pk, "it is gone.")
    run.refresh_from_db()
    assert run.state == "failed"
    assert "it is gone" in run.reason
    assert run.turns.get().stop_reason == "interrupted"


def test_a_stuck_run_is_named_once_until_its_next_event(working):
    run = working.pod.run
    assert records.name_stuck(run.pk, "the model's answer") is True
    assert records.name_stuck(run.pk, "the model's answer") is False
    run.refresh_from_db()
    assert (run.waits_for, run.events.filter(kind="run.stuck").count()) == ("the model's answer", 1)
    working.says("message", message_id="m", text="x")
    assert records.name_stuck(run.pk, "the model's answer") is True


def test_a_lease_is_held_by_one_until_it_runs_out(run):
    now = timezone.now()
    assert lease.take(run.pk, "one", now=now)
    assert lease.take(run.pk, "one", now=now)
    assert not lease.take(run.pk, "two", now=now)
    assert lease.take(run.pk, "two", now=now + lease.LEASE + timedelta(seconds=1))
    assert lease.renew([run.pk], "one", now=now) == set()
    assert lease.renew([run.pk], "two", now=now) == {run.pk}
    lease.release(run.pk, "one")
    assert not lease.take(run.pk, "three", now=now)
    lease.release(run.pk, "two")
    assert lease.take(run.pk, "three", now=now)


def test_the_lease_of_a_killed_process_of_this_host_is_free_at_once(run):
    code = (
        "import devaipod_web.runs.supervisor.lease as l; print(l.owner_id(), flush=True); input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", f"import django; django.setup(); {code}"],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    owner = process.stdout.readline().strip()
    now = timezone.now()
    assert lease.take(run.pk, owner, now=now)
    assert not lease.take(run.pk, lease.owner_id(), now=now)
    process.kill()
    process.wait()
    assert lease.take(run.pk, lease.owner_id(), now=now)


def test_every_state_has_an_end():
    for state in State:
        seen, todo = set(), [state]
        while todo:
            here = todo.pop()
            if here in seen:
                continue
            seen.add(here)
            todo += TRANSITIONS[here]
        assert State.STOPPED in seen
        assert State.FAILED in seen


def test_an_ended_pod_leaves_nothing_open(working, ada):
    run = working.pod.run
    records.end_as(run.pk, State.FAILED, "no")
    records.pod_ended(working.pod.pk)
    assert run.turns.get().stop_reason == "interrupted"
    assert not run.commands.filter(state__in=("queued", "sent")).exists()


def test_the_second_attempt_numbers_its_events_from_one_again(working):
    run = working.pod.run
    records.lose(run.pk, working.pod.pk, "gone.")
    second = Sidecar(pod_of(run, 2))
    assert second.says("message", message_id="m", text="hello") == 1
