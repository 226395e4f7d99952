"""The tab Diagnostics of a run's page: the diagnosis for a person, live, and as text for a bug report."""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from devaipod_web import __version__
from devaipod_web.plain import clean
from devaipod_web.runs import diagnosis, shown
from devaipod_web.runs.models import Run, RunPod
from devaipod_web.runs.states import ENDED
from pods.diagnostics_text import as_text


def _find(key: str) -> Run:
    run = shown.find(key)
    if run is None:
        raise Http404("There is no such run.")
    return run


def _chosen(run: Run, asked: str) -> int | None:
    """The attempt that the address names; None for the present one. Raises Http404."""
    if not asked:
        return None
    fine = asked.isascii() and asked.isdigit() and len(asked) < 6
    if not fine or not RunPod.objects.filter(run=run, attempt=int(asked)).exists():
        raise Http404("The run has no such attempt.")
    return int(asked)


def _context(request: HttpRequest, run: Run) -> dict[str, Any]:
    attempt = _chosen(run, request.GET.get("attempt", ""))
    found = diagnosis.of_run(run, attempt)
    return {
        "diagnosis": found,
        "first": found["findings"][0] if found["findings"] else None,
        "attempt": attempt,
        "attempts": list(run.pods.order_by("attempt").values_list("attempt", flat=True)),
        "is_live": run.state not in ENDED or found["state"] not in (None, "gone"),
    }


@require_GET
def run_diagnostics(request: HttpRequest, key: str) -> HttpResponse:
    """What is wrong with a run at one glance, its containers, and their last lines."""
    run = _find(key)
    frame = {**shown.facts(run), "tab": "diagnostics", "project": run.project}
    context = {**frame, **_context(request, run)}
    return render(request, "runs/diagnostics.html", context)


@require_GET
def run_diagnostics_live(request: HttpRequest, key: str) -> HttpResponse:
    """The same without the frame, fetched again when something has happened."""
    run = _find(key)
    return render(request, "runs/_diagnostics.html", {"run": run, **_context(request, run)})


@require_GET
def run_diagnostics_text(request: HttpRequest, key: str) -> HttpResponse:
    """The diagnosis as text for a bug report, its secrets masked; with `?download` as a file."""
    run = _find(key)
    attempt = _chosen(run, request.GET.get("attempt", ""))
    document = diagnosis.of_run(run, attempt)
    text = f"devaipod {__version__}\n\n{as_text(document, clean=clean)}"
    response = HttpResponse(text, content_type="text/plain; charset=utf-8")
    if "download" in request.GET:
        name = document["name"] or f"run-{run.key}"
        response["Content-Disposition"] = f'attachment; filename="{name}-diagnostics.txt"'
    return response
