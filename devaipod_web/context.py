"""What every page's frame needs."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest


def frame(request: HttpRequest) -> dict[str, Any]:
    """The request's CSP nonce."""
    return {"csp_nonce": getattr(request, "csp_nonce", "")}
