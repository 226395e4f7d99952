"""What the gateway changes in a request, and that everything else stays byte for byte."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devaipod_web.llm.forms.body import MAX_DEPTH, Body, NotPlain

TEXT = st.text(max_size=12)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(TEXT, VALUES, max_size=6)
SPACES = st.sampled_from(["", " ", "\n  ", "\t", "\r\n"])


@st.composite
def written(draw):
    """An object and one of the ways to write it: with spaces anywhere, escapes or not."""
    value = draw(OBJECTS)
    indent = draw(st.sampled_from([None, 0, 1, 2]))
    separators = (draw(SPACES) + "," + draw(SPACES), draw(SPACES) + ":" + draw(SPACES))
    text = json.dumps(value, indent=indent, separators=separators, ensure_ascii=draw(st.booleans()))
    return value, draw(SPACES) + text + draw(SPACES)


def plain(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@given(written())
def test_what_is_not_changed_is_the_same_bytes(case):
    value, text = case
    if not encodable(text):
        with pytest.raises(NotPlain):
            Body(plain(text))
        return
    body = Body(text.encode())
    assert body.value == value
    assert body.data() == text.encode()


@given(written(), TEXT.filter(encodable), VALUES)
def test_a_value_is_set_where_it_stands_or_added(case, name, new):
    value, text = case
    if not (encodable(text) and encodable(json.dumps(new, ensure_ascii=False))):
        return
    body = Body(text.encode())
    body.set((name,), new)
    assert json.loads(body.data()) == {**value, name: new}
    again = Body(body.data())
    for other in value:
        if other != name:
            assert original(body, other) == original(again, other)


def original(body: Body, name: str) -> str:
    item = body._top.items[name]
    return body._text[item.start : item.value_end]


@given(written(), st.data())
def test_members_are_taken_out_and_the_rest_stays(case, data):
    value, text = case
    if not encodable(text):
        return
    names = data.draw(st.sets(st.sampled_from(sorted(value)))) if value else set()
    body = Body(text.encode())
    for name in names:
        body.drop((name,))
    assert json.loads(body.data()) == {k: v for k, v in value.items() if k not in names}


@given(st.lists(VALUES, max_size=6), st.data())
def test_elements_of_an_array_are_taken_out(values, data):
    text = json.dumps({"tools": values}, ensure_ascii=True, indent=1)
    out = data.draw(st.sets(st.integers(0, max(len(values) - 1, 0))))
    body = Body(text.encode())
    for index in out:
        body.drop(("tools", index))
    kept = [v for i, v in enumerate(values) if i not in out]
    assert json.loads(body.data()) == {"tools": kept}


@given(written(), TEXT.filter(encodable), TEXT.filter(encodable), VALUES)
def test_a_value_below_is_set_and_its_object_made_where_it_is_missing(case, outer, inner, new):
    value, text = case
    if not (encodable(text) and encodable(json.dumps(new, ensure_ascii=False))):
        return
    body = Body(text.encode())
    if isinstance(value.get(outer), list):
        return
    body.set((outer, inner), new)
    there = value.get(outer)
    expected = {**(there if isinstance(there, dict) else {}), inner: new}
    assert json.loads(body.data()) == {**value, outer: expected}


def test_the_last_change_of_a_place_counts():
    body = Body(b'{"model": "a", "n": 1}')
    body.set(("model",), "b")
    body.set(("model",), "c")
    body.drop(("n",))
    body.set(("limit",), 5)
    assert body.data() == b'{"limit":5,"model": "c"}'


def test_changes_below_and_beside_meet():
    body = Body(b'{"tools": [ {"a": 1, "b": 2} , 3 ], "x": {"y": 1}}')
    body.drop(("tools", 0, "a"))
    body.drop(("tools", 1))
    body.set(("x", "z"), 2)
    assert body.data() == b'{"tools": [ {"b": 2} ], "x": {"z":2,"y": 1}}'


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 2}',
        '{"model": "x", "mod\\u0065l": "y"}',
        '{"x": {"a": 1, "a": 1}}',
        '{"x": [{"b": [{"a": 1, "\\u0061": 1}]}]}',
    ],
)
def test_a_name_that_stands_twice_is_refused(text):
    with pytest.raises(NotPlain, match="twice"):
        Body(text.encode())


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"{",
        b"[]",
        b"1",
        b'"x"',
        b"{}{}",
        b"{} x",
        b'{"a"}',
        b'{"a":}',
        b'{"a":1,}',
        b'{"a":1 "b":2}',
        b"{a:1}",
        b"{'a':1}",
        b'{"a":NaN}',
        b'{"a":[Infinity]}',
        b'{"a":-Infinity}',
        b'{"a":01}',
        b'{"a":"\x01"}',
        b'{"a":"\xff"}',
        b'\xef\xbb\xbf{"a":1}',
        b'{"a":1}\x00',
        "{\u00a0}".encode(),
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":' + b"[" * 100_000,
        b"[" * 100_000,
    ],
)
def test_what_is_not_one_plain_object_is_refused(raw):
    with pytest.raises(NotPlain):
        Body(raw)


def test_nesting_is_bounded_exactly():
    def nested(levels: int) -> bytes:
        return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"

    Body(nested(MAX_DEPTH))
    with pytest.raises(NotPlain, match="deeper"):
        Body(nested(MAX_DEPTH + 1))


@given(st.binary(max_size=60))
def test_any_bytes_are_read_as_the_standard_library_does_or_refused(raw):
    try:
        body = Body(raw)
    except NotPlain:
        return
    assert body.value == json.loads(raw)
