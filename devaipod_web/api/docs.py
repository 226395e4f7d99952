"""The API's documentation as a page: written on the server from the OpenAPI document, no script from anywhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from devaipod_web.accounts.permissions import LEAST_ROLE, ROUTES
from devaipod_web.api.openapi import document


@dataclass(frozen=True)
class Parameter:
    """One parameter or field as the page shows it."""

    name: str
    where: str
    kind: str
    needed: bool
    default: str = ""
    about: str = ""


@dataclass(frozen=True)
class Operation:
    """One operation as the page shows it."""

    id: str
    method: str
    path: str
    summary: str
    description: str
    role: str
    answers: str
    parameters: list[Parameter] = field(default_factory=list)


def docs(request: HttpRequest) -> HttpResponse:
    """List every operation with its parameters and the role that it needs."""
    schema = document()
    groups: dict[str, list[Operation]] = {}
    for path, methods in schema["paths"].items():
        for method, found in methods.items():
            tag = (found.get("tags") or ["more"])[0]
            groups.setdefault(tag, []).append(_operation(schema, path, method, found))
    return render(
        request,
        "accounts/api_docs.html",
        {
            "groups": list(groups.items()),
            "schema": schema,
            "schema_path": "/api/devaipod/openapi.json",
        },
    )


def _operation(schema: dict[str, Any], path: str, method: str, found: dict[str, Any]) -> Operation:
    parameters = [
        Parameter(
            name=item["name"],
            where=item["in"],
            kind=_kind(item.get("schema", {})),
            needed=bool(item.get("required")),
            default=_default(item.get("schema", {})),
            about=_plain(item.get("description", "")),
        )
        for item in found.get("parameters", ())
    ]
    body = found.get("requestBody", {}).get("content", {}).get("application/json", {})
    parameters += _fields(schema, body.get("schema", {}))
    permission = ROUTES[f"api:{found['operationId']}"]
    text = str(found.get("description", ""))
    return Operation(
        id=found["operationId"],
        method=method.upper(),
        path=path,
        summary=_plain(found.get("summary", "")),
        description=_plain(text.partition("\n")[2].strip()),
        role=str(LEAST_ROLE.get(permission, "anyone signed in")),
        answers=", ".join(str(code) for code in found.get("responses", {})),
        parameters=parameters,
    )


def _plain(text: object) -> str:
    """Docstrings mark names for readers of the code; the page shows sentences."""
    return str(text).replace("`", "")


def _fields(schema: dict[str, Any], node: dict[str, Any]) -> list[Parameter]:
    node = _followed(schema, node)
    needed = set(node.get("required", ()))
    return [
        Parameter(
            name,
            "body",
            _kind(item),
            name in needed,
            _default(item),
            _plain(item.get("description", "")),
        )
        for name, item in node.get("properties", {}).items()
    ]


def _followed(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    for choice in node.get("anyOf", ()):
        if "$ref" in choice:
            node = choice
    if "$ref" in node:
        found: dict[str, Any] = schema["components"]["schemas"][node["$ref"].rsplit("/", 1)[-1]]
        return found
    return node


def _kind(node: dict[str, Any]) -> str:
    if "enum" in node:
        return ", ".join(str(word) or "empty" for word in node["enum"])
    if "anyOf" in node:
        return " or ".join(dict.fromkeys(_kind(choice) for choice in node["anyOf"]))
    if node.get("type") == "array":
        return f"list of {_kind(node.get('items', {}))}"
    return str(node.get("type", "object"))


def _default(node: dict[str, Any]) -> str:
    value = node.get("default")
    return "" if value is None or value in ("", [], False) else str(value)
