"""A signed-in session without a browser: the cookie that the sockets ask for."""

from __future__ import annotations

import http.cookiejar
import re
import urllib.parse
import urllib.request

from tests.e2e.installation import Installation


def cookie(place: Installation) -> str:
    """Spend a one-time sign-in link as a person does, and return the Cookie header."""
    link = re.search(r"https?://\S+/sign-in/\S+", place.devaipod("sign-in-link"))
    assert link is not None
    jar = http.cookiejar.CookieJar()
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    page = opener.open(link.group(0)).read().decode()
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
    assert token is not None
    body = urllib.parse.urlencode({"csrfmiddlewaretoken": token.group(1)}).encode()
    opener.open(urllib.request.Request(link.group(0), data=body)).read()
    return "; ".join(f"{c.name}={c.value}" for c in jar)


def log_address(place: Installation, key: str, pod: str, after: int = 0) -> str:
    """The address of the agent's log socket."""
    base = place.url.replace("http", "ws", 1)
    return f"{base}/ws/runs/{key}/logs/{pod}/agent/?after={after}"
