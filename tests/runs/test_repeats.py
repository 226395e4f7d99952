"""What is a loop and what is not: the detector alone, on the fields of tool calls as sidecars send them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devaipod_web.runs.repeats import MAX_OPEN, Memory, called, turn_began, turn_staged

MOST = 6


def play(calls, most=MOST, memory=None):
    """(number of the call that completed a loop or None, the loop), for (input, result) one after the other."""
    memory = memory or Memory()
    for number, (asked, result) in enumerate(calls, 1):
        # Kept as JSON in between, as in the run's row.
        memory = Memory.of(json.loads(json.dumps(memory.as_json())))
        begun = {"tool_call_id": f"c{number}", "title": "bash", "status": "pending", "input": {}}
        assert called(memory, begun, line="bash", most=most) is None
        ended = {
            "tool_call_id": f"c{number}",
            "status": "completed",
            "input": {"command": asked},
            "content": [{"type": "content", "content": {"type": "text", "text": result}}],
        }
        found = called(memory, ended, line=asked, most=most)
        if found is not None:
            return number, found
    return None, None


SAME = ("git status", "clean")


@pytest.mark.parametrize(
    ("calls", "at"),
    [
        pytest.param([SAME] * 20, 6, id="the same call with the same result"),
        pytest.param([("a", "x"), ("b", "y")] * 10, 6, id="a cycle of two, three times round"),
        pytest.param([("a", "x"), ("b", "y"), ("c", "z")] * 10, 9, id="a cycle of three"),
        pytest.param([(c, c) for c in "abcd"] * 10, 12, id="a cycle of four"),
        pytest.param([(c, c) for c in "abcde"] * 10, None, id="a cycle of five is work"),
        pytest.param([SAME] * 5, None, id="one fewer"),
        pytest.param([SAME] * 5 + [("ls", "x")] + [SAME] * 5, None, id="something else in between"),
        pytest.param([("ls", f"{n}") for n in range(50)], None, id="a result that moves"),
        pytest.param([(f"cat {n}", "") for n in range(50)], None, id="another input each time"),
        pytest.param(
            [(f"edit {n // 2}", "ok") if n % 2 else ("make test", "1 failed") for n in range(60)],
            None,
            id="tests that fail again after each edit",
        ),
        pytest.param([("ls", "x")] * 3 + [SAME] * 6, 9, id="counted from where it begins"),
    ],
)
def test_what_is_a_loop(calls, at):
    assert play(calls)[0] == at


def test_the_sentence_says_what_repeats_and_how_often():
    _, one = play([SAME] * 6)
    assert one.sentence.endswith(
        "6 times in a row the same call gave the same result: bash “git status”"
    )
    _, two = play([("make test", "red"), ("git  diff\n--stat", "-")] * 3)
    assert "3 times in a row the same 2 calls gave the same results" in two.sentence
    assert "bash “make test”, bash “git diff --stat”" in two.sentence


def test_a_new_turn_and_a_count_of_none_begin_anew():
    memory = Memory()
    assert play([SAME] * 5, memory=memory)[0] is None
    turn_began(memory)
    assert play([SAME] * 5, memory=memory)[0] is None
    assert play([SAME] * 50, most=0)[0] is None


def test_a_call_of_which_nothing_is_known_counts_for_nothing():
    memory = Memory()
    for number in range(50):
        call = {"tool_call_id": f"{number}", "title": "Thinking", "status": "completed"}
        assert called(memory, call, line="Thinking", most=3) is None


def test_input_that_came_earlier_counts_and_parallel_calls_are_told_apart():
    memory, found = Memory(), []
    for number in range(4):
        for name in ("a", "b"):
            call = {"tool_call_id": f"{name}{number}", "title": "read", "status": "pending"}
            called(memory, {**call, "input": {"path": f"{name}{number}"}}, line=name, most=3)
        for name in ("b", "a"):
            call = {"tool_call_id": f"{name}{number}", "status": "completed", "output": "same"}
            found.append(called(memory, call, line="", most=3))
    assert found == [None] * 8


def test_calls_that_never_end_are_forgotten():
    memory = Memory()
    for number in range(1000):
        call = {"tool_call_id": f"{number}", "title": "x" * 5000, "input": {"y": "z" * 50_000}}
        called(memory, call, line="l" * 5000, most=3)
    assert len(memory.open) == MAX_OPEN
    assert len(json.dumps(memory.as_json())) < 8000


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy")), max_size=80))
def test_a_loop_is_found_exactly_when_the_end_repeats(calls):
    """Against the plain definition: the last length × rounds calls are the same length-long block."""

    def loops(seen):
        for length in (1, 2, 3, 4):
            rounds = MOST if length == 1 else MOST // 2
            tail = seen[-length * rounds :]
            if len(tail) == length * rounds and tail == tail[:length] * rounds:
                return True
        return False

    expected = next((n for n in range(1, len(calls) + 1) if loops(calls[:n])), None)
    assert play(calls)[0] == expected


def test_what_is_missing_or_of_another_form_is_new():
    kept = {"turns": 2, "run": [1], "open": [], "last": None, "more": 1}
    memory = Memory.of(kept)
    assert (memory.turns, memory.run, memory.open, memory.last) == (2, [0, 0, 0, 0], {}, [])


def test_turns_that_are_asked_for_alike_and_change_nothing_are_a_loop():
    memory = Memory()
    found = [
        turn_staged(memory, words=f"Continue, attempt {n}.", head="a" * 40, most=3)
        for n in range(4)
    ]
    assert [loop is not None for loop in found] == [False, False, True, True]
    assert "3 turns in a row" in found[2].sentence


@pytest.mark.parametrize(
    "turns",
    [
        pytest.param([("Continue", str(n)) for n in range(9)], id="each changes something"),
        pytest.param([(f"Why {c}?", "a") for c in "abcdefgh"], id="a person asks questions"),
        pytest.param([("Continue", "a")] * 2, id="too few"),
        pytest.param([("Continue", "")] * 9, id="nothing is known of the work"),
    ],
)
def test_turns_that_are_no_loop(turns):
    memory = Memory()
    assert not any(turn_staged(memory, words=w, head=h, most=3) for w, h in turns)
