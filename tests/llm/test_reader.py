"""Token counts are read beside the bytes of an answer, however they are cut."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devaipod_web.llm.forms import FORMS, Action, Asked
from devaipod_web.llm.forms.reader import MAX_LINE_BYTES
from tests.llm.languages import LANGUAGES

BY_NAME = {form.name: form for form in FORMS}
NAMES = sorted(LANGUAGES)


def reader(name: str, *, streamed: bool = True, size: int = 400):
    return BY_NAME[name].reader(Asked(Action.GENERATE, "m", streamed=streamed), size=size)


def whole_stream(name: str, words=("Hello ", "there.")) -> bytes:
    spoken = LANGUAGES[name]
    return b"".join((*spoken.starts(), *map(spoken.says, words), *spoken.ends()))


def counts(name: str, pieces) -> tuple:
    each = reader(name)
    for piece in pieces:
        each.feed(piece)
    each.end()
    t = each.tokens
    return t.sent, t.cached, t.received, t.estimated, each.complete, each.error, each.recognised


EXACT = (1000, 400, 200, False, True, "", True)


@given(st.sampled_from(NAMES), st.lists(st.integers(0, 4000), max_size=12))
def test_a_stream_cut_anywhere_counts_the_same(name, cuts):
    data = whole_stream(name)
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    pieces = [data[a:b] for a, b in zip(places, places[1:], strict=False)]
    assert counts(name, pieces) == EXACT


@pytest.mark.parametrize("name", NAMES)
def test_byte_by_byte(name):
    data = whole_stream(name)
    assert counts(name, [data[i : i + 1] for i in range(len(data))]) == EXACT


@pytest.mark.parametrize("name", NAMES)
def test_line_ends_of_windows_and_no_space_after_data(name):
    data = whole_stream(name).replace(b"\n", b"\r\n").replace(b"data: ", b"data:")
    assert counts(name, [data]) == EXACT


@given(st.sampled_from(NAMES), st.text(max_size=80))
def test_what_a_model_writes_cannot_look_like_the_end_or_a_count(name, text):
    spoken = LANGUAGES[name]
    lies = [
        text,
        '"usage":{"prompt_tokens":1,"completion_tokens":1,"input_tokens":1,"output_tokens":1}',
        '"usageMetadata":{"promptTokenCount":1}',
        '\ndata: [DONE]\n\ndata: {"type":"message_stop"}\n\n{"type":"response.completed"}',
        '"finish_reason":"stop" "finishReason" "error":{"message":"no"}',
    ]
    each = reader(name)
    for piece in (*spoken.starts(), *map(spoken.says, lies)):
        each.feed(piece)
    each.end()
    assert not each.complete
    assert each.error == ""
    assert each.tokens.estimated
    assert counts(name, [whole_stream(name, lies)]) == EXACT


def test_a_gemini_functions_arguments_cannot_look_like_the_counts():
    """They are sent as an object, not as a string: the count at the top of the event is what is read."""
    spoken = LANGUAGES["gemini"]
    args = {"usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1}}
    event = spoken.whole()
    event["candidates"][0]["content"]["parts"] = [{"functionCall": {"name": "x", "args": args}}]
    event = {"usageMetadata": event.pop("usageMetadata"), **event}
    assert counts("gemini", [f"data: {json.dumps(event)}\n\n".encode()]) == EXACT


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_that_breaks_off_is_estimated_from_what_came(name):
    spoken = LANGUAGES[name]
    each = reader(name, size=4000)
    for piece in (*spoken.starts(), *[spoken.says("word " * 20)] * 50):
        each.feed(piece)
    each.end()
    assert each.tokens.estimated
    assert not each.complete
    # 50 events of 100 characters are some 1,250 tokens; Anthropic and Gemini have said the input already.
    assert 1000 <= each.tokens.received <= 3000
    assert each.tokens.sent in (1000, 1001)


@pytest.mark.parametrize("name", NAMES)
def test_an_error_in_the_stream_is_found(name):
    spoken = LANGUAGES[name]
    each = reader(name)
    for piece in (*spoken.starts(), spoken.says("x"), spoken.fails("overloaded")):
        each.feed(piece)
    each.end()
    assert each.error == "overloaded"
    assert not each.complete


@pytest.mark.parametrize("name", NAMES)
def test_counts_that_make_no_sense_are_bounded(name):
    spoken = LANGUAGES[name]
    text = json.dumps(spoken.whole())
    for odd in ("-5", "1e400", '"x"', "null", "[]", "true"):
        each = reader(name, streamed=False)
        each.whole(text.replace("1000", odd).replace("500", odd).encode())
        tokens = each.tokens
        assert 0 <= tokens.cached <= tokens.sent
        assert 0 <= tokens.written <= tokens.sent
        assert 0 <= tokens.reasoning <= tokens.received


@given(st.sampled_from(NAMES), st.lists(st.binary(max_size=200), max_size=8))
def test_garbage_breaks_nothing(name, pieces):
    each = reader(name)
    for piece in pieces:
        each.feed(piece)
    each.end()
    assert each.tokens.received >= 0
    reader(name, streamed=False).whole(b"".join(pieces))


def test_a_line_without_end_is_not_kept():
    each = reader("openai-chat")
    piece = b"x" * 1024 * 1024
    for _ in range(MAX_LINE_BYTES // len(piece) + 4):
        each.feed(piece)
        assert each._rest_bytes <= MAX_LINE_BYTES + len(piece)
    each.end()
    assert not each.recognised


@pytest.mark.parametrize("name", ["openai-chat", "openai-responses"])
def test_what_a_model_thought_counts_where_it_stands_in_the_total_alone(name):
    # As xAI counts: total = input + answer + thoughts.
    whole = LANGUAGES[name].whole()
    whole["usage"]["total_tokens"] += 3000
    each = reader(name, streamed=False)
    assert each.whole(json.dumps(whole).encode())
    assert (each.tokens.sent, each.tokens.received) == (1000, 3200)


@pytest.mark.parametrize("name", NAMES)
def test_counts_beyond_all_measure_fit_into_the_ledger(name):
    text = json.dumps(LANGUAGES[name].whole()).replace("200", "9" * 400).replace("150", "9" * 400)
    each = reader(name, streamed=False)
    assert each.whole(text.encode())
    assert 10**9 <= each.tokens.received <= 2 * 10**9


@pytest.mark.parametrize(
    "end",
    [
        {"input_tokens": 500, "cache_read_input_tokens": 400, "cache_creation_input_tokens": 100},
        {"input_tokens": None, "cache_read_input_tokens": None},
        {},
    ],
)
def test_the_end_of_a_messages_stream_keeps_what_its_beginning_said_of_the_input(end):
    spoken = LANGUAGES["anthropic-messages"]
    lives = {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 70}
    begin = {
        "type": "message_start",
        "message": {"usage": {**spoken.usage(), "cache_creation": lives}},
    }
    last = {"type": "message_delta", "usage": {**end, "output_tokens": 200}}
    each = reader("anthropic-messages")
    for event in (begin, last, {"type": "message_stop"}):
        each.feed(b"data: " + json.dumps(event).encode() + b"\n\n")
    each.end()
    tokens = each.tokens
    assert (tokens.sent, tokens.cached, tokens.written, tokens.written_hour) == (1000, 400, 30, 70)
    assert (tokens.received, tokens.estimated) == (200, False)


def test_a_whole_answer_to_a_request_for_a_stream_came_to_its_end():
    each = reader("openai-chat")
    whole = LANGUAGES["openai-chat"].whole()
    del whole["usage"]
    assert each.whole(json.dumps(whole).encode())
    each.end()
    assert each.complete
    assert each.recognised
