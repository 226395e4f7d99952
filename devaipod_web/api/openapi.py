"""The OpenAPI document: the framework's, with what it does not know.

`operation` declares through `extra` what an operation can answer besides its own schema; `document` puts the whole together.
Every body and answer gets an example made of the examples of its fields, so that they are written once, beside the fields.
"""

from __future__ import annotations

import json
from http.client import responses as REASONS
from typing import Any

from ninja import Schema
from ninja.openapi.schema import REF_TEMPLATE
from pydantic.json_schema import models_json_schema

from devaipod_web.api.problems import CONTENT_TYPE as PROBLEM
from devaipod_web.api.problems import TITLES, URN
from devaipod_web.api.schemas.common import FieldProblem, ProblemOut

Node = dict[Any, Any]

WHY = {
    400: "The request breaks a rule: the problem says which.",
    401: "No token, or one that is unknown, expired or revoked.",
    403: "The role, or the token's project, does not allow it.",
    404: "There is nothing of this name, or nothing that the caller may see.",
    409: "Not possible now: the problem says what is in the way.",
    410: "It was there and is gone.",
    413: "The body or the answer would be too large.",
    422: "The request does not have the form that is described here; `errors` names each place.",
    500: "A fault of the server.",
    502: "Another service refused.",
    503: "Something that this needs does not answer now.",
    504: "Another service took too long.",
}

TAGS = {
    "status": "This installation and the caller.",
    "services": "The control plane's own parts, and taking the whole into and out of work.",
    "projects": "Repositories that agents work on, and their settings.",
    "providers": "Where models are reached. Their keys go in and never come out.",
    "targets": "Where pods run: podman and clusters. Kubeconfigs go in and never come out.",
    "routes": "Which provider takes a model, and who is asked when it fails.",
    "prices": "What models cost where the price list does not say it.",
    "runs": "Tasks given to agents: launch, watch, unblock, stop.",
    "pods": "The attempts of runs, and their containers' logs.",
    "reviews": "What runs staged: read, promote, reject.",
    "webhooks": "Addresses that are told what happens, and what was sent to them.",
    "usage": "What the calls to models came to.",
    "budgets": "What may be spent, what was, and the incidents that wait for a manager.",
    "tokens": "API tokens of the caller's own.",
    "retention": "What is kept of ended runs, and for how long.",
}

#: Schemas that no view returns through the framework: problems, and lines of streams.
_models: dict[str, type[Schema]] = {"ProblemOut": ProblemOut}


def extra(
    *,
    problems: list[int],
    media: dict[str, type[Schema] | None],
    headers: dict[str, str],
    once: bool,
) -> Node:
    """What `operation` adds to an operation of the document."""
    responses: Node = {
        status: {"$ref": f"#/components/responses/Problem{status}"} for status in problems
    }
    if media:
        content = {
            name: {"schema": _reference(model) if model else {"type": "string"}}
            for name, model in media.items()
        }
        responses[200] = {"description": "OK", "content": content}
    if headers:
        responses.setdefault(200, {})["headers"] = {
            name: {"description": text, "schema": {"type": "string"}}
            for name, text in headers.items()
        }
    if not once:
        return {"responses": responses}
    return {
        "responses": responses,
        "parameters": [
            {
                "in": "header",
                "name": "Idempotency-Key",
                "required": False,
                "description": "The same key with the same request within 24 hours gives the same answer, and nothing is made twice.",
                "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
                "example": "0c7a3c62-5f6a-4f0e-9d55-0f5c8f0f2a11",
            }
        ],
    }


def _reference(model: type[Schema]) -> Node:
    _models[model.__name__] = model
    return {"$ref": REF_TEMPLATE.format(model=model.__name__)}


def document() -> Node:
    """The whole document, as it is served and committed."""
    from devaipod_web.api.app import api

    found: Node = json.loads(json.dumps(api.get_openapi_schema(), default=str))
    schemas: Node = found["components"]["schemas"]
    _, more = models_json_schema(
        [(model, "serialization") for model in _models.values()], ref_template=REF_TEMPLATE
    )
    schemas.update(more.get("$defs", {}))
    _drop_titles(found)
    found["components"]["securitySchemes"] = {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "An API token (`dvp_…`). The browser's session counts as well; then a method that changes "
            "something needs `X-CSRFToken`.",
        }
    }
    for methods in found["paths"].values():
        for operation in methods.values():
            operation["security"] = [{"bearer": []}]
            _add_examples(schemas, operation)
    _add_links(found["paths"])
    found["components"]["responses"] = {
        f"Problem{status}": _problem(schemas, status) for status in WHY
    }
    used = {tag for path in found["paths"].values() for op in path.values() for tag in op["tags"]}
    found["tags"] = [{"name": name, "description": TAGS.get(name, "")} for name in _in_order(used)]
    # Schemas of query parameters stand in the operations themselves.
    used_schemas = _used(schemas, {**found, "components": {**found["components"], "schemas": {}}})
    found["components"]["schemas"] = {name: schemas[name] for name in sorted(used_schemas)}
    return found


def _used(schemas: Node, node: Any) -> set[str]:
    """The schemas that a part of the document refers to, and those that they refer to."""
    names: set[str] = set()
    waiting = [node]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, dict):
            name = str(part.get("$ref", "")).removeprefix("#/components/schemas/")
            if name in schemas and name not in names:
                names.add(name)
                waiting.append(schemas[name])
            waiting += part.values()
    return names


def text() -> str:
    """The document as it is committed: docs/openapi.json."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


def _in_order(tags: set[str]) -> list[str]:
    known = [name for name in TAGS if name in tags]
    return [*known, *sorted(tags - set(known))]


def _drop_titles(node: Any) -> None:
    """The framework titles each field by its name; that says nothing."""
    if isinstance(node, list):
        for item in node:
            _drop_titles(item)
    elif isinstance(node, dict):
        if isinstance(node.get("title"), str) and not {"version", "status"} & set(node):
            del node["title"]
        for name, item in node.items():
            if name not in ("example", "examples", "default"):
                _drop_titles(item)


def _add_links(paths: Node) -> None:
    """Say of what a POST makes which operations take its name: those whose address goes on from the POST's."""
    for path, methods in paths.items():
        made = methods.get("post", {}).get("responses", {}).get("201")
        if made is None:
            continue
        links: Node = {}
        for below, others in paths.items():
            # "/runs/{key}/stop" goes on from "/runs" by what the answer calls `key`.
            rest = below.removeprefix(f"{path}/{{")
            if rest == below:
                continue
            name = rest.partition("}")[0]
            for operation in others.values():
                links[operation["operationId"]] = {
                    "operationId": operation["operationId"],
                    "parameters": {name: f"$response.body#/{name}"},
                }
        made["links"] = links


def _add_examples(schemas: Node, operation: Node) -> None:
    contents = [operation.get("requestBody", {}).get("content", {})]
    contents += [answer.get("content", {}) for answer in operation["responses"].values()]
    for content in contents:
        for media, described in content.items():
            if media == "text/plain":
                described["example"] = "listening on 127.0.0.1:8400\n"
            elif media == "text/x-diff":
                described["example"] = DIFF_EXAMPLE
            elif media == "text/csv":
                described["example"] = CSV_EXAMPLES[operation["operationId"]]
            else:
                described["example"] = example(schemas, described["schema"])


def _problem(schemas: Node, status: int) -> Node:
    """The answer of a problem with this status, which operations refer to."""
    code, detail = PROBLEMS[status]
    shown = {
        "type": URN + code,
        "title": TITLES.get(status, REASONS[status]),
        "status": status,
        "detail": detail,
    }
    if status == 422:
        shown["errors"] = example(schemas, {"type": "array", "items": _reference(FieldProblem)})
    answer: Node = {
        "description": WHY[status],
        "content": {PROBLEM: {"schema": _reference(ProblemOut), "example": shown}},
    }
    if status == 401:
        answer["headers"] = {
            "WWW-Authenticate": {
                "description": "How to say who one is: Bearer.",
                "schema": {"type": "string"},
            }
        }
    return answer


DIFF_EXAMPLE = """diff --git a/hooks.py b/hooks.py
--- a/hooks.py
+++ b/hooks.py
@@ -1 +1 @@
-send(hook)
+send(hook, attempts=5)
"""

#: The first lines of each file for spreadsheets.
CSV_EXAMPLES = {
    "usage_series": (
        "day,project,calls,failed_calls,tokens_in,tokens_cached,tokens_out,cost,unpriced_calls,uncounted_calls,estimated_calls\r\n"
        "2026-11-24,payments,118,2,184200,120000,9300,0.418345000000,0,0,0\r\n"
    ),
    "usage_calls": (
        "at,run,project,owner,agent,model,provider,form,status,milliseconds,first_byte_milliseconds,tokens_in,tokens_cached,"
        "tokens_cache_written,tokens_out,tokens_reasoning,cost,unpriced,estimated,error\r\n"
        "2026-11-24T20:14:03.512000+00:00,b7kq2mx4dz,payments,alice,opencode,gpt-5-codex,Acme,openai-chat,200,5120,840,18000,"
        "12000,0,900,300,0.018345000000,no,no,\r\n"
    ),
}

#: A code and a sentence for each status, as examples.
PROBLEMS: dict[int, tuple[str, str]] = {
    400: ("bad-body", "The body is not JSON: Expecting value: line 1 column 1 (char 0)"),
    401: ("token-refused", "The token is unknown, expired or revoked."),
    403: ("role-needed", "This needs the role operator; Vera has viewer."),
    404: ("not-found", "There is no run 'b7kq2mx4dz'."),
    409: ("not-now", "The run has ended already: it was stopped."),
    410: ("repository-gone", "The run's repository is no longer there."),
    413: ("too-large", "A request's body has at most 2,097,152 bytes."),
    422: ("invalid-request", "wall_seconds: It must lie between 60 and 604,800 seconds."),
    500: ("internal", "The server failed to answer; what was asked for may or may not be done."),
    502: ("push-refused", "The production forge refused the push."),
    503: ("backend-unavailable", "podman's API service does not answer."),
    504: ("git-timed-out", "git took longer than it may."),
}


def example(schemas: Node, node: Node) -> Any:
    """An example of a schema: its own first one, its default, or one made of its fields'."""
    if "$ref" in node:
        return example(schemas, schemas[node["$ref"].rsplit("/", 1)[-1]])
    if node.get("examples"):
        return node["examples"][0]
    if "default" in node and not node.get("properties"):
        return node["default"]
    if "const" in node:
        return node["const"]
    if node.get("enum"):
        return node["enum"][0]
    for choice in node.get("anyOf", ()):
        return example(schemas, choice)
    if node.get("type") == "array":
        return [example(schemas, node["items"])]
    if node.get("type") == "object" or "properties" in node:
        return {name: example(schemas, item) for name, item in node.get("properties", {}).items()}
    return {"string": "", "integer": 0, "number": 0, "boolean": False, "null": None}.get(
        str(node.get("type"))
    )
