"""Rows as a process writes them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from devaipod_web.health.models import ServiceBeat
from tests.api.conftest import call  # noqa: F401 - fixture
from tests.pages.conftest import page, quick_passwords  # noqa: F401 - fixtures


@pytest.fixture
def beat(db):
    """Leave what a process says of a service: `beat("gateway", "down", says="…")`; `ago` in seconds."""

    def leave(service, health="ok", *, process="host:1:1", ago=0.0, **more):
        now = timezone.now()
        fields = {
            "title": service.capitalize(),
            "kind": "listener",
            "health": health,
            "says": f"It is {health}.",
            "since": now - timedelta(minutes=5),
            "at": now - timedelta(seconds=ago),
            "restart_does": "It starts anew.",
            **more,
        }
        return ServiceBeat.objects.create(service=service, process=process, **fields)

    return leave
