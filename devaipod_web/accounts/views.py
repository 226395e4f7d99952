"""Signing in and out, one's own page and tokens, and people (managers)."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import authenticate, login, logout, update_session_auth_hash
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST

from devaipod_web.accounts import services, throttle, tokens
from devaipod_web.accounts.errors import AccountError, BadName
from devaipod_web.accounts.forms import (
    PasswordForm,
    PersonForm,
    RoleForm,
    SignInForm,
    TokenForm,
)
from devaipod_web.accounts.models import ApiToken, User
from devaipod_web.accounts.permissions import Permission, Role, may, role_of, stored_role
from devaipod_web.budgets import pace

BACKEND = "django.contrib.auth.backends.ModelBackend"


def _me(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


def _next(request: HttpRequest) -> str:
    """Where to go after signing in: only a path of this site."""
    asked = request.POST.get("next") or request.GET.get("next") or ""
    fine = url_has_allowed_host_and_scheme(
        asked, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    return asked if fine else settings.LOGIN_REDIRECT_URL


@never_cache
@sensitive_post_parameters("password")
def sign_in(request: HttpRequest) -> HttpResponse:
    """Sign in by name and password; closed for a while after too many failures."""
    if request.user.is_authenticated:
        return redirect(_next(request))
    form = SignInForm(request.POST or None)
    status = 200
    if request.method == "POST" and form.is_valid():
        name, address = form.cleaned_data["username"], request.META.get("REMOTE_ADDR") or "unix"
        try:
            throttle.check(name, address)
        except AccountError as error:
            form.add_error(None, error.sentence)
            status = error.status
        else:
            user = authenticate(request, username=name, password=form.cleaned_data["password"])
            if isinstance(user, User):
                throttle.succeeded(name, address)
                login(request, user, backend=BACKEND)
                services.signed_in(user, how="password")
                return redirect(_next(request))
            throttle.failed(name, address)
            form.add_error(None, "There is no such person with this password.")
    return render(
        request, "accounts/sign_in.html", {"form": form, "next": _next(request)}, status=status
    )


@never_cache
def sign_in_link(request: HttpRequest, secret: str) -> HttpResponse:
    """The page of a one-time link; looking at it spends nothing, its button does."""
    if request.method != "POST":
        owner = services.link_owner(secret)
        return render(
            request,
            "accounts/sign_in_link.html",
            {"owner": owner},
            status=200 if owner is not None else 410,
        )
    try:
        user = services.spend_link(secret)
    except AccountError as error:
        return render(
            request,
            "accounts/sign_in_link.html",
            {"owner": None, "error": error},
            status=error.status,
        )
    login(request, user, backend=BACKEND)
    if not user.has_usable_password():
        messages.info(
            request, "You are signed in. Set a password on your own page to sign in without a link."
        )
    return redirect(settings.LOGIN_REDIRECT_URL)


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    """End the session."""
    logout(request)
    return redirect("sign_in")


@never_cache
@sensitive_post_parameters()
def account(request: HttpRequest) -> HttpResponse:
    """One's own page: who one is here, and the password."""
    user = _me(request)
    form = PasswordForm(user, request.POST or None)
    if request.method == "POST" and form.is_valid():
        services.change_password(user, form.cleaned_data["new"])
        # This session stays; all others of the person end.
        update_session_auth_hash(request, user)
        messages.success(request, "The password is set. Your other sessions have ended.")
        return redirect("account")
    return render(
        request,
        "accounts/account.html",
        {"form": form, "role": role_of(user)},
        status=200 if request.method != "POST" else 400,
    )


@never_cache
def token_list(request: HttpRequest) -> HttpResponse:
    """One's own tokens; a new one is shown this once, in the answer to the POST."""
    user = _me(request)
    form = TokenForm(user, request.POST or None)
    made, text = None, ""
    if request.method == "POST" and form.is_valid():
        try:
            made, text = tokens.issue(
                user,
                form.cleaned_data["name"],
                days=form.cleaned_data["days"],
                role=Role(form.cleaned_data["role"]),
                project=form.cleaned_data["project"],
            )
            form = TokenForm(user)
        except BadName as error:
            form.add_error("name", error.sentence)
        except AccountError as error:
            form.add_error(None, error.sentence)
    return render(
        request,
        "accounts/tokens.html",
        {
            "form": form,
            "made": made,
            "text": text,
            "tokens": tokens.of(user),
            "address": request.build_absolute_uri("/").rstrip("/"),
        },
        status=400 if request.method == "POST" and made is None else 200,
    )


@require_POST
def token_revoke(request: HttpRequest, key: str) -> HttpResponse:
    """End a token: one's own, or anybody's for a manager."""
    user = _me(request)
    token = ApiToken.objects.select_related("user").filter(key=key).first()
    if token is None or (token.user_id != user.pk and not may(user, Permission.MANAGE)):
        raise Http404
    tokens.revoke(token, user)
    messages.success(request, f"The token {token.name} is revoked.")
    return redirect("tokens") if token.user_id == user.pk else redirect("person", token.user.key)


def people(request: HttpRequest) -> HttpResponse:
    """Everybody with their roles."""
    return render(request, "accounts/people.html", {"people": services.everybody()})


def person_new(request: HttpRequest) -> HttpResponse:
    """Add a person; the answer shows their first sign-in link, once."""
    form = PersonForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            user = services.add_person(
                _me(request),
                form.cleaned_data["username"],
                role=Role(form.cleaned_data["role"]),
                full_name=form.cleaned_data["full_name"],
            )
        except BadName as error:
            form.add_error("username", error.sentence)
        else:
            messages.success(request, f"{user} is added.")
            return _person_page(request, user, link=_link(request, user))
    return render(
        request,
        "accounts/person_new.html",
        {"form": form},
        status=400 if request.method == "POST" else 200,
    )


def person(request: HttpRequest, key: str) -> HttpResponse:
    """One person: role, tokens, and whether their door is open. POST changes one of these by `action`."""
    user = _person(key)
    if request.method != "POST":
        return _person_page(request, user)
    by, action = _me(request), request.POST.get("action")
    try:
        if action == "role":
            form = RoleForm(request.POST)
            if not form.is_valid():
                return _person_page(request, user, error="Choose one of the four roles.")
            services.change_role(by, user, role=Role(form.cleaned_data["role"]))
            messages.success(request, f"{user} is {form.cleaned_data['role']} now.")
        elif action == "deactivate":
            services.deactivate(by, user)
            messages.success(
                request, f"{user} can no longer sign in, and their tokens are revoked."
            )
        elif action == "reactivate":
            services.reactivate(by, user)
            messages.success(request, f"{user} can sign in again. Old tokens stay revoked.")
        else:
            return _person_page(request, user, error="There is no such change.")
    except AccountError as error:
        return _person_page(request, user, error=error.sentence)
    return redirect("person", user.key)


@never_cache
@require_POST
def person_link(request: HttpRequest, key: str) -> HttpResponse:
    """Make a sign-in link for a person; it stands in this answer and nowhere else."""
    user = _person(key)
    if not user.is_active:
        return _person_page(request, user, error=f"{user} is deactivated: reactivate them first.")
    return _person_page(request, user, link=_link(request, user))


def _person(key: str) -> User:
    user = User.objects.filter(key=key).first()
    if user is None:
        raise Http404
    return user


def _link(request: HttpRequest, user: User) -> str:
    return request.build_absolute_uri(services.sign_in_link(user, by=_me(request)))


def _person_page(
    request: HttpRequest, user: User, *, link: str = "", error: str = ""
) -> HttpResponse:
    role = role_of(user) if user.is_active else stored_role(user)
    response = render(
        request,
        "accounts/person.html",
        {
            "person": user,
            "role": role,
            "form": RoleForm(initial={"role": role or "viewer"}),
            "tokens": tokens.of(user),
            "paces": pace.of_person(user),
            "link": link,
            "error": error,
        },
        status=409 if error else 200,
    )
    if link:
        response.headers["Cache-Control"] = "no-store"
    return response
