"""Pages of incidents: the list, and one with what happened and what a manager decides."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_GET, require_POST

from devaipod_web.accounts.models import User
from devaipod_web.accounts.permissions import Permission, may
from devaipod_web.budgets import pace, queries, services
from devaipod_web.budgets.errors import BudgetError, IncidentClosed, InvalidBudget
from devaipod_web.budgets.models import Incident, IncidentState, Level
from devaipod_web.budgets.page_forms import DecisionForm
from devaipod_web.runs.errors import RunError
from devaipod_web.runs.states import ENDED

PAGE = 50
STATES = (("open", "Open"), ("resolved", "Resolved"), ("all", "All"))
_DONE = {
    "raise": "The limit is raised.",
    "extend": "The window is extended, this once.",
    "dismiss": "The incident is dismissed.",
    "stop": "The run is told to stop.",
}


def _me(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


def _find(key: str) -> Incident:
    found = queries.incident(key)
    if found is None:
        raise Http404("There is no such incident.")
    return found


@require_GET
def incident_list(request: HttpRequest) -> HttpResponse:
    """Incidents by state and level, newest first; filters and page are in the address."""
    state = request.GET.get("state", "open")
    state = state if state in dict(STATES) else "open"
    level = request.GET.get("level", "")
    rows = queries.incidents("" if state == "all" else state)
    if level in Level.values:
        rows = rows.filter(level=level)
    query = request.GET.copy()
    query.pop("page", None)
    return render(
        request,
        "spend/incidents.html",
        {
            "rows": Paginator(rows, PAGE).get_page(request.GET.get("page")),
            "state": state,
            "level": level,
            "states": STATES,
            "query": query.urlencode(),
            "open_incidents": queries.open_incidents().count(),
        },
    )


@require_GET
def incident(request: HttpRequest, key: str) -> HttpResponse:
    """What happened, how budget and run stand, and what can be decided."""
    return _page(request, _find(key))


@require_POST
def incident_resolve(request: HttpRequest, key: str) -> HttpResponse:
    """Decide. A second answer is told who was first."""
    found = _find(key)
    form = DecisionForm(request.POST)
    if not form.is_valid():
        return _page(request, found, form, status=400)
    data = form.cleaned_data
    try:
        services.resolve(
            found,
            _me(request),
            data["how"],
            amount=data["amount"].strip() or None,
            note=data["note"],
        )
    except IncidentClosed:
        return _page(request, _find(key), error=_first(_find(key)), status=409)
    except InvalidBudget as error:
        for name, text in error.errors.items():
            form.add_error(
                "amount" if name in ("amount", "limit") else None, text.removeprefix(f"{name}: ")
            )
        return _page(request, _find(key), form, status=400)
    except (BudgetError, RunError) as error:
        words = error.sentence
        return _page(request, _find(key), form, error=words, status=error.status)
    messages.success(request, _DONE[data["how"]])
    back = request.POST.get("next", "")
    if url_has_allowed_host_and_scheme(back, allowed_hosts=None):
        return redirect(back)
    return redirect("incident", key)


def _first(found: Incident) -> str:
    who = str(found.resolved_by) if found.resolved_by else "The end of its window"
    return f"{who} was first: {found.get_how_display().lower()}. Nothing else was done."


def _page(
    request: HttpRequest,
    found: Incident,
    form: DecisionForm | None = None,
    *,
    error: str = "",
    status: int = 200,
) -> HttpResponse:
    budget = queries.budgets().filter(pk=found.budget_id).first()
    is_open = found.state == IncidentState.OPEN
    return render(
        request,
        "spend/incident.html",
        {
            "incident": found,
            "budget": budget,
            "pace": pace.pace(budget) if budget is not None else None,
            "run": found.run,
            "run_ended": found.run.state in ENDED,
            "decisions": _decisions(found, form) if is_open and budget is not None else [],
            "form": form,
            "error": error,
            "may_decide": may(_me(request), Permission.MANAGE),
        },
        status=status,
    )


def _decisions(found: Incident, form: DecisionForm | None) -> list[dict[str, Any]]:
    """The ways to decide, with what was typed and refused in its place."""
    limit, more = pace.suggestion(found)
    metric = found.budget.get_metric_display()
    ways: list[dict[str, Any]] = [
        {
            "how": "raise",
            "title": "Raise the limit",
            "text": "For good: the coming windows have it too.",
            "label": f"New limit, {metric}",
            "amount": limit,
            "button": "Raise the limit",
        },
        {
            "how": "extend",
            "title": "Extend once",
            "text": "This window alone has more; the limit stays as it is.",
            "label": f"Added to this window, {metric}",
            "amount": more,
            "button": "Extend once",
        },
        {
            "how": "dismiss",
            "title": "Dismiss",
            "text": "Gives no room: the next request that lacks it opens another one.",
            "button": "Dismiss",
        },
    ]
    if found.run.state not in ENDED:
        stop = {
            "how": "stop",
            "title": "Stop the run",
            "text": "What it has done so far is staged.",
            "button": "Stop the run",
            "danger": True,
        }
        ways.insert(2, stop)
    if form is not None:
        for way in ways:
            if way["how"] == form.data.get("how"):
                way["note"] = form.data.get("note", "")
                way["amount"] = form.data.get("amount", way.get("amount", ""))
                way["errors"] = [*form.errors.get("amount", []), *form.non_field_errors()]
    return ways
