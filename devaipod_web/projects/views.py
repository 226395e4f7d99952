"""Pages of projects: list, new, overview, and settings by tab, each saved on its own."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from devaipod_web.accounts.models import User
from devaipod_web.accounts.permissions import Permission, may
from devaipod_web.budgets import pace
from devaipod_web.projects import queries, services
from devaipod_web.projects.errors import InvalidProject, ProjectError
from devaipod_web.projects.forms import SECTION_FORMS, ProjectForm
from devaipod_web.projects.models import Project


def _me(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


def _find(slug: str) -> Project:
    found = queries.by_slug(slug)
    if found is None:
        raise Http404
    return found


def project_list(request: HttpRequest) -> HttpResponse:
    """Projects with what each is doing; `?archived=1` those that were put away."""
    archived = request.GET.get("archived") == "1"
    return render(
        request,
        "projects/list.html",
        {
            "projects": queries.projects(archived=archived),
            "archived": archived,
            "may_manage": may(_me(request), Permission.MANAGE),
            "may_launch": may(_me(request), Permission.LAUNCH),
        },
    )


def project_new(request: HttpRequest) -> HttpResponse:
    """Make a project. What was typed is never lost on an error."""
    form = ProjectForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            project = services.create(_me(request), **form.cleaned_data)
        except InvalidProject as error:
            _attach(form, error)
        else:
            messages.success(request, f"{project.name} is made. Launch its first run.")
            return redirect("project", project.slug)
    return render(
        request, "projects/new.html", {"form": form}, status=400 if form.is_bound else 200
    )


def project(request: HttpRequest, slug: str) -> HttpResponse:
    """A project's recent runs, open reviews and spend."""
    found = _find(slug)
    return render(
        request,
        "projects/overview.html",
        {
            **_frame(request, found, "overview"),
            "overview": queries.overview(found),
            "paces": [one for one in pace.paces(found, enabled_only=True) if one.budget.project],
        },
    )


def project_settings(request: HttpRequest, slug: str, section: str = "repository") -> HttpResponse:
    """One tab of a project's settings."""
    found = _find(slug)
    if section == "danger":
        return render(request, "projects/danger.html", _frame(request, found, section))
    if section not in SECTION_FORMS:
        raise Http404
    title, kind = SECTION_FORMS[section]
    form = kind(found, request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            changed = services.update(found, _me(request), form.cleaned_data)
        except InvalidProject as error:
            _attach(form, error)
            # The row in memory has what was refused; the page around the form shows what counts.
            found = _find(slug)
        else:
            messages.success(request, _saved(form, changed))
            return redirect("project_settings", slug, section)
    return render(
        request,
        "projects/settings.html",
        {**_frame(request, found, section), "form": form, "section_title": title},
        status=400 if form.is_bound else 200,
    )


@require_POST
def project_archive(request: HttpRequest, slug: str) -> HttpResponse:
    """Put a project away, or (`action=restore`) bring it back."""
    found = _find(slug)
    if request.POST.get("action") == "restore":
        services.restore(found, _me(request))
        messages.success(request, f"{found.name} is back.")
        return redirect("project", found.slug)
    try:
        services.archive(found, _me(request))
    except ProjectError as error:
        messages.error(request, error.sentence)
        return redirect("project_settings", found.slug, "danger")
    messages.success(request, f"{found.name} is archived. Its runs and reviews stay.")
    return redirect("projects")


def _frame(request: HttpRequest, found: Project, tab: str) -> dict[str, Any]:
    user = _me(request)
    sections = [(name, title) for name, (title, _) in SECTION_FORMS.items()]
    return {
        "project": found,
        "tab": tab,
        "sections": [*sections, ("danger", "Danger")],
        "may_manage": may(user, Permission.MANAGE),
        "may_launch": may(user, Permission.LAUNCH) and found.archived_at is None,
    }


def _attach(form: forms.Form, error: InvalidProject) -> None:
    for name, text in error.errors.items():
        form.add_error(name if name in form.fields else None, text)


def _saved(form: forms.Form, changed: list[str]) -> str:
    if not changed:
        return "Nothing was different, so nothing was changed."
    labels = [str(form.fields[name].label) for name in changed if name in form.fields]
    return f"Saved: {', '.join(labels)}. Runs that were launched before keep what they had."
