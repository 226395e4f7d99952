"""Pages of runs: Now, the list, launching, one run with its tabs, and what the frame needs. What happens is decided in services."""

from __future__ import annotations

import secrets
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from devaipod_web.accounts.models import User
from devaipod_web.budgets import pace
from devaipod_web.budgets.pace import Pace
from devaipod_web.context import THEME_COOKIE, THEMES
from devaipod_web.projects.models import Project
from devaipod_web.runs import overview, queries, reach, shown, tabs
from devaipod_web.runs.errors import RunError
from devaipod_web.runs.forms import LaunchForm, PromptForm
from devaipod_web.runs.models import PermissionRequest, Run
from devaipod_web.runs.services.launch import launch
from devaipod_web.runs.services.pause import resume
from devaipod_web.runs.services.permissions import answer, pick
from devaipod_web.runs.services.prompt import prompt
from devaipod_web.runs.services.stop import cancel_turn, stop
from devaipod_web.runs.states import State

PAGE_RUNS = 50
#: Budgets that stand beside the launch form.
LEFT_SHOWN = 6
THEME_SECONDS = 365 * 86400


def _person(request: HttpRequest) -> User:
    """The person who asks; the permission table has let no stranger pass."""
    assert isinstance(request.user, User)
    return request.user


def _find(key: str) -> Run:
    run = shown.find(key)
    if run is None:
        raise Http404("There is no such run.")
    return run


def _is_htmx(request: HttpRequest) -> bool:
    return request.headers.get("HX-Request") == "true"


# --- Now and Runs -------------------------------------------------------------------------------------------------


@require_GET
def now(request: HttpRequest) -> HttpResponse:
    """What needs a person, and what runs."""
    return render(request, "now/page.html", {"now": overview.now()})


@require_GET
def now_live(request: HttpRequest) -> HttpResponse:
    """The same without the frame, fetched again when something has happened."""
    return render(request, "now/live.html", {"now": overview.now()})


def _list_context(request: HttpRequest) -> dict[str, Any]:
    given = request.GET
    filters = {
        "state": given.get("state", "")[:20],
        "project": given.get("project", "")[:60],
        "owner": given.get("person", "")[:150],
        "text": given.get("q", "")[:200],
        "sort": given.get("sort", "newest")[:20],
    }
    query = given.copy()
    query.pop("page", None)
    rows = Paginator(queries.list_runs(**filters), PAGE_RUNS).get_page(given.get("page"))
    query_now = query.urlencode()
    query.pop("sort", None)
    return {
        "filters": filters,
        "filtered": any(filters[name] for name in ("state", "project", "owner", "text")),
        "rows": rows,
        "listed": overview.listed(rows.object_list),
        "query": query_now,
        "sort_query": query.urlencode(),
    }


@require_GET
def runs(request: HttpRequest) -> HttpResponse:
    """The list of runs; filters, order and page are in the address."""
    context = {
        **_list_context(request),
        "states": State.choices,
        "projects": Project.objects.filter(runs__isnull=False).distinct().order_by("name"),
        "people": User.objects.filter(runs__isnull=False).distinct().order_by("username"),
    }
    return render(request, "runs/list.html", context)


@require_GET
def runs_live(request: HttpRequest) -> HttpResponse:
    """The table of the list, fetched again when something has happened."""
    return render(request, "runs/_table.html", _list_context(request))


# --- launching ----------------------------------------------------------------------------------------------------


def _projects() -> QuerySet[Project]:
    return Project.objects.filter(archived_at=None).select_related("provider").order_by("name")


def _chosen(given: Any) -> Project | None:
    slug = given.get("project", "")
    projects = _projects()
    found = projects.filter(slug=slug).first() if slug else None
    return found or projects.first()


@require_http_methods(["GET", "POST"])
def run_new(request: HttpRequest) -> HttpResponse:
    """Ask for a run. A link can fill the form in; what was typed is never lost on an error."""
    given = request.POST if request.method == "POST" else request.GET
    chosen = _chosen(given)
    if request.method == "POST":
        form = LaunchForm(request.POST, projects=_projects(), chosen=chosen)
        run = _launch(request, form) if form.is_valid() else None
        if run is not None:
            return redirect("run", run.key)
    else:
        initial = {name: given[name][:200_000] for name in LaunchForm.base_fields if name in given}
        initial["project"] = chosen.slug if chosen else ""
        initial["idempotency_key"] = secrets.token_urlsafe(16)
        form = LaunchForm(initial=initial, projects=_projects(), chosen=chosen)
    reached = reach.of(chosen, request.POST or request.GET) if chosen else None
    return render(
        request,
        "runs/new.html",
        {"form": form, "chosen": chosen, "reach": reached, "left": _left(request, chosen)},
        status=400 if form.is_bound else 200,
    )


def _launch(request: HttpRequest, form: LaunchForm) -> Run | None:
    data = form.cleaned_data
    try:
        return launch(
            data["project"],
            _person(request),
            task=data["task"],
            title=data["title"],
            agent=data["agent"],
            command=data.get("chosen_command"),
            model=data.get("model", ""),
            permission_policy=data["permission_policy"],
            wall_seconds=data["wall"],
            target=data.get("target", ""),
            idempotency_key=data["idempotency_key"] or None,
        )
    except RunError as error:
        form.add_error(None, error.sentence)
        return None


@require_GET
def run_what(request: HttpRequest) -> HttpResponse:
    """The fields of a command, when that is what is chosen; fetched while the form is filled in."""
    form = LaunchForm(initial=request.GET.dict(), projects=_projects(), chosen=None)
    return render(request, "runs/_command_fields.html", {"form": form})


@require_GET
def run_reach(request: HttpRequest) -> HttpResponse:
    """What a run with these choices could reach; fetched while the form is filled in."""
    chosen = _chosen(request.GET)
    found = reach.of(chosen, request.GET) if chosen else None
    return render(
        request,
        "runs/_reach.html",
        {"reach": found, "chosen": chosen, "left": _left(request, chosen)},
    )


def _left(request: HttpRequest, chosen: Project | None) -> list[Pace]:
    """What a new run of this project and person may still spend."""
    return pace.left_for(chosen, _person(request))[:LEFT_SHOWN] if chosen else []


# --- one run ------------------------------------------------------------------------------------------------------


def _frame(request: HttpRequest, run: Run, tab: str) -> dict[str, Any]:
    """What each tab of a run shows around its content."""
    return {**shown.facts(run), "tab": tab, "project": run.project}


@require_GET
def run(request: HttpRequest, key: str) -> HttpResponse:
    """A run's transcript: its end, then live."""
    return _run_page(request, _find(key))


def _run_page(
    request: HttpRequest, found: Run, *, error: RunError | None = None, text: str = ""
) -> HttpResponse:
    window = shown.latest(found)
    shown.render_items(found, window.items)
    context = {
        **_frame(request, found, "transcript"),
        "window": window,
        "aside": shown.aside(found, window.transcript.plan, window.transcript.context),
        "last_seq": window.transcript.last_seq,
        "error": error,
        "text": text,
    }
    return render(request, "runs/transcript.html", context, status=error.status if error else 200)


@require_GET
def run_transcript(request: HttpRequest, key: str) -> HttpResponse:
    """Older items, before event `?before=`."""
    found = _find(key)
    before = request.GET.get("before", "")
    if not (before.isascii() and before.isdigit() and len(before) < 19):
        raise Http404("`before` is the number of an event.")
    window = shown.older(found, int(before))
    shown.render_items(found, window.items)
    name = "runs/_items.html" if _is_htmx(request) else "runs/older.html"
    context = {**_frame(request, found, "transcript"), "window": window}
    return render(request, name, context)


@require_GET
def run_header(request: HttpRequest, key: str) -> HttpResponse:
    """The line of facts alone."""
    return HttpResponse(shown.header(_find(key)))


@require_GET
def run_aside(request: HttpRequest, key: str) -> HttpResponse:
    """The cards beside the transcript alone."""
    found = _find(key)
    return HttpResponse(shown.aside(found, shown.last_plan(found.pk)))


@require_GET
def run_changes(request: HttpRequest, key: str) -> HttpResponse:
    """What the run has staged so far."""
    found = _find(key)
    context = {**_frame(request, found, "changes"), "change": tabs.changes(found)}
    return render(request, "runs/changes.html", context)


_LINES = {"before": tabs.lines_before, "after": tabs.lines_after, "line": tabs.whole_line}


@require_GET
def run_logs(request: HttpRequest, key: str) -> HttpResponse:
    """One container's log: its end, then live; `?before=` and `?after=` further lines as JSON, `?line=` one with all of its text."""
    found = _find(key)
    for name, read in _LINES.items():
        if name in request.GET:
            number = request.GET[name]
            if not (number.isascii() and number.isdigit() and len(number) < 19):
                raise Http404(f"`{name}` is the number of a line.")
            pod, container = request.GET.get("pod", ""), request.GET.get("container", "")
            return JsonResponse(read(found, pod, container, int(number)), safe=False)
    chosen = tabs.chosen_logs(found, request.GET.get("pod", ""), request.GET.get("container", ""))
    return render(request, "runs/logs.html", {**_frame(request, found, "logs"), "logs": chosen})


@require_GET
def run_terminal(request: HttpRequest, key: str) -> HttpResponse:
    """A terminal in the run's pod, for those who may attach."""
    found = _find(key)
    context = {**_frame(request, found, "terminal"), "pod": queries.pod_to_enter(found)}
    return render(request, "runs/terminal.html", context)


@require_GET
def run_terminal_live(request: HttpRequest, key: str) -> HttpResponse:
    """The pod that can be attached to, when it is no more `?pod=`; 204 when it is."""
    found = _find(key)
    pod = queries.pod_to_enter(found)
    if request.GET.get("pod", "") == (pod.name if pod else ""):
        return HttpResponse(status=204)
    return render(request, "runs/_terminal_pod.html", {"run": found, "pod": pod})


@require_GET
def run_access(request: HttpRequest, key: str) -> HttpResponse:
    """What the run reached and what was refused."""
    found = _find(key)
    context = {**_frame(request, found, "access"), "access": tabs.access(found)}
    return render(request, "runs/access.html", context)


# --- what a person does to a run ----------------------------------------------------------------------------------


@require_POST
def run_prompt(request: HttpRequest, key: str) -> HttpResponse:
    """Say something more to the agent; a paused one goes on with it."""
    found = _find(key)
    form = PromptForm(request.POST)
    text = request.POST.get("text", "")
    try:
        say = resume if found.state == State.PAUSED else prompt
        say(found, _person(request), text=form.cleaned_data["text"] if form.is_valid() else text)
    except RunError as error:
        if _is_htmx(request):
            context = {**_frame(request, found, "transcript"), "error": error, "text": text}
            return render(request, "runs/_composer.html", context, status=error.status)
        return _run_page(request, found, error=error, text=text)
    if _is_htmx(request):
        return render(request, "runs/_composer.html", _frame(request, _find(key), "transcript"))
    return redirect("run", key)


@require_POST
def run_stop(request: HttpRequest, key: str) -> HttpResponse:
    """Stop a run."""
    found = _find(key)
    try:
        stop(found, _person(request), reason=request.POST.get("reason", "")[:300])
    except RunError as error:
        messages.error(request, error.sentence)
    else:
        messages.success(request, f"“{found.title}” is stopped. What it has done is staged.")
    return redirect(_back(request) or reverse("run", args=[key]))


@require_POST
def run_cancel_turn(request: HttpRequest, key: str) -> HttpResponse:
    """End the present turn; the run stays."""
    found = _find(key)
    try:
        cancel_turn(found, _person(request))
    except RunError as error:
        messages.error(request, error.sentence)
    else:
        messages.success(
            request, "The turn is being cancelled; the run waits for your next prompt."
        )
    return redirect("run", key)


@require_POST
def permission_answer(request: HttpRequest, key: str) -> HttpResponse:
    """Answer a permission request, once. `option` is one of the agent's, or `allow` or `refuse`."""
    asked = PermissionRequest.objects.select_related("run", "pod").filter(key=key).first()
    if asked is None:
        raise Http404("There is no such question.")
    option = request.POST.get("option", "")[:200]
    words = {"allow": "allow", "refuse": "reject"}
    if option in words and all(entry.get("id") != option for entry in asked.options):
        option = pick(asked.options, words[option])
    error = ""
    try:
        answer(asked, _person(request), option_id=option)
    except RunError as problem:
        error = f"{problem.message} {problem.next_step}".strip()
    if _is_htmx(request):
        return _answered(request, asked, error)
    if error:
        messages.error(request, error)
    return redirect(_back(request) or reverse("run", args=[asked.run.key]))


def _answered(request: HttpRequest, asked: PermissionRequest, error: str) -> HttpResponse:
    row = PermissionRequest.objects.select_related("answered_by").get(pk=asked.pk)
    return render(request, "runs/_answered.html", {"request_row": row, "error": error})


def _back(request: HttpRequest) -> str:
    """The path of this site that the form came from, or empty."""
    asked = request.POST.get("next", "")
    fine = url_has_allowed_host_and_scheme(asked, allowed_hosts={request.get_host()})
    return asked if fine and asked.startswith("/") else ""


# --- the frame ----------------------------------------------------------------------------------------------------


@require_GET
def rail(request: HttpRequest) -> HttpResponse:
    """The rail's entries with their counts."""
    return render(request, "components/rail_links.html")


@require_POST
def theme(request: HttpRequest) -> HttpResponse:
    """Remember light, dark or the system's in a cookie, so that the next page comes right from the server."""
    response = redirect(_back(request) or "/")
    chosen = request.POST.get("theme", "")
    if chosen in THEMES:
        response.set_cookie(
            THEME_COOKIE,
            chosen,
            max_age=THEME_SECONDS,
            samesite="Lax",
            secure=settings.SESSION_COOKIE_SECURE,
        )
    else:
        response.delete_cookie(THEME_COOKIE)
    return response


@require_GET
def search(request: HttpRequest) -> HttpResponse:
    """Runs, projects and reviews by text: a page, or JSON for the palette."""
    text = request.GET.get("q", "")[:200]
    found = overview.search(text)
    if request.headers.get("Accept") == "application/json":
        return JsonResponse({"results": _results(found)})
    return render(request, "search.html", {"found": found, "text": text})


def _results(found: dict[str, list[Any]]) -> list[dict[str, str]]:
    rows = [("run", run.title, reverse("run", args=[run.key])) for run in found["runs"]]
    rows += [
        ("project", row.name, reverse("project", args=[row.slug])) for row in found["projects"]
    ]
    rows += [
        ("review", row.run.title, reverse("review", args=[row.key])) for row in found["reviews"]
    ]
    return [{"kind": kind, "label": label, "url": url} for kind, label, url in rows]


@require_GET
def help_page(request: HttpRequest) -> HttpResponse:
    """Keys, words, and where to read more."""
    return render(request, "help.html", {"states": State.values})


@require_GET
def styleguide(request: HttpRequest) -> HttpResponse:
    """Every component; while developing only."""
    if not settings.DEBUG:
        raise Http404
    bars = [
        {"bar": "42", "mark": "60", "tone": ""},
        {"bar": "88", "mark": "60", "tone": "amber"},
        {"bar": "100", "mark": "", "tone": "red"},
    ]
    links = [("First", "#main", True), ("Second", "#main", False)]
    context = {"states": State.values, "when": None, "bars": bars, "links": links}
    return render(request, "styleguide.html", context)
