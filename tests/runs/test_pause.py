"""Pausing and going on, by what a sidecar says and a person does. tests/e2e/test_pause.py plays it with the real ones."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.conf import settings as product
from django.utils import timezone

from devaipod_web.health import drain
from devaipod_web.runs import diagnosis
from devaipod_web.runs.errors import BadRequest, Draining, NotNow
from devaipod_web.runs.models import PermissionRequest, Run, RunPod, Turn
from devaipod_web.runs.services import commands
from devaipod_web.runs.services.pause import pause_by_hand, resume
from devaipod_web.runs.services.prompt import prompt
from devaipod_web.runs.services.stop import cancel_turn, stop
from devaipod_web.runs.states import State
from devaipod_web.runs.supervisor import ending, records
from tests.runs.conftest import Sidecar, pod_of, state_of
from tests.runs.test_permissions import ask

pytestmark = pytest.mark.django_db


def kinds(pod):
    return [command.kind for command in commands.pending(pod)]


def texts(pod):
    return [command.payload.get("text") for command in commands.pending(pod)]


def now_of(run):
    return Run.objects.get(pk=run.pk)


def ends(sidecar, reason="cancelled", turn=1, head="b"):
    sidecar.says("turn.ended", turn=turn, stop_reason=reason, seconds=1)
    sidecar.says("work.staged", turn=turn, head=head * 40, pushed=True)


@pytest.fixture
def working(working):
    Run.objects.update(attempts=1)
    working.pod.run.refresh_from_db()
    return working


@pytest.fixture
def paused(working, bob):
    deadline = timezone.now() + timedelta(seconds=working.pod.run.wall_seconds)
    Run.objects.update(deadline_at=deadline)
    pause_by_hand(working.pod.run, bob, reason="Let me look.")
    return working


# --- pausing ------------------------------------------------------------------------------------------------------


def test_pausing_says_who_and_why_and_cancels_the_turn(working, bob):
    pause_by_hand(working.pod.run, bob, reason="Let me look.")
    run = now_of(working.pod.run)
    assert (run.state, run.pause_cause) == ("paused", "person")
    assert run.reason == "Paused by bob. Let me look."
    assert kinds(working.pod) == ["cancel"]
    event = run.events.filter(kind="run.state").last()
    assert (event.payload["to"], event.payload["cause"]) == ("paused", "person")


@pytest.mark.parametrize(
    "reason", ["cancelled", "end_turn", "refusal", "max_tokens", "whatever it likes"]
)
def test_however_its_turn_ends_a_paused_run_stays_paused(paused, reason):
    ends(paused, reason)
    assert state_of(paused.pod.run) == "paused"
    assert Turn.objects.get().staged_at is not None


def test_an_agent_that_answers_with_an_error_has_not_failed_and_its_pod_is_let_go(paused):
    paused.says("agent.refused", stage="prompt", message="402", code=-32603)
    run = now_of(paused.pod.run)
    assert run.state == "paused"
    assert run.keep_warm_until <= timezone.now()
    assert ending.should_end(records.view(run.pk), paused.pod)


def test_work_that_could_not_be_staged_in_a_pause_is_said_and_fails_nothing(paused):
    paused.says("work.failed", message="no route to the gateway", output="")
    run = now_of(paused.pod.run)
    assert run.state == "paused"
    assert "could not be staged" in run.notes[-1]["text"]


def test_open_questions_are_withdrawn_and_those_that_come_late_too(working, bob):
    ask(working)
    pause_by_hand(working.pod.run, bob)
    ask(working, "q2")
    assert {request.state for request in PermissionRequest.objects.all()} == {"withdrawn"}
    assert state_of(working.pod.run) == "paused"


def test_a_policy_that_allows_lets_nothing_pass_in_a_pause(working, bob):
    Run.objects.update(permission_policy="allow")
    pause_by_hand(working.pod.run, bob)
    ask(working)
    assert PermissionRequest.objects.get().state == "withdrawn"


def test_only_a_run_at_work_can_be_paused(run, paused, ada, bob):
    with pytest.raises(NotNow, match="paused already"):
        pause_by_hand(paused.pod.run, bob)
    stop(paused.pod.run, ada)
    with pytest.raises(NotNow, match="this one is stopped"):
        pause_by_hand(paused.pod.run, bob)


def test_a_paused_run_can_be_stopped_and_its_turn_not_cancelled_again(paused, ada):
    with pytest.raises(NotNow):
        cancel_turn(paused.pod.run, ada)
    stop(paused.pod.run, ada)
    run = now_of(paused.pod.run)
    assert (run.state, run.pause_cause, run.wall_left) == ("stopped", "", None)
    assert kinds(paused.pod) == ["cancel", "stop"]


# --- prompts ------------------------------------------------------------------------------------------------------


def test_a_prompt_is_refused_with_what_to_do_instead(paused, ada):
    with pytest.raises(NotNow, match="Let me look") as refusal:
        prompt(paused.pod.run, ada, "and the receipts")
    assert "Resume it with these words" in refusal.value.next_step
    assert Turn.objects.count() == 1


def test_prompts_that_wait_are_withheld_and_come_after_the_resumption_in_their_order(
    working, ada, bob
):
    prompt(working.pod.run, ada, "one")
    prompt(working.pod.run, ada, "two")
    pause_by_hand(working.pod.run, bob)
    ends(working)
    assert kinds(working.pod) == ["cancel"]
    resume(working.pod.run, bob)
    assert texts(working.pod)[1:] == [
        "Resumed by bob. Go on where you stopped.\n\nThen:\n\none",
        "two",
    ]
    assert Turn.objects.count() == 3


def test_a_prompt_that_the_agent_took_in_the_pause_is_cancelled_and_asked_again(working, ada, bob):
    prompt(working.pod.run, ada, "one")
    (command,) = commands.pending(working.pod)
    commands.mark_sent([command.pk], working.pod)
    pause_by_hand(working.pod.run, bob)
    ends(working)
    working.says("turn.started", turn=2, text="one")
    working.says("command.applied", command=command.key)
    assert kinds(working.pod) == ["cancel", "cancel"]
    ends(working, turn=2)
    assert state_of(working.pod.run) == "paused"
    resume(working.pod.run, bob, text="go")
    assert texts(working.pod)[2:] == ["one", "go"]
    working.says("turn.started", turn=2, text="one")
    ends(working, "end_turn", turn=2)
    assert state_of(working.pod.run) == "running"
    working.says("command.applied", command=commands.pending(working.pod)[-1].key)
    working.says("turn.started", turn=3, text="go")


# --- going on -----------------------------------------------------------------------------------------------------


def test_it_goes_on_in_its_pod_with_the_time_that_was_left(paused, bob):
    run = now_of(paused.pod.run)
    assert run.deadline_at is None
    assert run.wall_seconds - 5 <= run.wall_left <= run.wall_seconds
    ends(paused)
    Run.objects.update(wall_left=100)
    resume(run, bob)
    run = now_of(run)
    assert (run.state, run.pause_cause, run.wall_left) == ("running", "", None)
    assert run.keep_warm_until is None
    assert abs(run.deadline_at - timezone.now() - timedelta(seconds=100)) < timedelta(seconds=5)
    assert texts(paused.pod)[-1] == "Resumed by bob. Go on where you stopped."
    last = run.turns.last()
    assert (last.number, last.by) == (2, bob)


def test_and_then_succeeds_by_its_next_turn(paused, bob):
    ends(paused, "end_turn")
    resume(paused.pod.run, bob, text="Go on.")
    paused.says("command.applied", command=commands.pending(paused.pod)[-1].key)
    paused.says("turn.started", turn=2, text="Go on.")
    ends(paused, "end_turn", turn=2)
    assert state_of(paused.pod.run) == "succeeded"


def test_the_end_of_the_cancelled_turn_may_come_after_the_resumption(paused, bob):
    resume(paused.pod.run, bob)
    ends(paused)
    assert state_of(paused.pod.run) == "running"


def test_when_its_pod_is_gone_it_waits_for_a_place_with_the_time_that_was_left(paused, bob):
    ends(paused)
    RunPod.objects.update(ended_at=timezone.now(), removed_at=timezone.now())
    Run.objects.update(wall_left=100)
    resume(paused.pod.run, bob)
    run = now_of(paused.pod.run)
    assert (run.state, run.deadline_at) == ("queued", None)
    ((admitted, _),) = records.admit("me", 1)
    run = now_of(run)
    assert admitted == run.pk
    assert abs(run.deadline_at - timezone.now() - timedelta(seconds=100)) < timedelta(seconds=5)
    assert texts(pod_of(run, 2)) == ["Resumed by bob. Go on where you stopped."]


def test_a_pod_that_is_told_to_go_takes_no_prompt_of_the_resumption(paused, bob):
    ends(paused)
    records.ask_to_stop(paused.pod.pk, "the run is paused")
    resume(paused.pod.run, bob)
    assert state_of(paused.pod.run) == "queued"
    assert kinds(paused.pod)[-1] == "stop"


def test_a_run_that_had_not_begun_is_given_its_task_and_no_more(started, bob):
    started.says("workspace.ready", head="a" * 40, branch="b", resumed=False, seconds=0.1)
    started.says("session.started", session_id="s1", how="new", context_lost=False)
    pause_by_hand(started.pod.run, bob)
    assert kinds(started.pod) == []
    resume(started.pod.run, bob)
    assert texts(started.pod) == ["Mend the till"]


def test_resuming_what_is_not_paused_and_too_long_a_text_are_refused(working, bob):
    with pytest.raises(NotNow, match="not paused; it is running"):
        resume(working.pod.run, bob)
    with pytest.raises(BadRequest, match="longer"):
        resume(working.pod.run, bob, text="x" * 200_001)


def test_out_of_work_only_a_pod_that_is_there_goes_on(paused, bob):
    drain.begin(bob)
    Run.objects.update(keep_warm_until=timezone.now())
    with pytest.raises(Draining):
        resume(paused.pod.run, bob)
    Run.objects.update(keep_warm_until=timezone.now() + timedelta(seconds=60))
    resume(paused.pod.run, bob)
    assert state_of(paused.pod.run) == "running"


# --- the supervisor -----------------------------------------------------------------------------------------------


def test_its_pod_is_kept_for_a_time_and_then_goes_with_its_place(paused, bob):
    run = now_of(paused.pod.run)
    kept = run.keep_warm_until - timezone.now()
    assert abs(kept - product.PAUSED_KEEP_WARM) < timedelta(seconds=5)
    assert not ending.should_end(records.view(run.pk), paused.pod)
    assert (run.pk, run.key) in records.to_drive()
    Run.objects.update(keep_warm_until=timezone.now())
    assert ending.should_end(records.view(run.pk), paused.pod)
    records.pod_ended(paused.pod.pk)
    records.pod_removed(paused.pod.pk)
    assert state_of(run) == "paused"
    assert records.to_drive() == []
    assert Turn.objects.get().stop_reason == "interrupted"


def test_it_holds_a_place_only_while_it_has_a_pod(paused, project, ada):
    from devaipod_web.runs.services.launch import launch

    launch(project, ada, task="another")
    assert records.admit("me", 1) == []
    RunPod.objects.update(ended_at=timezone.now(), removed_at=timezone.now())
    assert len(records.admit("me", 1)) == 1


def test_a_pod_that_is_lost_in_a_pause_starts_no_new_one(paused):
    records.lose(paused.pod.run_id, paused.pod.pk, "gone")
    run = now_of(paused.pod.run)
    assert (run.state, run.lost_pods) == ("paused", 0)


def test_what_is_wrong_with_its_pod_does_not_hide_why_it_is_paused(paused):
    from pods.findings import finding

    records.degrade(paused.pod.run_id, finding("stuck", "No progress."))
    assert now_of(paused.pod.run).reason == "Paused by bob. Let me look."


# --- commands -----------------------------------------------------------------------------------------------------


@pytest.fixture
def command(working):
    Run.objects.update(agent="command", argv=["make"])
    return working


def test_a_command_runs_on_with_its_model_closed_and_may_end(command, bob):
    deadline = timezone.now() + timedelta(hours=1)
    Run.objects.update(deadline_at=deadline)
    pause_by_hand(now_of(command.pod.run), bob)
    run = now_of(command.pod.run)
    assert run.reason == (
        "Paused by bob. The command itself runs on; its requests to models are refused."
    )
    assert kinds(command.pod) == []
    assert run.deadline_at == deadline
    assert not ending.should_end(records.view(run.pk), command.pod)
    assert records.end_as(run.pk, State.SUCCEEDED, "It ended.")
    assert now_of(run).pause_cause == ""


def test_a_command_goes_on_without_a_prompt_and_takes_none(command, bob):
    pause_by_hand(now_of(command.pod.run), bob)
    with pytest.raises(BadRequest, match="takes no prompt"):
        resume(command.pod.run, bob, text="hurry")
    resume(command.pod.run, bob)
    assert state_of(command.pod.run) == "running"
    assert kinds(command.pod) == []
    assert Turn.objects.count() == 1


# --- loops --------------------------------------------------------------------------------------------------------


def call(sidecar: Sidecar, number: int, command="git status", result="clean"):
    identity = f"c{number}"
    sidecar.says("tool_call", tool_call_id=identity, title="bash", kind="execute", status="pending")
    sidecar.says(
        "tool_call.update",
        tool_call_id=identity,
        status="completed",
        kind="execute",
        input={"command": command},
        content=[{"type": "content", "content": {"type": "text", "text": result}}],
    )


def test_a_run_that_repeats_itself_is_paused_with_what_repeats(working, settings):
    settings.LOOP_CALLS = 4
    for number in range(3):
        call(working, number)
    assert state_of(working.pod.run) == "running"
    call(working, 3)
    run = now_of(working.pod.run)
    assert (run.state, run.pause_cause, run.finding_code) == ("paused", "loop", "loop")
    assert "4 times in a row" in run.reason and "bash “git status”" in run.reason
    assert kinds(working.pod) == ["cancel"]
    first = diagnosis.facts_of(run, working.pod).own
    assert (first.code, first.message, first.next_step) == ("loop", run.reason, run.next_step)


def test_resuming_begins_the_count_anew(working, settings, bob):
    settings.LOOP_CALLS = 4
    for number in range(4):
        call(working, number)
    ends(working)
    resume(working.pod.run, bob, text="Look elsewhere.")
    for number in range(4, 7):
        call(working, number)
    assert state_of(working.pod.run) == "running"
    call(working, 7)
    assert state_of(working.pod.run) == "paused"


def test_nothing_is_looked_for_when_that_is_switched_off(working, settings):
    settings.LOOP_CALLS = 0
    for number in range(60):
        call(working, number)
    assert state_of(working.pod.run) == "running"
    assert now_of(working.pod.run).repeats["last"] == []


def test_turns_that_change_nothing_are_paused_instead_of_succeeding_for_ever(
    working, settings, ada
):
    settings.LOOP_TURNS = 3
    ends(working, "end_turn")
    for number in (2, 3):
        prompt(working.pod.run, ada, "Mend the till")
        assert state_of(working.pod.run) == "running"
        working.says("command.applied", command=commands.pending(working.pod)[-1].key)
        working.says("turn.started", turn=number, text="Mend the till")
        ends(working, "end_turn", turn=number)
    run = now_of(working.pod.run)
    assert (run.state, run.pause_cause) == ("paused", "loop")
    assert "3 turns in a row" in run.reason
    with pytest.raises(NotNow):
        prompt(run, ada, "Mend the till")
