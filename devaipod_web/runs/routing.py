"""The browsers' websockets: path → consumer. Each stands in the permission table under its `ws:` name."""

from __future__ import annotations

from typing import Any

websocket_urlpatterns: list[Any] = []
