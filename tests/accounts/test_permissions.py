"""The permission table against everything that can be reached: each page and socket, each kind of person."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from devaipod_web.accounts.permissions import LEAST_ROLE, ORDER, ROUTES, Permission, Role
from devaipod_web.runs.routing import websocket_urlpatterns

pytestmark = pytest.mark.django_db(transaction=True)

#: A word for each kind of converter; none of these things exists.
WORDS = {"key": "nothing000", "slug": "nothing", "secret": "x" * 43, "section": "repository"}


def patterns(
    found: list[URLPattern | URLResolver] | None = None, prefix: str = ""
) -> Iterator[tuple[str, str, URLPattern]]:
    """(name, path with words filled in, pattern) of each page; the API's have tests of their own."""
    for one in found if found is not None else get_resolver().url_patterns:
        if isinstance(one, URLResolver):
            if one.namespace != "api":
                yield from patterns(one.url_patterns, prefix + str(one.pattern))
        else:
            yield str(one.name), prefix + str(one.pattern), one


def pages() -> Iterator[tuple[str, str]]:
    import re

    for name, path, _ in patterns():
        yield (
            name,
            "/"
            + re.sub(r"<(?:\w+:)?(\w+)>", lambda m: WORDS.get(m.group(1), "nothing"), path)
            .replace("<int:", "")
            .lstrip("^"),
        )


def test_the_table_lists_exactly_the_pages_that_exist():
    listed = {name for name in ROUTES if ":" not in name}
    mounted = {name for name, _, _ in patterns()}
    # The styleguide is mounted with DEBUG alone.
    assert mounted | {"styleguide"} == listed | {"styleguide"}


def test_the_table_lists_exactly_the_sockets_that_exist():
    listed = {name for name in ROUTES if name.startswith("ws:")}
    assert {str(route.name) for route in websocket_urlpatterns} == listed


def test_no_page_has_two_meanings_for_one_name():
    seen: dict[str, object] = {}
    for name, _, pattern in patterns():
        assert seen.setdefault(name, pattern.callback) is pattern.callback, name


@pytest.mark.parametrize("role", ["anonymous", None, *ORDER])
def test_every_page_lets_in_exactly_those_of_the_table(person, role):
    client = Client(raise_request_exception=False)
    if role != "anonymous":
        client.force_login(person("somebody", role))
    for name, path in pages():
        if name == "sign_out":
            continue
        permission = ROUTES[name]
        answer = client.get(path)
        if permission is Permission.PUBLIC:
            assert answer.status_code not in (403,), name
            continue
        if role == "anonymous":
            assert answer.status_code == 302, (name, answer.status_code)
            assert answer.headers["Location"].startswith("/sign-in/"), name
            continue
        allowed = permission is Permission.SELF or (
            role is not None and ORDER.index(Role(role)) >= ORDER.index(LEAST_ROLE[permission])
        )
        if allowed:
            assert answer.status_code in (200, 204, 302, 400, 404, 405), (name, answer.status_code)
        else:
            assert answer.status_code == 403, (name, role, answer.status_code)


def test_every_page_sends_a_strict_policy(person):
    client = Client()
    client.force_login(person("mona", Role.MANAGER))
    for name, path in pages():
        if name in ("sign_out", "healthz", "readyz"):
            continue
        policy = client.get(path).headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy, name
        assert "unsafe-inline" not in policy, name
