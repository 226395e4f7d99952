"""How the command writes: pure functions, no server."""

from __future__ import annotations

import pytest

from devaipod_web.cli import output
from devaipod_web.cli.transcript import Transcript


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
        ("\x1b]0;title\x07", "␛]0;title␇"),
        ("a\x9b2Jb", "a<U+009B>2Jb"),
        ("file\u202etxt.exe", "file<U+202E>txt.exe"),
        ("zero\u200bwidth", "zero<U+200B>width"),
        ("\x7f\x00", "␡␀"),
        ("lone \udc80", "lone <U+DC80>"),
        ("tab\tstays", "tab\tstays"),
        ("two\nlines", "two⏎lines"),
        ("naïve 漢字 ✓", "naïve 漢字 ✓"),
    ],
)
def test_control_characters_are_shown_and_not_obeyed(text, shown):
    assert output.clean(text) == shown


def test_newlines_stay_where_a_message_may_have_them():
    assert output.clean("a\n\x1bb", keep_newlines=True) == "a\n␛b"


@pytest.mark.parametrize(
    ("value", "shown"),
    [("0", "$0"), ("0.00012", "$0.0001"), ("0.25", "$0.2500"), ("12.346", "$12.35"), ("?", "—")],
)
def test_money_has_a_cents_fraction_below_a_dollar(value, shown):
    assert output.money(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.84, "0.8 s"), (38, "38 s"), (252, "4 m 12 s"), (7500, "2 h 05 m")]
)
def test_durations_read_as_people_say_them(seconds, shown):
    assert output.duration(seconds) == shown


def play(*events: tuple[str, dict]) -> None:
    transcript = Transcript()
    for kind, payload in events:
        transcript.show({"kind": kind, "payload": payload})
    transcript.end()


def test_pieces_of_a_message_stand_on_one_line(capsys):
    play(
        ("message", {"message_id": "1", "text": "Hel"}),
        ("message", {"message_id": "1", "text": "lo."}),
        ("message", {"message_id": "2", "text": "Next."}),
    )
    assert capsys.readouterr().out == "Hello.\nNext.\n"


def test_a_tool_is_named_when_it_begins_and_when_it_is_done_once(capsys):
    play(
        ("tool_call", {"tool_call_id": "t", "title": "bash", "status": "pending"}),
        ("tool_call.update", {"tool_call_id": "t", "title": "make test", "status": "in_progress"}),
        ("tool_call.update", {"tool_call_id": "t", "status": "completed"}),
        ("tool_call.update", {"tool_call_id": "t", "status": "completed"}),
        ("tool_call", {"tool_call_id": "u", "title": "rm", "status": "failed"}),
    )
    assert capsys.readouterr().out.splitlines() == ["▸ bash", "  ✓ make test", "▸ rm", "  ✗ rm"]


def test_an_error_comes_with_its_next_step(capsys):
    play(("run.note", {"level": "error", "text": "No\x1b key.", "next_step": "Enter it."}))
    assert capsys.readouterr().out == "✗ No␛ key.\n  → Enter it.\n"


def test_unknown_kinds_and_empty_payloads_say_nothing_and_break_nothing(capsys):
    play(("acp.other", {"x": 1}), ("tool_call.update", {}), ("plan", {"entries": [None, "x"]}))
    assert capsys.readouterr().out == ""
