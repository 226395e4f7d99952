"""The OpenAPI document: committed as it is, complete, and true in its examples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

from devaipod_web import home
from devaipod_web.accounts.permissions import ROUTES, Permission
from devaipod_web.api.openapi import TAGS, document, text
from devaipod_web.management.commands.openapi import PATH

DOCUMENT = document()
COMPONENTS = {"components": DOCUMENT["components"]}
OPERATIONS = {
    operation["operationId"]: (method, path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}


def test_the_committed_document_is_the_codes():
    assert PATH.read_text() == text(), (
        f"{PATH.relative_to(home.ROOT)} is not what the code says: write it anew with `make openapi`, "
        "look at the difference, and commit it."
    )


def test_the_document_is_the_same_twice():
    assert text() == text()


def test_every_operation_of_the_permission_table_is_described_by_its_id():
    listed = {name.removeprefix("api:") for name in ROUTES if name.startswith("api:")}
    # The document does not describe itself.
    assert set(OPERATIONS) == listed - {"openapi"}


def test_every_operation_has_a_summary_a_description_and_a_known_tag():
    for name, (_, _, operation) in OPERATIONS.items():
        assert 3 < len(operation["summary"]) < 60, name
        assert operation["description"].startswith(operation["summary"]), name
        assert set(operation["tags"]) <= set(TAGS), name
    for tag in DOCUMENT["tags"]:
        assert tag["description"], tag


def test_every_operation_says_how_it_can_be_refused():
    for name, (method, _, operation) in OPERATIONS.items():
        statuses = set(operation["responses"])
        assert {"400", "401", "403", "422", "500"} <= statuses, name
        if ROUTES[f"api:{name}"] is not Permission.SELF or "{" in operation:
            assert "404" in statuses, name
        if method in ("post", "put", "patch"):
            assert "413" in statuses, name
        for status in statuses:
            if int(status) >= 400:
                answer = operation["responses"][status]
                assert answer == {"$ref": f"#/components/responses/Problem{status}"}, name
    for answer in DOCUMENT["components"]["responses"].values():
        assert set(answer["content"]) == {"application/problem+json"}


def fields() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        for field, described in schema.get("properties", {}).items():
            yield f"{name}.{field}", described
    for name, (_, path, operation) in OPERATIONS.items():
        for parameter in operation["parameters"]:
            if parameter["in"] != "path":
                yield f"{name} {path} {parameter['name']}", parameter


def test_every_field_and_parameter_is_described():
    assert not [name for name, described in fields() if len(described.get("description", "")) < 5]


def test_every_schema_says_what_it_is():
    for name, schema in DOCUMENT["components"]["schemas"].items():
        assert schema.get("description"), name


def test_every_field_of_a_body_or_answer_has_an_example():
    for name, schema in DOCUMENT["components"]["schemas"].items():
        for field, described in schema.get("properties", {}).items():
            nested = {"$ref", "items", "anyOf"} & set(described)
            assert "examples" in described or nested, f"{name}.{field}"


def contents() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name, (_, _, operation) in OPERATIONS.items():
        for media, content in operation.get("requestBody", {}).get("content", {}).items():
            yield f"{name} body", media, content
        for status, answer in operation["responses"].items():
            for media, content in answer.get("content", {}).items():
                yield f"{name} {status}", media, content
    for name, answer in DOCUMENT["components"]["responses"].items():
        for media, content in answer["content"].items():
            yield name, media, content


@pytest.mark.parametrize(
    ("name", "media", "content"), [pytest.param(*found, id=found[0]) for found in contents()]
)
def test_the_example_of_every_body_and_answer_is_one(name, media, content):
    validator = jsonschema_rs.validator_for(
        {**content["schema"], **COMPONENTS}, validate_formats=True
    )
    validator.validate(content["example"])
    assert content["example"] not in ({}, "", None), name


def test_streams_and_diffs_say_their_media_types():
    def media(name: str) -> set[str]:
        return set(OPERATIONS[name][2]["responses"]["200"]["content"])

    assert media("run_events") == {"application/x-ndjson"}
    assert media("pod_logs") == {"application/x-ndjson", "text/plain"}
    assert media("review_diff") == {"text/x-diff"}
    assert "X-Devaipod-Head" in OPERATIONS["review_diff"][2]["responses"]["200"]["headers"]


def test_a_secret_goes_in_and_is_in_no_answer():
    schemas = DOCUMENT["components"]["schemas"]
    with_credential = {name for name in schemas if "credential" in schemas[name]["properties"]}
    assert with_credential == {"ProviderIn", "ProviderChanges"}
    assert {name for name in schemas if "token" in schemas[name]["properties"]} == {"TokenMade"}
