"""What people do to a run that stands still, or should: pause, resume, and decide about the budget that paused it."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from devaipod_web.accounts.models import User
from devaipod_web.budgets import services as budgets
from devaipod_web.budgets.errors import BudgetError
from devaipod_web.budgets.models import Incident
from devaipod_web.runs.errors import RunError
from devaipod_web.runs.models import Run
from devaipod_web.runs.services.pause import pause_by_hand, resume


@require_POST
def run_pause(request: HttpRequest, key: str) -> HttpResponse:
    """Pause a run at work."""
    run, by = _find(key), _person(request)
    reason = request.POST.get("reason", "")[:500]
    _do(request, lambda: pause_by_hand(run, by, reason=reason), f"“{run.title}” is paused.")
    return redirect("run", key)


@require_POST
def run_resume(request: HttpRequest, key: str) -> HttpResponse:
    """Let a paused run go on."""
    run, by = _find(key), _person(request)
    text = request.POST.get("text", "")
    _do(request, lambda: resume(run, by, text=text), f"“{run.title}” goes on.")
    return redirect("run", key)


@require_POST
def run_incident(request: HttpRequest, key: str) -> HttpResponse:
    """Decide about the budget that holds the run: `how` is one of `budgets.services.resolve`."""
    run, by = _find(key), _person(request)
    wanted = request.POST.get("incident", "")[:20]
    incident = Incident.objects.filter(key=wanted, run=run).first()
    if incident is None:
        raise Http404("There is no such incident of this run.")
    how, amount = request.POST.get("how", "")[:20], request.POST.get("amount", "").strip()[:40]
    _do(
        request,
        lambda: budgets.resolve(incident, by, how, amount=amount or None),
        "The run is stopped." if how == "stop" else "The budget has room again; the run goes on.",
    )
    return redirect("run", key)


def _do(request: HttpRequest, work: Callable[[], None], done: str) -> None:
    """Do it and say what came of it."""
    try:
        work()
    except (RunError, BudgetError) as error:
        messages.error(request, f"{error.message} {error.next_step}".strip())
    else:
        messages.success(request, done)


def _find(key: str) -> Run:
    run = Run.objects.filter(key=key).first()
    if run is None:
        raise Http404("There is no such run.")
    return run


def _person(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user
