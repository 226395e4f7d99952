"""Pages of budgets: the list, a new one, one with its history, changing and removing it. Everybody looks, managers change."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from devaipod_web.accounts.models import User
from devaipod_web.accounts.permissions import Permission, may
from devaipod_web.budgets import pace, queries, services
from devaipod_web.budgets.errors import BudgetError, InvalidBudget
from devaipod_web.budgets.models import Budget, Scope
from devaipod_web.budgets.page_forms import BudgetChangesForm, BudgetForm
from devaipod_web.projects.models import Project
from devaipod_web.reviews.models import AuditEntry

HISTORY_SHOWN = 50
INCIDENTS_SHOWN = 20


def _me(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


def _find(key: str) -> Budget:
    found = queries.by_key(key)
    if found is None:
        raise Http404("There is no such budget.")
    return found


@require_GET
def budget_list(request: HttpRequest) -> HttpResponse:
    """Every budget with how it stands, but for those that each run has; `?project=` those that bind that one."""
    slug = request.GET.get("project", "")[:60]
    project = Project.objects.filter(slug=slug).first() if slug else None
    if slug and project is None:
        raise Http404("There is no such project.")
    rows = pace.paces(project)
    policies = {
        row.budget.metric
        for row in rows
        if row.is_policy and row.budget.scope == Scope.INSTALLATION and row.budget.enabled
    }
    return render(
        request,
        "spend/budgets.html",
        {
            "paces": rows,
            "defaults": pace.defaults(policies, timezone.now()),
            "project": project,
            "open_incidents": queries.open_incidents().count(),
            "may_manage": may(_me(request), Permission.MANAGE),
        },
    )


@require_http_methods(["GET", "POST"])
def budget_new(request: HttpRequest) -> HttpResponse:
    """Set a budget. A link can fill the form in; what was typed is never lost on an error."""
    initial = {
        name: request.GET[name][:200] for name in BudgetForm.base_fields if name in request.GET
    }
    form = BudgetForm(request.POST) if request.method == "POST" else BudgetForm(initial=initial)
    if form.is_bound and form.is_valid():
        data = form.cleaned_data
        try:
            made = services.create(
                _me(request),
                scope=data["scope"],
                subject=form.subject,
                metric=data["metric"],
                window=data["window"],
                limit=data["limit"].strip(),
                soft_percent=data["soft_percent"],
                note=data["note"],
            )
        except BudgetError as error:
            _attach(form, error, subject=data["scope"])
        else:
            messages.success(request, "The budget is set. It binds within two seconds.")
            return redirect("budget", made.key)
    return render(
        request, "spend/budget_new.html", {"form": form}, status=400 if form.is_bound else 200
    )


@require_GET
def budget(request: HttpRequest, key: str) -> HttpResponse:
    """One budget: how it stands, what may be changed, its incidents and its history."""
    found = _find(key)
    return _page(request, found, BudgetChangesForm(found))


@require_POST
def budget_change(request: HttpRequest, key: str) -> HttpResponse:
    """Change limit, threshold, note, or whether it binds."""
    found = _find(key)
    form = BudgetChangesForm(found, request.POST)
    if not form.is_valid():
        return _page(request, found, form, status=400)
    given = {**form.cleaned_data, "limit": form.cleaned_data["limit"].strip()}
    try:
        changed = services.update(found, _me(request), given)
    except BudgetError as error:
        _attach(form, error)
        return _page(request, found, form, status=error.status)
    labels = [str(form.fields[name].label).split(",")[0].lower() for name in changed]
    messages.success(
        request,
        f"Changed: {', '.join(labels)}." if labels else "Nothing was different.",
    )
    return redirect("budget", key)


@require_POST
def budget_remove(request: HttpRequest, key: str) -> HttpResponse:
    """Take a budget out of force."""
    found = _find(key)
    try:
        services.remove(found, _me(request))
    except BudgetError as error:
        messages.error(request, error.sentence)
        return redirect("budgets")
    messages.success(request, f"The budget “{pace.pace(found).name}” is removed.")
    return redirect("budgets")


def _page(
    request: HttpRequest, found: Budget, form: BudgetChangesForm, *, status: int = 200
) -> HttpResponse:
    history = AuditEntry.objects.filter(action__startswith="budget.", detail__budget=found.key)
    return render(
        request,
        "spend/budget.html",
        {
            "pace": pace.pace(found),
            "budget": found,
            "form": form,
            "incidents": queries.incidents().filter(budget=found)[:INCIDENTS_SHOWN],
            "history": [_told(entry) for entry in history.order_by("-pk")[:HISTORY_SHOWN]],
            "may_manage": may(_me(request), Permission.MANAGE),
        },
        status=status,
    )


_VERBS = {
    "budget.created": "set it",
    "budget.changed": "changed it",
    "budget.raised": "raised its limit",
    "budget.extended": "extended it once",
    "budget.removed": "removed it",
}


def _told(entry: AuditEntry) -> dict[str, Any]:
    """An entry of the audit log about a budget: when, who, what, and the facts in words."""
    detail = {name: value for name, value in entry.detail.items() if name != "budget"}
    facts = []
    if entry.action == "budget.raised":
        facts.append(f"limit from {detail['from']} to {detail['to']}")
    elif entry.action == "budget.extended":
        facts.append(f"by {detail['by']}")
    elif entry.action == "budget.changed":
        facts += [
            f"{name.replace('_', ' ')} from {change['from'] or 'none'} to {change['to'] or 'none'}"
            for name, change in detail.items()
            if isinstance(change, dict)
        ]
    elif entry.action == "budget.created":
        facts.append(f"limit {detail['limit']}")
    if detail.get("note") and isinstance(detail["note"], str):
        facts.append(f"“{detail['note']}”")
    return {
        "at": entry.at,
        "who": entry.actor_name,
        "did": _VERBS.get(entry.action, entry.action),
        "facts": "; ".join(facts),
    }


def _attach(form: BudgetForm | BudgetChangesForm, error: BudgetError, subject: str = "") -> None:
    """Put a refusal beside the field that it is about."""
    if not isinstance(error, InvalidBudget):
        form.add_error(None, error.sentence)
        return
    for name, text in error.errors.items():
        place = subject if name == "subject" else name
        form.add_error(place if place in form.fields else None, text.removeprefix(f"{name}: "))
