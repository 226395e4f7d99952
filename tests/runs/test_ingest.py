from __future__ import annotations

import time
from datetime import timedelta

import pytest
from django.utils import timezone

from devaipod_web.runs import events
from devaipod_web.runs.errors import NotNow
from devaipod_web.runs.models import Run, RunEvent, RunPod
from devaipod_web.runs.services.ingest import ingest
from devaipod_web.runs.services.prompt import prompt
from devaipod_web.runs.untrusted import MAX_DEPTH, storable
from tests.runs.conftest import state_of

pytestmark = pytest.mark.django_db(transaction=True)


def from_pod(sidecar):
    return list(RunEvent.objects.filter(pod=sidecar.pod).values_list("source_seq", flat=True))


def test_what_was_stored_before_is_passed_over(started):
    first = [started.event("message", message_id="m", text=str(n)) for n in range(3)]
    assert ingest(started.pod.pk, first) == 3
    again = [*first, started.event("message", message_id="m", text="3")]
    assert ingest(started.pod.pk, again) == 4
    assert from_pod(started) == [1, 2, 3, 4]


def test_a_gap_is_refused_and_stores_nothing(started):
    first = started.event("message", message_id="m", text="0")
    started.event("message", message_id="m", text="lost")
    third = started.event("message", message_id="m", text="2")
    with pytest.raises(ValueError, match="2 was expected"):
        ingest(started.pod.pk, [first, third])
    assert from_pod(started) == []


@pytest.mark.parametrize("number", [None, "1", True, 0, -3, 1.0])
def test_an_event_without_a_number_is_refused(started, number):
    with pytest.raises(ValueError, match="source_seq"):
        ingest(started.pod.pk, [{"source_seq": number, "kind": "message", "payload": {}}])  # type: ignore[typeddict-item]


def test_ten_thousand_events_are_stored_in_a_few_seconds(working):
    batch = [working.event("message", message_id="m", text=f"word {n} ") for n in range(10_000)]
    # Of the processor, not of the clock: the machine that tests has other things to do as well.
    begun = time.process_time()
    for index in range(0, len(batch), 200):
        ingest(working.pod.pk, batch[index : index + 200])
    assert time.process_time() - begun < 6
    seqs = list(RunEvent.objects.filter(run=working.pod.run).values_list("seq", flat=True))
    assert seqs == list(range(1, len(seqs) + 1))


def test_an_unknown_kind_is_stored_as_it_is(started):
    started.says("something.new", anything=[1, {"a": None}])
    row = RunEvent.objects.get(kind="something.new")
    assert row.payload == {"anything": [1, {"a": None}]}


@pytest.mark.parametrize("kind", ["run.state", "permission.answered", "review.promoted", "prompt"])
def test_a_pod_cannot_speak_with_the_control_planes_own_voice(started, kind):
    started.says(kind, text="I am the control plane")
    assert RunEvent.objects.get(pod=started.pod).kind == f"sidecar.{kind}"


def test_text_that_no_database_stores_and_bombs_of_brackets_are_made_harmless(started):
    bomb: object = "x"
    for _ in range(300):
        bomb = [bomb]
    started.says("message", text="a\x00b\ud800", bomb=bomb, number=float("nan"), **{"k\x00": 1})
    payload = RunEvent.objects.get(kind="message").payload
    assert payload["text"] == "a\ufffdb?"
    assert payload["number"] is None
    assert "k\ufffd" in payload
    depth, level = 0, payload["bomb"]
    while isinstance(level, list):
        level, depth = level[0], depth + 1
    assert depth < MAX_DEPTH + 1


def test_stamps_from_the_future_or_the_far_past_are_ours(started):
    for at in ("2999-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "nonsense", 7, None):
        event = started.event("message", text="x")
        event["at"] = at
        ingest(started.pod.pk, [event])
    for row in RunEvent.objects.filter(kind="message"):
        assert abs(row.at - timezone.now()) < timedelta(minutes=1)


def test_integers_no_column_holds_are_kept_as_text():
    assert storable({"n": 10**30}) == {"n": str(10**30)}


def test_beyond_its_limit_an_attempt_stores_only_what_a_run_needs_to_end(working, settings):
    settings.MAX_EVENTS = 10
    for n in range(12):
        working.says("message", message_id="m", text=str(n))
    working.says("turn.ended", turn=1, stop_reason="end_turn", seconds=1)
    assert working.says("work.staged", turn=1, head="b" * 40, pushed=True) == 18
    run = Run.objects.get(pk=working.pod.run_id)
    assert run.state == "succeeded"
    assert run.events.filter(kind="message").count() == 6
    assert "more events than a run may keep" in run.notes[0]["text"]


def test_an_ended_attempt_is_not_listened_to(started):
    RunPod.objects.filter(pk=started.pod.pk).update(ended_at=timezone.now())
    with pytest.raises(NotNow):
        started.says("message", text="still here")


def test_a_session_makes_the_run_running(working):
    run = Run.objects.get(pk=working.pod.run_id)
    assert (run.state, run.session_id) == ("running", "s1")
    assert run.started_at is not None
    assert run.turns.get().started_at is not None
    assert run.commands.get().state == "applied"


def test_a_turn_that_ended_with_its_work_staged_makes_the_run_succeeded_and_keeps_it_warm(working):
    working.says("turn.ended", turn=1, stop_reason="end_turn", seconds=2)
    assert state_of(working.pod.run) == "running"
    working.says("work.staged", turn=1, head="b" * 40, commits=1, pushed=True)
    run = Run.objects.get(pk=working.pod.run_id)
    assert run.state == "succeeded"
    assert run.keep_warm_until > timezone.now()


def test_a_prompt_that_waits_keeps_the_run_going(working):
    prompt(working.pod.run, None, "and the receipts")
    working.says("turn.ended", turn=1, stop_reason="end_turn", seconds=2)
    working.says("work.staged", turn=1, head="b" * 40, commits=1, pushed=True)
    assert state_of(working.pod.run) == "running"


@pytest.mark.parametrize("reason", ["max_tokens", "refusal", "something_new"])
def test_a_turn_that_ended_otherwise_makes_the_run_failed_with_its_work_staged(working, reason):
    working.says("turn.ended", turn=1, stop_reason=reason, seconds=2)
    working.says("work.staged", turn=1, head="b" * 40, commits=1, pushed=True)
    run = Run.objects.get(pk=working.pod.run_id)
    assert run.state == "failed"
    assert run.reason
    assert "staged" in run.next_step
    assert run.commands.filter(kind="stop", pod=working.pod).count() == 1


def test_work_that_could_not_be_staged_fails_the_run_and_says_that_nothing_is_lost(working):
    working.says("turn.ended", turn=1, stop_reason="end_turn", seconds=2)
    working.says("work.failed", message="the push was refused", output="")
    run = Run.objects.get(pk=working.pod.run_id)
    assert run.state == "failed"
    assert "the push was refused" in run.reason
    assert "Nothing is lost" in run.next_step


def test_an_upstream_that_does_not_clone_fails_the_run_in_its_own_words(started):
    started.says(
        "workspace.failed", message="git clone ended with 128", output="fatal: no", next_step=""
    )
    run = Run.objects.get(pk=started.pod.run_id)
    assert run.state == "failed"
    assert "git clone ended with 128" in run.reason
    assert run.next_step


def test_the_last_line_is_the_last_thing_it_did(working):
    run = working.pod.run
    working.says("message", message_id="m", text="I look at the ")
    working.says("message", message_id="m", text="till.\nThen I mend")
    working.says("message", message_id="m", text=" it")
    run.refresh_from_db()
    assert run.last_line == "Then I mend it"
    working.says("tool_call", tool_call_id="t", title="Run  the\ntests", kind="execute")
    run.refresh_from_db()
    assert run.last_line == "Run the tests"


def test_a_lost_context_is_said(started):
    started.says("workspace.ready", resumed=True)
    started.says("session.started", session_id="s2", how="new", context_lost=True)
    run = Run.objects.get(pk=started.pod.run_id)
    assert "memory" in run.notes[0]["text"]
    assert "run.note" in events.kinds(run.events.all())


def test_the_next_event_ends_being_stuck(working):
    Run.objects.filter(pk=working.pod.run_id).update(
        stuck_since=timezone.now(), waits_for="the model"
    )
    working.says("message", message_id="m", text="hello")
    run = Run.objects.get(pk=working.pod.run_id)
    assert (run.stuck_since, run.waits_for) == (None, "")
