"""The tables of what a request may reach beyond the model, form by form."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from devaipod_web.llm.errors import RequestRefused
from devaipod_web.llm.forms import FORMS, Action, Body
from tests.llm.languages import LANGUAGES

BY_NAME = {form.name: form for form in FORMS}
DATA = "data:image/png;base64,iVBORw0KGgo="
ELSEWHERE = "https://evil.example/?leak=1"


def read(name: str, request: dict, *, count: bool = False):
    """What the gateway does to a request: the body as it goes on, what was noted, and what it asks for."""
    form = BY_NAME[name]
    action = Action.COUNT if count else Action.GENERATE
    door = next(d for d in form.doors if d.action is action)
    path = "/llm/v1beta/models/x:countTokens" if count else "/llm/v1beta/models/x:generateContent"
    body = Body(json.dumps(request).encode())
    asked = form.asked(door, re.fullmatch(door.path, path), "", body)
    notes = form.restrict(body)
    return json.loads(body.data()), notes, asked


def cases(kind: str):
    return [
        pytest.param(form.name, name, id=f"{form.name}-{name}")
        for form in FORMS
        for name in sorted(getattr(form.table, kind))
    ]


@pytest.mark.parametrize(("form", "name"), [*cases("refused"), *cases("costly")])
def test_a_field_that_reaches_further_or_whose_cost_is_unknown_is_refused_by_name(form, name):
    request = LANGUAGES[form].request()
    with pytest.raises(RequestRefused, match=name):
        read(form, {**request, name: {"x": 1}})


@pytest.mark.parametrize(("form", "name"), [*cases("refused"), *cases("costly")])
def test_the_same_field_left_empty_passes_without_it(form, name):
    body, notes, _ = read(form, {**LANGUAGES[form].request(), name: None})
    assert name not in body
    assert notes == []


@pytest.mark.parametrize(("form", "name"), cases("taken_out"))
def test_a_field_that_is_sent_unasked_is_taken_out_and_said(form, name):
    body, notes, _ = read(form, {**LANGUAGES[form].request(), name: "x"})
    assert name not in body
    assert any(name in note for note in notes)


@pytest.mark.parametrize("form", [name for name in LANGUAGES if name != "gemini"])
@pytest.mark.parametrize(
    "spelling", ["Model", "STREAM", "s_tream", "\u017ftream", "mcpServers", "N"]
)
def test_a_name_that_servers_may_read_as_another_is_refused(form, spelling):
    with pytest.raises(RequestRefused, match="spelling"):
        read(form, {**LANGUAGES[form].request(), spelling: 1})


@pytest.mark.parametrize("name", sorted(LANGUAGES))
def test_an_ordinary_request_passes_unchanged(name):
    request = {**LANGUAGES[name].request(), "temperature": 0.2, "invented_tomorrow": {"a": [1]}}
    body, notes, _ = read(name, request)
    assert body == ({**request, "store": False} if name == "openai-responses" else request)
    assert notes == []


def test_responses_are_never_stored():
    request = LANGUAGES["openai-responses"].request()
    body, notes, _ = read("openai-responses", {**request, "store": True})
    assert body["store"] is False
    assert "store" in notes[0]
    body, notes, _ = read("openai-responses", {**request, "store": False})
    assert body["store"] is False
    assert notes == []


OWN = {"type": "function", "name": "bash", "parameters": {}}
UNHASHABLE: list[Any] = [{}, []]
FOREIGN_TOOLS: dict[str, list[Any]] = {
    "openai-chat": [
        {"type": t} for t in ("web_search", "code_interpreter", "mcp", None, 3, *UNHASHABLE)
    ],
    "openai-responses": [
        *({"type": t} for t in ("web_search", "web_search_preview", "file_search", "mcp")),
        *({"type": t} for t in ("code_interpreter", "image_generation", None, *UNHASHABLE)),
        {"type": "shell", "environment": {"type": "container_auto"}},
        {"type": "namespace", "name": "x", "tools": [OWN, {"type": "web_search"}]},
    ],
    "anthropic-messages": [
        *({"type": t} for t in ("web_search_20250305", "web_fetch_20250910", 3)),
        *({"type": t} for t in ("code_execution_20250825", "mcp_toolset", "bash", "")),
    ],
    "gemini": [
        *({t: {}} for t in ("googleSearch", "google_search", "urlContext", "codeExecution")),
        *({t: {}} for t in ("googleMaps", "fileSearch", "invented")),
        3,
    ],
}
OWN_TOOLS: dict[str, list[Any]] = {
    "openai-chat": [
        {"type": "function", "function": {"name": "bash"}},
        {"function": {"name": "x"}},
    ],
    "openai-responses": [
        OWN,
        {"type": "custom", "name": "apply"},
        {"type": "local_shell"},
        {"type": "shell"},
        {"type": "namespace", "name": "x", "tools": [OWN]},
        {"type": "tool_search", "execution": "client", "parameters": {}},
    ],
    "anthropic-messages": [
        {"name": "Bash", "input_schema": {}},
        {"type": "custom", "name": "Read", "input_schema": {}},
        {"type": "bash_20250124", "name": "bash"},
        {"type": "text_editor_20250728", "name": "edit"},
        {"type": "tool_search_tool_regex_20251119", "name": "find"},
    ],
    "gemini": [{"functionDeclarations": [{"name": "a"}]}, {"function_declarations": []}],
}


@pytest.mark.parametrize(
    ("form", "tool"),
    [pytest.param(form, tool, id=f"{form}-{i}") for form in FOREIGN_TOOLS for i, tool in enumerate(FOREIGN_TOOLS[form])],
)  # fmt: skip
def test_tools_that_run_at_the_provider_are_taken_out(form, tool):
    request = {**LANGUAGES[form].request(), "tools": [OWN_TOOLS[form][0], tool]}
    body, notes, _ = read(form, request)
    assert body["tools"] == [OWN_TOOLS[form][0]]
    assert len(notes) == (0 if tool == 3 and form == "gemini" else 1)
    choice = {} if form == "gemini" else {"tool_choice": "required"}
    body, _, _ = read(form, {**request, "tools": [tool], **choice})
    assert "tools" not in body
    assert "tool_choice" not in body


@pytest.mark.parametrize("form", sorted(OWN_TOOLS))
def test_tools_that_run_in_the_agent_pass(form):
    request = {**LANGUAGES[form].request(), "tools": OWN_TOOLS[form]}
    body, notes, _ = read(form, request)
    assert body["tools"] == OWN_TOOLS[form]
    assert notes == []


def test_a_choice_of_a_tool_that_is_gone_goes_with_it():
    tools = [OWN, {"type": "web_search"}]
    request = LANGUAGES["openai-responses"].request(tools=tools, tool_choice={"type": "web_search"})
    assert "tool_choice" not in read("openai-responses", request)[0]


def test_a_choice_goes_by_the_name_of_a_tool_that_is_gone_too():
    search = {"type": "web_search_20250305", "name": "web_search"}
    request = LANGUAGES["anthropic-messages"].request(
        tools=[{"name": "Bash", "input_schema": {}}, search],
        tool_choice={"type": "tool", "name": "web_search"},
    )
    assert "tool_choice" not in read("anthropic-messages", request)[0]


@pytest.mark.parametrize(
    ("form", "spelling"),
    [("openai-chat", "promptCacheKey"), ("openai-responses", "promptCacheKey"), ("anthropic-messages", "Metadata")],
)  # fmt: skip
def test_what_is_taken_out_is_so_in_every_spelling(form, spelling):
    body, notes, _ = read(form, {**LANGUAGES[form].request(), spelling: "x"})
    assert spelling not in body
    assert len(notes) == 1


def test_a_summary_that_the_provider_would_write_uncounted_is_taken_out():
    clear = {"type": "clear_tool_uses_20250919"}
    compact = {"type": "compact_20260112", "trigger": {"type": "input_tokens", "value": 50_000}}
    ask = LANGUAGES["anthropic-messages"].request
    body, notes, _ = read("anthropic-messages", ask(context_management={"edits": [clear, compact]}))
    assert body["context_management"] == {"edits": [clear]}
    assert len(notes) == 1
    body, _, _ = read("anthropic-messages", ask(context_management={"edits": [compact]}))
    assert "context_management" not in body
    body, notes, _ = read("anthropic-messages", ask(context_management={"edits": [clear]}))
    assert body["context_management"] == {"edits": [clear]}
    assert notes == []


def test_thinking_between_calls_of_tools_may_go_beyond_the_limit_and_is_reserved():
    ask = LANGUAGES["anthropic-messages"].request
    for budget, beyond in ((500, 0), (999, 0), (1000, 1000), (60_000, 60_000)):
        thinking = {"type": "enabled", "budget_tokens": budget}
        assert read("anthropic-messages", ask(thinking=thinking))[2].output_beyond == beyond


@pytest.mark.parametrize("written", ['"1h"', '"1\\u0068"'])
@pytest.mark.parametrize("name", ['"ttl"', '"t\\u0074l"'])
def test_a_cache_for_an_hour_is_seen_however_it_is_written(name, written):
    form = BY_NAME["anthropic-messages"]
    raw = '{"max_tokens": 9, "messages": [], "system": [{"type": "text", "text": "x", "cache_control": {%s: %s}}]}'
    body = Body((raw % (name, written)).encode())
    match = re.fullmatch("x", "x")
    assert match is not None
    assert form.asked(form.doors[0], match, "", body).cache_hour


def test_what_is_no_picture_takes_nothing_off_the_input():
    long = [10**15] * 50
    part = {"inlineData": {"mimeType": "image/png", "data": long}}
    assert read("gemini", gemini(part))[2].picture_characters == 0
    text = {"type": "text", "media_type": "text/plain", "data": "x" * 500}
    assert read("anthropic-messages", messages(source(**text)))[2].picture_characters == 0


def test_a_gemini_model_that_draws_unasked_is_reserved_as_one_that_draws():
    for config, drawn in (
        ({}, True),
        ({"responseModalities": []}, True),
        ({"responseModalities": ["TEXT"]}, False),
    ):
        assert read("gemini", {"contents": [], "generationConfig": config})[2].media_out is drawn


@pytest.mark.parametrize(
    ("base", "model", "given", "sent"),
    [
        # A server that knows the old name alone would pass over the other and answer without a limit.
        ("https://api.deepseek.com", "deepseek-chat", {"max_completion_tokens": 1}, {"max_tokens": 1}),
        ("https://x.example/v1", "m", {"max_tokens": 5, "max_completion_tokens": 9}, {"max_tokens": 5, "max_completion_tokens": 9}),
        ("https://x.example/v1", "m", {}, {"max_tokens": 99}),
        ("https://x.example/v1", "m", {"max_tokens": None}, {"max_tokens": 99}),
        ("https://x.example/v1", "openai/gpt-5", {"max_completion_tokens": 7}, {"max_completion_tokens": 7}),
        ("https://api.openai.com/v1", "gpt-5", {}, {"max_completion_tokens": 99}),
        ("https://api.openai.com/v1", "gpt-4", {"max_tokens": 7}, {"max_tokens": 7}),
    ],
)  # fmt: skip
def test_the_limit_that_is_reserved_is_one_that_the_server_knows(base, model, given, sent):
    form = BY_NAME["openai-chat"]
    body = Body(json.dumps({"messages": [], **given}).encode())
    match = re.fullmatch("x", "x")
    assert match is not None
    asked = form.asked(form.doors[0], match, "", body)
    form.prepare(body, asked, model="other", limit=3, kind="openai", base="https://api.openai.com")
    form.prepare(body, asked, model=model, limit=99, kind="openai", base=base)
    made = json.loads(body.data())
    assert {name: made[name] for name in made if name.startswith("max")} == sent


def test_the_wish_for_counts_stands_there_once():
    form = BY_NAME["openai-chat"]
    options = {"Include_Usage": False, "include_usage": False, "x": 1}
    body = Body(json.dumps({"messages": [], "stream": True, "stream_options": options}).encode())
    match = re.fullmatch("x", "x")
    assert match is not None
    asked = form.asked(form.doors[0], match, "", body)
    form.prepare(body, asked, model="m", limit=9, kind="openai", base="https://x.example")
    assert json.loads(body.data())["stream_options"] == {"include_usage": True, "x": 1}


def test_a_gemini_tool_of_both_kinds_keeps_what_is_its_own():
    tools: list[Any] = [
        {"functionDeclarations": [{"name": "a"}], "googleSearch": {}, "urlContext": {}}
    ]
    body, notes, _ = read("gemini", LANGUAGES["gemini"].request(tools=tools))
    assert body["tools"] == [{"functionDeclarations": [{"name": "a"}]}]
    assert len(notes) == 2


def chat(part):
    return {"messages": [{"role": "user", "content": [part]}]}


def responses(part):
    return {"input": [{"role": "user", "content": [part]}]}


def messages(block):
    return {"messages": [{"role": "user", "content": [block]}], "max_tokens": 9}


def inside_a_result(block):
    return messages({"type": "tool_result", "tool_use_id": "x", "content": [block]})


def gemini(part):
    return {"contents": [{"role": "user", "parts": [part]}]}


def source(**more):
    return {"type": "image", "source": more}


ADDRESSES = [
    ("openai-chat", chat({"type": "image_url", "image_url": {"url": ELSEWHERE}})),
    ("openai-chat", chat({"type": "image_url", "image_url": "http://evil.example/"})),
    ("openai-chat", chat({"type": "image_url", "image_url": {"url": " DATA:x"}})),
    ("openai-chat", chat({"type": "image_url", "image_url": {}})),
    ("openai-chat", chat({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}})),
    ("openai-chat", chat({"type": "input_image", "image_url": ELSEWHERE})),
    ("openai-chat", chat({"type": "video_url", "video_url": {"url": ELSEWHERE}})),
    ("openai-chat", chat({"type": "file", "file": {"file_id": "file-123"}})),
    ("openai-chat", chat({"type": "file", "file": {"file_url": ELSEWHERE}})),
    ("openai-chat", chat({"type": "file", "file": {"file_data": "x", "file_id": "file-123"}})),
    ("openai-chat", chat({"type": "input_file", "file_url": ELSEWHERE})),
    ("openai-responses", responses({"type": "input_image", "image_url": ELSEWHERE})),
    ("openai-responses", responses({"type": "input_image", "file_id": "file-1"})),
    ("openai-responses", responses({"type": "input_file", "file_url": ELSEWHERE})),
    ("openai-responses", responses({"type": "input_file", "file_id": "file-1"})),
    ("openai-responses", {"input": [{"type": "item_reference", "id": "msg_1"}]}),
    (
        "openai-responses",
        {"input": [{"type": "function_call_output", "output": [{"type": "input_image", "image_url": ELSEWHERE}]}]},
    ),
    ("anthropic-messages", messages(source(type="url", url=ELSEWHERE))),
    ("anthropic-messages", messages(source(type="file", file_id="file_1"))),
    ("anthropic-messages", messages(source(type="invented", x=1))),
    ("anthropic-messages", messages({"type": "document", "source": {"type": "url", "url": ELSEWHERE}})),
    ("anthropic-messages", messages({"type": "container_upload", "file_id": "file_1"})),
    ("anthropic-messages", inside_a_result(source(type="url", url=ELSEWHERE))),
    (
        "anthropic-messages",
        messages({"type": "document", "source": {"type": "content", "content": [source(type="url", url=ELSEWHERE)]}}),
    ),
    ("anthropic-messages", {"system": [source(type="url", url=ELSEWHERE)], "messages": []}),
    ("gemini", gemini({"fileData": {"fileUri": ELSEWHERE}})),
    ("gemini", gemini({"file_data": {"file_uri": ELSEWHERE}})),
    ("gemini", {"contents": {"parts": {"fileData": {"fileUri": ELSEWHERE}}}}),
    ("gemini", {"contents": [], "system_instruction": {"parts": [{"fileData": {}}]}}),
    (
        "gemini",
        gemini({"functionResponse": {"name": "x", "response": {}, "parts": [{"fileData": {"fileUri": ELSEWHERE}}]}}),
    ),
    ("gemini", {"contents": [], "cached_content": "cachedContents/1"}),
    # Without a type, under another one, in another case: servers find content by its member.
    ("openai-chat", chat({"image_url": {"url": ELSEWHERE}})),
    ("openai-chat", chat({"type": "text", "text": "x", "image_url": {"url": ELSEWHERE}})),
    ("openai-chat", chat({"type": "text", "Type": "image_url", "Image_URL": {"url": ELSEWHERE}})),
    ("openai-chat", chat({"type": "document_url", "document_url": ELSEWHERE})),
    ("openai-chat", chat({"type": "file_url", "file_url": {"url": ELSEWHERE}})),
    ("openai-chat", chat({"type": "video", "video": [ELSEWHERE]})),
    ("openai-chat", chat({"type": "input_audio", "input_audio": ELSEWHERE})),
    ("openai-chat", chat({"type": "input_audio", "input_audio": {"data": ELSEWHERE, "format": "wav"}})),
    ("openai-chat", chat({"type": "file", "file": {"file_data": ELSEWHERE}})),
    ("openai-chat", {"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}),
    ("openai-responses", {"input": [{"id": "msg_1"}]}),
    ("openai-responses", responses({"image_url": ELSEWHERE})),
    # What stands beside a wrapped request would pass unread.
    ("gemini", {"generateContentRequest": {"contents": []}, "contents": [], "tools": [{"googleSearch": {}}]}),
    ("gemini", {"generateContentRequest": {"contents": []}, "generate_content_request": {}}),
]  # fmt: skip


@pytest.mark.parametrize(("form", "request_body"), ADDRESSES)
def test_content_by_address_or_id_is_refused(form, request_body):
    with pytest.raises(RequestRefused):
        read(form, request_body)


def test_a_count_of_tokens_hides_nothing():
    for inner in (
        gemini({"fileData": {"fileUri": ELSEWHERE}}),
        {"contents": [], "cachedContent": "cachedContents/1"},
    ):
        with pytest.raises(RequestRefused):
            read("gemini", {"generateContentRequest": inner}, count=True)
    tools: dict[str, Any] = {"contents": [], "tools": [{"googleSearch": {}}]}
    body, notes, _ = read("gemini", {"generateContentRequest": tools}, count=True)
    assert "tools" not in body["generateContentRequest"]
    assert len(notes) == 1


HERE = [
    ("openai-chat", chat({"type": "text", "text": f"look at {ELSEWHERE}"})),
    ("openai-chat", chat({"type": "image_url", "image_url": {"url": DATA}})),
    ("openai-chat", chat({"type": "file", "file": {"file_data": "data:application/pdf;base64,x"}})),
    ("openai-chat", chat({"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}})),
    ("openai-chat", {"messages": [{"role": "assistant", "content": None, "audio": None}]}),
    ("openai-responses", responses({"type": "input_image", "image_url": DATA})),
    ("openai-responses", responses({"type": "input_file", "file_data": DATA, "file_url": None, "file_id": None})),
    ("anthropic-messages", messages(source(type="base64", media_type="image/png", data="iVBO"))),
    (
        "anthropic-messages",
        messages({"type": "tool_use", "id": "a", "name": "b", "input": {"type": "image", "source": ELSEWHERE}}),
    ),
    ("gemini", gemini({"inlineData": {"mimeType": "image/png", "data": "iVBO"}})),
    ("gemini", gemini({"functionCall": {"name": "x", "args": {"fileData": ELSEWHERE}}})),
]  # fmt: skip


@pytest.mark.parametrize(("form", "request_body"), HERE)
def test_content_that_is_here_passes(form, request_body):
    body, notes, _ = read(form, request_body)
    assert {k: body[k] for k in request_body} == request_body
    assert notes == []


@pytest.mark.parametrize(
    ("form", "more", "expected"),
    [
        ("openai-chat", {"n": 3, "best_of": 5, "max_tokens": 10}, (5, 10)),
        ("openai-chat", {"max_tokens": 10, "max_completion_tokens": 20}, (1, 20)),
        ("openai-responses", {"max_output_tokens": 10}, (1, 10)),
        ("anthropic-messages", {"max_tokens": 10}, (1, 10)),
        ("gemini", {"generationConfig": {"candidateCount": 4, "maxOutputTokens": 10}}, (4, 10)),
        ("gemini", {"generation_config": {"candidate_count": 4}}, (4, None)),
    ],
)
def test_what_multiplies_the_cost_is_read(form, more, expected):
    asked = read(form, {**LANGUAGES[form].request(), **more})[2]
    assert (asked.choices, asked.output_limit) == expected


@pytest.mark.parametrize(
    ("form", "more"),
    [
        ("openai-chat", {"n": 0}),
        ("openai-chat", {"n": "3"}),
        ("openai-chat", {"n": 2.0}),
        ("openai-chat", {"n": True}),
        ("openai-chat", {"n": 10**9}),
        ("openai-chat", {"max_tokens": -1}),
        ("openai-chat", {"stream": "yes"}),
        ("openai-chat", {"service_tier": "platinum"}),
        ("openai-responses", {"max_output_tokens": 1.5}),
        ("openai-responses", {"service_tier": 3}),
        ("anthropic-messages", {"max_tokens": "10"}),
        ("anthropic-messages", {"speed": "ludicrous"}),
        ("anthropic-messages", {"inference_geo": "us"}),
        ("gemini", {"generationConfig": {"candidateCount": "4"}}),
        ("gemini", {"generationConfig": {"maxOutputTokens": 1, "max_output_tokens": 2}}),
        ("gemini", {"generationConfig": {}, "generation_config": {}}),
        ("gemini", {"service_tier": "SERVICE_TIER_X"}),
        ("gemini", {"generationConfig": {"routingConfig": {"manualMode": {"modelName": "x"}}}}),
        ("gemini", {"generation_config": {"routing_config": {"auto_mode": {}}}}),
        ("openai-chat", {"tools": [{"cache_control": {"type": "ephemeral", "ttl": "1h"}}]}),
        ("anthropic-messages", {"thinking": {"type": "enabled", "budget_tokens": "9"}}),
    ],
)
def test_a_value_whose_cost_cannot_be_known_is_refused(form, more):
    with pytest.raises(RequestRefused):
        read(form, {**LANGUAGES[form].request(), **more})


def test_shapes_that_make_no_sense_do_not_break_the_tables():
    read(
        "openai-chat",
        {"messages": [None, 1, {"content": 3}, {"content": [None, 1, {}]}], "tools": "x"},
    )
    read("openai-responses", {"input": [None, 1, {"content": 3}], "tools": {"a": 1}})
    read("anthropic-messages", {"messages": [None, 1, {"content": [None, 1, {}]}], "tools": "x"})
    read("gemini", {"contents": [None, 1, {"parts": [None, 1, {}]}, {"parts": 3}], "tools": "x"})
