"""The page of webhooks against the code: kinds, payloads, schedule, and the snippets that verify."""

from __future__ import annotations

import json
import re
import time
from datetime import timedelta
from typing import Any

import pytest

from devaipod_web.webhooks import kinds, schedule, signing
from devaipod_web.webhooks.kinds import KINDS, Kind, envelope
from tests.docs.test_docs import DOCS, page, rows

PAGE = "use/webhooks.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for name, text in BLOCK.findall(page(PAGE)) if name == language]


def examples() -> dict[str, dict[str, Any]]:
    """Kind → the example below its heading."""
    found = {}
    for part in page(PAGE).split("\n### ")[1:]:
        head = part.split("\n", 1)[0].strip()
        (text, *_) = [text for name, text in BLOCK.findall(part) if name == "json"]
        found[head] = json.loads(text)
    return found


def test_every_kind_has_a_row_and_an_example_and_no_other_has():
    listed = {name for name in rows(PAGE) if re.fullmatch(r"[a-z]+\.[a-z]+", name)}
    assert listed == set(KINDS)
    assert set(examples()) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_an_example_is_what_is_sent_field_for_field(kind: Kind):
    example = examples()[kind]
    assert example["type"] == kind
    model = envelope(kind).model_validate(example)
    assert model.model_dump(mode="json", by_alias=True)["data"] == example["data"]


def test_the_schema_that_is_published_is_the_one_of_the_code():
    # python -c "…; print(json.dumps(kinds.schema(), indent=2))" with DJANGO_SETTINGS_MODULE=tests.settings
    stored = json.loads((DOCS / "use/webhooks.schema.json").read_text())
    assert stored == json.loads(json.dumps(kinds.schema()))


def test_the_schedule_on_the_page_is_the_one_that_is_kept():
    listed = rows(PAGE)
    units = {"seconds": "seconds", "minutes": "minutes", "hours": "hours"}
    delays = []
    for number in range(2, schedule.ATTEMPTS + 1):
        amount, unit = listed[str(number)][0].split()
        delays.append(timedelta(**{units[unit]: int(amount)}))
    assert tuple(delays) == schedule.DELAYS
    assert listed["1"][0] == "at once"
    assert str(schedule.ATTEMPTS + 1) not in listed


@pytest.mark.parametrize("snippet", blocks("python"), ids=["plain", "package"])
def test_a_snippet_verifies_what_we_sign_and_refuses_what_we_did_not(snippet: str):
    space: dict[str, Any] = {}
    exec(compile(snippet, PAGE, "exec"), space)
    verified = space["verified"]
    old, secret = signing.new_secret(), signing.new_secret()
    body = json.dumps(examples()["run.state"], ensure_ascii=False)
    now = int(time.time())

    def signed(timestamp: int = now, secrets: tuple[str, ...] = (secret,)) -> dict[str, str]:
        return signing.headers("abcdefghij", timestamp=timestamp, body=body, secrets=secrets)

    assert verified(secret, signed(), body.encode())["type"] == "run.state"
    both = signed(secrets=(secret, old))
    assert verified(old, both, body.encode()) == verified(secret, both, body.encode())
    wrong = [
        (old, signed(), body),
        (secret, signed(), body + " "),
        (secret, {**signed(), "webhook-id": "another"}, body),
        (secret, signed(timestamp=now - 1000), body),
        (secret, {**signed(), "webhook-timestamp": str(now + 1)}, body),
    ]
    for key, headers, text in wrong:
        with pytest.raises(Exception, match=r"too old|not signed|[Nn]o matching|too new"):
            verified(key, headers, text.encode())


def test_there_are_two_snippets():
    assert len(blocks("python")) == 2
