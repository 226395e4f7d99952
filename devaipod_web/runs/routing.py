"""The browsers' websockets: path → consumer. Each stands in the permission table under its `ws:` name."""

from __future__ import annotations

from typing import Any

from django.urls import re_path

from devaipod_web.api.exec import TerminalConsumer
from devaipod_web.runs.consumers import LogConsumer, RunConsumer, WakeConsumer

websocket_urlpatterns: list[Any] = [
    re_path(r"^ws/runs/(?P<key>[a-z2-7]{10})/$", RunConsumer.as_asgi(), name="ws:run"),
    re_path(
        r"^ws/runs/(?P<key>[a-z2-7]{10})/logs/(?P<pod>[a-z0-9-]{1,63})/(?P<container>[a-z0-9-]{1,63})/$",
        LogConsumer.as_asgi(),
        name="ws:logs",
    ),
    re_path(r"^ws/wakes/$", WakeConsumer.as_asgi(), name="ws:wakes"),
    re_path(
        r"^api/devaipod/pods/(?P<name>[a-z0-9-]{1,63})/exec$",
        TerminalConsumer.as_asgi(),
        name="ws:exec",
    ),
]
