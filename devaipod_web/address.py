"""Where people and programs reach this installation, for links that leave it."""

from __future__ import annotations

import contextlib
import json

from django.conf import settings

from devaipod_web import home


def public_url() -> str:
    """DEVAIPOD_URL, else the address of the server that runs; without a slash at its end, empty when neither is known."""
    if settings.PUBLIC_URL:
        return str(settings.PUBLIC_URL).rstrip("/")
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads(home.serve_card().read_text())["url"]).rstrip("/")
    return ""
