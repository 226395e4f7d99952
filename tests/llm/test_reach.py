from __future__ import annotations

import pytest

from devaipod_web.llm.reach import REFUSED, TAKEN_OUT, ReachRefused, restrict

ASKED = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


def asked_with(part: dict) -> dict:
    return {"model": "m", "messages": [{"role": "user", "content": [part]}]}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_field_that_reaches_further_is_refused_by_name(name):
    with pytest.raises(ReachRefused, match=name):
        restrict({**ASKED, name: {"x": 1}})


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_the_same_field_left_empty_passes_without_it(name):
    assert name not in restrict({**ASKED, name: None}).body


@pytest.mark.parametrize("name", [*sorted(TAKEN_OUT), "invented_tomorrow"])
def test_a_field_that_is_sent_unasked_is_taken_out_and_said(name):
    reach = restrict({**ASKED, name: "x"})
    assert name not in reach.body
    assert any(name in note for note in reach.notes)


def test_an_ordinary_request_passes_unchanged():
    request = {
        **ASKED,
        "stream": True,
        "temperature": 0.2,
        "max_tokens": 100,
        "tools": [{"type": "function", "function": {"name": "bash"}}],
        "tool_choice": "auto",
    }
    reach = restrict(request)
    assert reach.body == request
    assert reach.notes == []


@pytest.mark.parametrize(
    "kind", ["web_search", "web_search_preview", "code_interpreter", "mcp", "file_search", None, 3]
)
def test_tools_that_run_at_the_provider_are_taken_out(kind):
    reach = restrict({**ASKED, "tools": [{"type": kind}], "tool_choice": "required"})
    assert "tools" not in reach.body
    assert "tool_choice" not in reach.body
    assert len(reach.notes) == 1


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "https://evil.example/?leak=1"}},
        {"type": "image_url", "image_url": "http://evil.example/"},
        {"type": "image_url", "image_url": {"url": " DATA:x"}},
        {"type": "image_url", "image_url": {}},
        {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
        {"type": "input_image", "image_url": "https://evil.example/"},
        {"type": "video_url", "video_url": {"url": "https://evil.example/"}},
        {"type": "file", "file": {"file_id": "file-123"}},
        {"type": "file", "file": {"file_url": "https://evil.example/"}},
        {"type": "file", "file": {"file_data": "x", "file_id": "file-123"}},
        {"type": "input_file", "file_url": "https://evil.example/"},
    ],
)
def test_content_by_address_or_id_is_refused(part):
    with pytest.raises(ReachRefused, match="data"):
        restrict(asked_with(part))


@pytest.mark.parametrize(
    "part",
    [
        {"type": "text", "text": "look at https://example.org/"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
        {
            "type": "file",
            "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,x"},
        },
    ],
)
def test_content_that_is_here_passes(part):
    assert restrict(asked_with(part)).notes == []


def test_shapes_that_make_no_sense_do_not_break_the_table():
    restrict({"messages": [None, 1, {"content": 3}, {"content": [None, 1, {}]}], "tools": "x"})
