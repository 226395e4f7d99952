"""What people do to a run that stands still, or should: pause, resume, delete.

What a budget paused, `budgets.incident_views` decides.
"""

from __future__ import annotations

from collections.abc import Callable

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from devaipod_web.accounts.models import User
from devaipod_web.runs.errors import RunError
from devaipod_web.runs.models import Run
from devaipod_web.runs.services.delete import delete
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
def run_delete(request: HttpRequest, key: str) -> HttpResponse:
    """Remove an ended run with everything of it, and go to the list; one that is still there stays on the screen with the reason."""
    run, by = _find(key), _person(request)
    gone = _do(request, lambda: delete(run, by), f"“{run.title}” is deleted.")
    return redirect("runs") if gone else redirect("run", key)


def _do(request: HttpRequest, work: Callable[[], None], done: str) -> bool:
    """Do it and say what came of it; returns whether it was done."""
    try:
        work()
    except RunError as error:
        messages.error(request, error.sentence)
        return False
    messages.success(request, done)
    return True


def _find(key: str) -> Run:
    run = Run.objects.filter(key=key).first()
    if run is None:
        raise Http404("There is no such run.")
    return run


def _person(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user
