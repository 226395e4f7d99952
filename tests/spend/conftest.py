"""Pages read and forms sent as somebody."""

from __future__ import annotations

import pytest
from django.urls import reverse


@pytest.fixture
def page(client):
    """Read a page as somebody: `page(vera, "spend", query="?range=7d")`, its text."""

    def read(person, name, *args, query="", status=200):
        client.force_login(person)
        answer = client.get(reverse(name, args=args) + query)
        assert answer.status_code == status, answer.content[:2000]
        return answer.content.decode()

    return read


@pytest.fixture
def post(client):
    """Send a form as somebody; the answer as it is."""

    def send(person, name, /, *args, **data):
        client.force_login(person)
        return client.post(reverse(name, args=args), data)

    return send
