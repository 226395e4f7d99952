from __future__ import annotations

import io
import json
import logging

import pytest
import structlog

from devaipod_web import logging as ours


@pytest.fixture
def lines():
    root = logging.getLogger()
    before = (root.handlers[:], root.level, structlog.get_config())
    out = io.StringIO()
    ours.configure(form="json", level="INFO", stream=out)
    yield lambda: [json.loads(line) for line in out.getvalue().splitlines()]
    root.handlers[:], level, config = before
    root.setLevel(level)
    structlog.configure(**config)


#: As `gateway.tokens.mint` makes them; fixed, since test names are made of it.
TOKEN = "q3Vh0xUO4mWc-GZr_8bJtY1nLk5sEdPaF7uQw2iRzX9"


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {TOKEN}",
        f"Bearer {TOKEN[:20]}",
        f"GET /sign-in/{TOKEN}/ HTTP/1.1",
        f"/sign-in/{TOKEN[:22]}",
        f"the token {TOKEN} was used",
        "key sk-proj-abcdefghijklmnopqrstuvwx",
        f"dvp_{TOKEN}",
        "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "AIzaSyA1234567890abcdefghijklmnopqrstu",
        "https://ada:hunter2hunter2@forge.example/x.git",
        f"https://api.example/v1?key={TOKEN[:12]}",
    ],
)
def test_a_secret_in_a_text_is_masked(lines, text):
    structlog.get_logger("t").info("something", detail=text, nested={"a": [text]})
    logging.getLogger("library").warning("says %s", text)
    written = json.dumps(lines())
    for secret in (TOKEN, TOKEN[:20], TOKEN[:12], "hunter2", "abcdefghijklmnop", "AIzaSy"):
        assert secret not in written or secret not in text
    assert "[masked]" in written


@pytest.mark.parametrize(
    "name", ["token", "password", "api_key", "data_token", "Authorization", "credential"]
)
def test_a_field_with_a_secrets_name_is_masked_whatever_it_holds(lines, name):
    structlog.get_logger("t").info("something", **{name: "short"}, nested={name: b"short"})
    assert "short" not in json.dumps(lines())


def test_what_is_no_secret_stays(lines):
    facts = {
        "head": "8e199c176890b52b48656d11dbf2a9e74b4c57e3",
        "digest": "a" * 64,
        "pod": "devaipod-payments-abcdefghij-1",
        "run": "abcdefghij",
        "tokens_in": 7,
        "path": "/runs/abcdefghij/",
    }
    structlog.get_logger("t").info("something", **facts)
    assert facts.items() <= lines()[0].items()


def test_a_traceback_is_masked_too(lines):
    try:
        raise ValueError(f"bad token {TOKEN}")
    except ValueError:
        structlog.get_logger("t").exception("broke")
    assert TOKEN not in json.dumps(lines())
    assert "ValueError" in lines()[0]["exception"]


def test_a_text_from_outside_begins_no_line_of_its_own():
    out = io.StringIO()
    root = logging.getLogger()
    before = (root.handlers[:], root.level, structlog.get_config())
    try:
        ours.configure(form="console", level="INFO", stream=out)
        structlog.get_logger("t").info("said", text="a\n2026-01-01 [info] forged\rb")
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        structlog.configure(**before[2])
    assert len(out.getvalue().splitlines()) == 1


def test_run_and_pod_are_bound_to_every_line(lines):
    with structlog.contextvars.bound_contextvars(run="abcdefghij", pod="p"):
        structlog.get_logger("t").info("something")
        logging.getLogger("library").warning("too")
    assert [(line["run"], line["pod"]) for line in lines()] == [("abcdefghij", "p")] * 2
