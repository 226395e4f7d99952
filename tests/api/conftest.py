"""Callers of the API: `call(alice)` sends with a token of hers, in process."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.test import Client

from devaipod_web.accounts import tokens
from devaipod_web.accounts.models import User

ROOT = "/api/devaipod"


class Caller:
    """One person's calls with a bearer token."""

    def __init__(self, user: User) -> None:
        self.user = user
        self.token_row, self.token = tokens.create(user, "tests")
        self.client = Client()

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        return self.client.generic(
            method,
            ROOT + path,
            json.dumps(body) if body is not None else "",
            content_type="application/json",
            headers={"Authorization": f"Bearer {self.token}", **headers},
        )

    def get(self, path: str, **headers: str) -> Any:
        return self("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        return self("POST", path, body, **headers)


@pytest.fixture
def call(db: None) -> Callable[[User], Caller]:
    return Caller


def streamed(response: Any) -> list[dict[str, Any]]:
    """The documents of a streaming answer."""

    async def collect() -> bytes:
        return b"".join([chunk async for chunk in response.streaming_content])

    return [json.loads(line) for line in async_to_sync(collect)().splitlines() if line.strip()]


def problem(response: Any, status: int, code: str) -> dict[str, Any]:
    """Assert that the answer is this problem document, and return it."""
    assert response.status_code == status, response.content
    assert response.headers["Content-Type"] == "application/problem+json"
    found: dict[str, Any] = json.loads(response.content)
    assert found["type"] == f"urn:devaipod:problem:{code}"
    assert found["status"] == status
    assert found["detail"]
    return found
