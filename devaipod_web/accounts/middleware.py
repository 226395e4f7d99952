"""Two gates that every page passes: the Content-Security-Policy, and the permission table."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponseBase

from devaipod_web.accounts.permissions import ROUTES, may

Next = Callable[[HttpRequest], HttpResponseBase]


class ContentSecurityPolicy:
    """Adds a strict policy: everything from here, scripts and styles too, none inline without the request's nonce."""

    sync_capable = True
    async_capable = False

    def __init__(self, get_response: Next) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer with the header set; templates find the nonce as `request.csp_nonce`."""
        nonce = secrets.token_urlsafe(16)
        request.csp_nonce = nonce  # type: ignore[attr-defined]
        response = self.get_response(request)
        response.headers.setdefault(
            "Content-Security-Policy",
            f"default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self'; img-src 'self' data:; "
            "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
            "manifest-src 'self'",
        )
        return response


class PermissionTable:
    """Refuses every view whose name is not in the table or whose permission the person lacks.

    The API's views (namespace `api`) check bearer tokens and the same table themselves.
    """

    sync_capable = True
    async_capable = False

    def __init__(self, get_response: Next) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Pass the request on."""
        return self.get_response(request)

    def process_view(
        self, request: HttpRequest, view: object, args: object, kwargs: object
    ) -> HttpResponseBase | None:
        """Look the view's name up before it runs. A stranger is sent to sign in, a person without the right gets 403."""
        match = request.resolver_match
        if match is None or match.namespaces[:1] == ["api"]:
            return None
        if match.view_name not in ROUTES:
            raise Http404(f"{match.view_name} is not in the permission table")
        if may(request.user, ROUTES[match.view_name]):
            return None
        if not request.user.is_authenticated:
            return redirect_to_login(request.get_full_path(), settings.LOGIN_URL)
        raise PermissionDenied
