"""The orchestrators' operations: one of the API and one of the command each, and a table in the docs that says so."""

from __future__ import annotations

import re

import typer.main

from devaipod_web.accounts.permissions import ROUTES
from devaipod_web.api.app import api
from devaipod_web.api.verbs import VERBS
from devaipod_web.cli.main import app
from tests.docs.test_docs import page, verbs

#: Named by the table and being built elsewhere: to be emptied when they are there.
NAMES = [
    *("Setup", "Status", "Teardown", "ListServices", "RestartService", "RunAgent"),
    *("CreateAgentPod", "ListAgentPods", "AttachAgentPod", "StreamAgentLogs", "StopAgentPod"),
    *("DestroyAgentPod", "ListPendingReviews", "ReviewDiff", "Promote"),
]


def operations() -> set[str]:
    """Operation ids of the OpenAPI document; that of exec is a websocket, which no such document holds."""
    ids = {
        operation["operationId"]
        for methods in api.get_openapi_schema()["paths"].values()
        for operation in methods.values()
    }
    return ids | {"pod_exec"} if "ws:exec" in ROUTES else ids


def test_every_operation_of_the_design_is_in_the_table_once() -> None:
    assert [verb.name for verb in VERBS] == NAMES
    assert len({verb.operation for verb in VERBS}) == len(VERBS)
    assert len({verb.cli for verb in VERBS}) == len(VERBS)


def test_every_operation_is_in_the_openapi_document() -> None:
    missing = {verb.operation for verb in VERBS} - operations()
    assert not missing


def test_every_verb_is_in_the_command() -> None:
    assert typer.main.get_command(app) is not None
    missing = {verb.cli for verb in VERBS} - {verb.removeprefix("devaipod ") for verb in verbs()}
    assert not missing


def test_the_docs_show_the_table() -> None:
    rows = re.findall(r"^\| (\w+) \| `(\w+)` \| `devaipod ([a-z -]+)` \|", page("orchestrators.md"), re.MULTILINE)  # fmt: skip
    assert rows == [tuple(verb) for verb in VERBS]
