from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from devaipod_web.runs.models import RunEvent
from devaipod_web.runs.starting import steps_of
from devaipod_web.runs.transcript import MAX_TEXT, Transcript
from pods.sidecar.protocol import EventKind

START = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


def event(seq: int, kind: str, /, pod: int | None = 1, **payload) -> RunEvent:
    return RunEvent(
        seq=seq, kind=kind, pod_id=pod, at=START + timedelta(seconds=seq), payload=payload
    )


def folded(*events: RunEvent) -> Transcript:
    transcript = Transcript("opencode")
    transcript.feed(events)
    return transcript


def names(transcript: Transcript) -> list[str]:
    return [item.name for item in transcript.items.values()]


def only(transcript: Transcript, name: str) -> dict:
    found = [item for item in transcript.items.values() if item.name == name]
    assert len(found) == 1
    return found[0].data


def test_pieces_of_one_message_become_one_item():
    transcript = folded(
        event(1, "message", message_id="m", text="one "),
        event(2, "message", message_id="m", text="two"),
    )
    assert only(transcript, "message")["text"] == "one two"
    assert transcript.items["e1"].touched == 2


def test_a_message_that_was_interrupted_goes_on_as_a_new_item():
    transcript = folded(
        event(1, "message", message_id="m", text="before"),
        event(2, "tool_call", tool_call_id="c", title="ls"),
        event(3, "message", message_id="m", text="after"),
    )
    assert names(transcript) == ["message", "tool", "message"]


def test_updates_patch_the_tool_call_wherever_they_come():
    transcript = folded(
        event(
            1,
            "tool_call",
            tool_call_id="a",
            title="bash",
            kind="execute",
            input={"command": "ls -l"},
        ),
        event(
            2, "tool_call", tool_call_id="b", title="read", kind="read", input={"filePath": "a.py"}
        ),
        event(
            3,
            "tool_call.update",
            tool_call_id="a",
            status="completed",
            output={"output": "x\ny", "metadata": {"exit": 2}},
        ),
    )
    first, second = (item.data["tool"] for item in transcript.items.values())
    assert (first.line, first.exit_code, first.output_text, first.seconds) == (
        "ls -l",
        2,
        "x\ny",
        2.0,
    )
    assert (second.line, second.is_ended) == ("a.py", False)


def test_the_same_call_id_of_another_attempt_is_another_call():
    transcript = folded(
        event(1, "tool_call", tool_call_id="a"), event(2, "tool_call", pod=2, tool_call_id="a")
    )
    assert names(transcript) == ["tool", "tool"]


def test_an_update_whose_call_is_out_of_sight_is_shown_all_the_same():
    assert names(folded(event(5, "tool_call.update", tool_call_id="a", status="completed"))) == [
        "tool"
    ]


def test_ids_do_not_depend_on_where_the_window_begins():
    events = [
        event(1, "prompt", pod=None, turn=1, text="go"),
        event(2, "message", message_id="m", text="hello"),
        event(3, "tool_call", tool_call_id="a"),
        event(4, "tool_call.update", tool_call_id="a", status="completed"),
    ]
    whole, part = folded(*events), folded(*events[1:])
    assert list(whole.items)[1:] == list(part.items)


def test_a_prompt_is_pending_until_its_turn_starts():
    transcript = folded(event(1, "prompt", pod=None, turn=1, text="go", by="Ada"))
    assert only(transcript, "prompt")["pending"] is True
    changed = transcript.feed([event(2, "turn.started", turn=1)])
    assert [item.id for item in changed] == ["e1"]
    assert only(transcript, "prompt")["pending"] is False


def test_a_question_is_open_until_it_is_answered_and_says_by_whom():
    call = {"toolCallId": "c", "kind": "execute", "rawInput": {"command": "rm -r build"}}
    transcript = folded(
        event(1, "permission.requested", request_id="q", tool_call=call, options=[])
    )
    assert only(transcript, "permission")["state"] == "open"
    assert only(transcript, "permission")["tool"].line == "rm -r build"
    transcript.feed(
        [event(2, "permission.answered", pod=None, request_id="q", state="allowed", by="Ada")]
    )
    assert only(transcript, "permission")["state"] == "allowed"
    assert only(transcript, "permission")["by"] == "Ada"


def test_a_question_that_the_agent_took_back_is_withdrawn():
    transcript = folded(
        event(1, "permission.requested", request_id="q", tool_call={}, options=[]),
        event(2, "permission.resolved", request_id="q", outcome="cancelled"),
    )
    assert only(transcript, "permission")["state"] == "withdrawn"


def test_the_last_plan_counts_and_stands_beside_the_transcript():
    transcript = folded(
        event(1, "plan", entries=[{"content": "a", "status": "pending"}]),
        event(2, "plan", entries=[{"content": "a", "status": "completed"}, {"content": "b"}]),
    )
    assert transcript.plan == [
        {"content": "a", "status": "completed"},
        {"content": "b", "status": "pending"},
    ]
    assert not transcript.items


def test_starting_shows_each_step_with_its_time():
    transcript = folded(
        event(1, "run.state", pod=None, **{"from": "", "to": "queued"}),
        event(3, "run.state", pod=None, **{"from": "queued", "to": "preparing"}),
        event(4, "run.step", pod=None, step="mirror", text="Fetched", seconds=1.5),
        event(5, "run.step", pod=None, step="image", text="61 % of 1.2 GB"),
    )
    rows = {row["label"]: row for row in steps_of(only(transcript, "starting"))}
    assert rows["Queued"]["seconds"] == 2.0
    assert (rows["Fetch the upstream"]["look"], rows["Fetch the upstream"]["seconds"]) == (
        "done",
        1.5,
    )
    assert (rows["Get the image"]["look"], rows["Get the image"]["text"]) == (
        "now",
        "61 % of 1.2 GB",
    )
    assert rows["Make the pod"]["look"] == "later"


def test_a_start_that_failed_marks_its_step_and_says_why():
    transcript = folded(
        event(1, "run.state", pod=None, **{"from": "", "to": "queued"}),
        event(2, "run.state", pod=None, **{"from": "queued", "to": "preparing"}),
        event(
            3,
            "run.state",
            pod=None,
            **{
                "from": "preparing",
                "to": "failed",
                "reason": "No such image.",
                "next_step": "Name one.",
            },
        ),
    )
    looks = [row["look"] for row in steps_of(only(transcript, "starting"))]
    assert looks[:3] == ["done", "failed", "later"]
    assert only(transcript, "state")["next_step"] == "Name one."


def test_an_unknown_kind_is_a_row_with_its_json():
    data = only(folded(event(1, "from.the.future", a=1)), "raw")
    assert (data["kind"], data["payload"]) == ("from.the.future", {"a": 1})


@pytest.mark.parametrize(
    "kind",
    [
        *EventKind,
        "prompt",
        "run.state",
        "run.step",
        "permission.answered",
        "run.note",
        "review.opened",
        "x",
    ],
)
@pytest.mark.parametrize(
    "payload",
    [
        {},
        {
            "text": 5,
            "message_id": [],
            "tool_call_id": {},
            "entries": "x",
            "tool_call": 3,
            "options": 1,
            "status": None,
            "content": [1, None, {"type": "diff"}],
            "locations": [7],
            "output": [1],
            "turn": "x",
            "seconds": True,
            "from": 1,
            "to": {},
            "commits": -3,
            "level": [],
            "exit_code": "x",
        },
    ],
)
def test_nothing_that_an_agent_sends_breaks_the_fold(kind, payload):
    transcript = folded(event(1, str(kind), **payload))
    for item in transcript.items.values():
        if "tool" in item.data:
            tool = item.data["tool"]
            assert isinstance(tool.line + tool.input_text + tool.output_text + tool.summary, str)
            assert isinstance(tool.diffs, list)


def test_a_message_is_bounded_however_much_is_written():
    transcript = Transcript()
    for seq in range(1, 12):
        transcript.feed([event(seq, "message", message_id="m", text="x" * 100_000)])
    assert len(only(transcript, "message")["text"]) <= MAX_TEXT + 100_000


def test_what_changed_since_a_number_is_found_again():
    transcript = folded(
        event(1, "tool_call", tool_call_id="a"),
        event(2, "message", message_id="m", text="x"),
        event(3, "tool_call.update", tool_call_id="a", status="completed"),
    )
    assert [item.name for item in transcript.after(2)] == ["tool"]


def test_an_edit_shows_its_lines():
    change = {"type": "diff", "path": "a.py", "oldText": "a\nb\n", "newText": "a\nc\n"}
    tool = only(
        folded(event(1, "tool_call", tool_call_id="a", kind="edit", content=[change])), "tool"
    )["tool"]
    (diff,) = tool.diffs
    assert (diff["path"], diff["added"], diff["removed"]) == ("a.py", 1, 1)
    assert [(kind, str(line)) for kind, line in diff["lines"]] == [
        ("same", "a"),
        ("del", "b"),
        ("add", "c"),
    ]
