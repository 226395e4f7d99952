from __future__ import annotations

import pytest

from devaipod_web.asgi import allowed


@pytest.mark.parametrize(
    ("origin", "host", "expected"),
    [
        ("http://localhost:8000", "localhost:8000", True),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", True),
        ("http://[::1]:8000", "[::1]:8000", True),
        ("http://localhost:3000", "localhost:8000", False),
        ("http://evil.example", "localhost:8000", False),
        ("http://evil.example", "evil.example", False),
        ("http://localhost:8000.evil.example", "localhost:8000", False),
        ("null", "localhost:8000", False),
        ("", "localhost:8000", False),
        ("file://localhost:8000", "localhost:8000", False),
        ("http://[", "localhost:8000", False),
        ("http://localhost:8000", "", False),
    ],
)
def test_a_socket_opens_only_for_a_page_of_this_very_server(origin, host, expected):
    assert allowed(origin, host) is expected


def test_behind_a_proxy_the_public_address_counts(settings):
    settings.PUBLIC_URL = "https://devaipod.example"
    assert allowed("https://devaipod.example", "10.0.0.7:8000")
    assert not allowed("http://devaipod.example", "10.0.0.7:8000")
