from __future__ import annotations

import pytest
from django.utils import timezone

from devaipod_web.runs.errors import BadRequest, NotNow
from devaipod_web.runs.models import PermissionRequest, Run, RunPod
from devaipod_web.runs.services import commands
from devaipod_web.runs.services.connect import connected
from devaipod_web.runs.services.prompt import prompt
from devaipod_web.runs.services.stop import cancel_turn, stop
from tests.runs.conftest import pod_of, state_of
from tests.runs.test_permissions import ask

pytestmark = pytest.mark.django_db(transaction=True)


def finish(sidecar, reason="end_turn"):
    sidecar.says("turn.ended", turn=1, stop_reason=reason, seconds=1)
    sidecar.says("work.staged", turn=1, head="b" * 40, pushed=True)


def kinds(pod):
    return [command.kind for command in commands.pending(pod)]


def test_a_prompt_to_a_run_at_work_waits_for_its_turn(working, ada):
    turn = prompt(working.pod.run, ada, "and the receipts")
    assert turn.number == 2
    assert kinds(working.pod) == ["prompt"]
    assert state_of(working.pod.run) == "running"


def test_a_prompt_to_a_warm_pod_goes_there(working, ada):
    finish(working)
    prompt(working.pod.run, ada, "again")
    run = Run.objects.get(pk=working.pod.run_id)
    assert (run.state, run.ended_at, run.keep_warm_until) == ("running", None, None)
    assert kinds(working.pod) == ["prompt"]


def test_a_prompt_after_the_warm_time_queues_a_new_attempt(working, ada):
    finish(working)
    Run.objects.filter(pk=working.pod.run_id).update(keep_warm_until=timezone.now())
    prompt(working.pod.run, ada, "again")
    assert state_of(working.pod.run) == "queued"


def test_a_prompt_for_the_next_attempt_is_not_given_to_the_pod_that_stops(working, ada):
    stop(working.pod.run, ada)
    prompt(working.pod.run, ada, "on second thoughts")
    assert state_of(working.pod.run) == "queued"
    assert kinds(working.pod) == ["stop"]
    RunPod.objects.filter(pk=working.pod.pk).update(ended_at=timezone.now())
    assert kinds(pod_of(working.pod.run, 2)) == ["prompt"]


def test_a_stopped_run_says_who_and_why_and_its_pod_is_asked_to_stage(working, ada):
    ask(working)
    stop(working.pod.run, ada, reason="Wrong branch.")
    run = Run.objects.get(pk=working.pod.run_id)
    assert (run.state, run.reason) == ("stopped", "Stopped by ada. Wrong branch.")
    assert PermissionRequest.objects.get().state == "withdrawn"
    assert kinds(working.pod) == ["stop"]


def test_stopping_takes_back_prompts_that_wait_but_not_a_task_that_nobody_saw(
    working, ada, project
):
    prompt(working.pod.run, ada, "never mind")
    stop(working.pod.run, ada)
    assert working.pod.run.turns.get(number=2).stop_reason == "withdrawn"


def test_a_queued_run_stops_at_once_and_a_later_prompt_brings_its_task_along(run, ada):
    stop(run, ada)
    assert state_of(run) == "stopped"
    prompt(run, ada, "go on after all")
    assert state_of(run) == "queued"
    assert [c.payload["turn"] for c in commands.pending(pod_of(run))] == [1, 2]


def test_what_has_ended_cannot_be_stopped_again(run, ada):
    stop(run, ada)
    with pytest.raises(NotNow, match="ended already"):
        stop(run, ada)


def test_a_cancelled_turn_leaves_the_run_waiting_for_the_next_prompt(working, ada):
    cancel_turn(working.pod.run, ada)
    assert kinds(working.pod) == ["cancel"]
    finish(working, "cancelled")
    run = Run.objects.get(pk=working.pod.run_id)
    assert run.state == "waiting"
    assert "next prompt" in run.waits_for
    prompt(run, ada, "do this instead")
    assert state_of(run) == "running"


def test_without_a_turn_there_is_nothing_to_cancel(run, ada):
    with pytest.raises(NotNow):
        cancel_turn(run, ada)


def test_an_empty_prompt_and_a_flood_of_prompts_are_refused(working, ada):
    with pytest.raises(BadRequest, match="empty"):
        prompt(working.pod.run, ada, "  ")
    for n in range(20):
        prompt(working.pod.run, ada, str(n))
    with pytest.raises(BadRequest, match="20 prompts wait"):
        prompt(working.pod.run, ada, "one more")


def test_commands_are_sent_in_order_and_again_until_they_are_done(working, ada):
    prompt(working.pod.run, ada, "one")
    prompt(working.pod.run, ada, "two")
    first, second = commands.pending(working.pod)
    commands.mark_sent([first.pk, second.pk], working.pod)
    assert commands.pending(working.pod) == [first, second]
    working.says("command.applied", command=first.key)
    working.says("command.refused", command=second.key, reason="no session")
    assert commands.pending(working.pod) == []
    run = Run.objects.get(pk=working.pod.run_id)
    assert run.turns.get(number=3).stop_reason == "refused"
    assert "no session" in run.notes[-1]["text"]


def test_a_sidecar_cannot_settle_a_command_of_another_run(working, project, ada):
    from devaipod_web.runs.services.launch import launch

    other = launch(project, ada, task="other").commands.get()
    working.says("command.applied", command=other.key)
    other.refresh_from_db()
    assert other.state == "queued"


def test_the_first_attempt_clones_and_a_later_one_resumes(working):
    run = working.pod.run
    config = connected(working.pod.pk)
    assert config["workspace"] == "/workspaces/shop"
    assert config["branch"] == f"agent/{run.key}/work"
    RunPod.objects.filter(pk=working.pod.pk).update(ended_at=timezone.now())
    second = connected(pod_of(run, 2).pk)
    assert (second["resume"], second["session_id"]) == (True, "s1")
    with pytest.raises(NotNow):
        connected(working.pod.pk)


def test_after_its_volumes_were_pruned_a_run_clones_its_own_work_again(working):
    finish(working)
    run = working.pod.run
    Run.objects.filter(pk=run.pk).update(
        volumes_pruned_at=timezone.now(), head_commit="b" * 40, base_commit="a" * 40
    )
    config = connected(pod_of(run, 2).pk)
    assert (config["resume"], config["session_id"], config["base"]) == (False, "", "b" * 40)
