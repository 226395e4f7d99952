"""Pages of targets, for managers."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from devaipod_web.accounts.models import User
from devaipod_web.projects.models import Project
from devaipod_web.targets import look, queries, services
from devaipod_web.targets.errors import InvalidTarget, TargetInUse
from devaipod_web.targets.forms import TargetForm
from devaipod_web.targets.look import Tested
from devaipod_web.targets.models import Target


def _me(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


def _find(key: str) -> Target:
    found = queries.targets().filter(key=key).first()
    if found is None:
        raise Http404
    return found


@require_GET
def target_list(request: HttpRequest) -> HttpResponse:
    """Every target with its health, version and room."""
    return render(request, "targets/list.html", {"targets": queries.shown()})


@require_http_methods(["GET", "POST"])
def target_new(request: HttpRequest) -> HttpResponse:
    """Add a cluster."""
    form = TargetForm(None, request.POST or None)
    if request.method == "POST" and form.is_valid():
        row = _save(request, None, form)
        if row is not None:
            messages.success(request, f"{row.name} is added. Test it now.")
            return redirect("target", row.key)
    return _page(request, "targets/new.html", form, None)


@require_http_methods(["GET", "POST"])
def target(request: HttpRequest, key: str) -> HttpResponse:
    """Change a target, or remove it (`action=remove`)."""
    row = _find(key)
    if request.POST.get("action") == "remove":
        return _remove(request, row)
    form = TargetForm(row, request.POST or None)
    if request.method == "POST" and form.is_valid() and _save(request, row, form) is not None:
        messages.success(request, f"{row.name} is saved.")
        return redirect("target", row.key)
    return _page(request, "targets/edit.html", form, _find(key))


@require_POST
def target_test(request: HttpRequest, key: str) -> HttpResponse:
    """Ask the target how it is and show what it said."""
    row = _find(key)
    result = look.ask(row)
    if request.headers.get("HX-Request"):
        return render(request, "targets/_tested.html", {"tested": result})
    return _page(request, "targets/edit.html", TargetForm(row), _find(key), tested=result)


def _remove(request: HttpRequest, row: Target) -> HttpResponse:
    try:
        services.remove(_me(request), row)
    except TargetInUse as error:
        messages.error(request, error.sentence)
        return redirect("target", row.key)
    messages.success(request, f"{row.name} is removed.")
    return redirect("targets")


def _save(request: HttpRequest, row: Target | None, form: TargetForm) -> Target | None:
    try:
        return services.save(_me(request), row, **{"name": "", **form.cleaned_data})
    except InvalidTarget as error:
        for name, text in error.errors.items():
            name = "kubeconfig_text" if name == "kubeconfig" else name
            form.add_error(name if name in form.fields else None, text)
        return None


def _page(
    request: HttpRequest,
    template: str,
    form: TargetForm,
    row: Target | None,
    *,
    tested: Tested | None = None,
) -> HttpResponse:
    context: dict[str, Any] = {"form": form, "target": row, "tested": tested}
    if row is not None:
        context |= {
            "room": queries.rooms()[row.pk],
            "used_by": [p for p in Project.objects.order_by("name") if row.key in p.targets],
        }
    return render(request, template, context, status=400 if form.is_bound else 200)
