"""Pages of reviews and the audit log. They parse and answer; what happens is decided in `services` and `queries`."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from devaipod_web import home, sheets
from devaipod_web.accounts.models import User
from devaipod_web.accounts.permissions import Permission, may
from devaipod_web.forges.errors import ForgeError
from devaipod_web.forges.git import DIFF_FLAGS, git
from devaipod_web.reviews import audit as audit_log
from devaipod_web.reviews import page, queries
from devaipod_web.reviews.errors import ReviewError
from devaipod_web.reviews.models import AuditEntry, Review, ReviewState
from devaipod_web.reviews.services.promote import promote
from devaipod_web.reviews.services.reject import reject

MAX_PATCH_BYTES = 64 * 1024 * 1024
_STATES = [
    (ReviewState.OPEN.value, "Waiting"),
    (ReviewState.PROMOTED.value, "Promoted"),
    (ReviewState.REJECTED.value, "Rejected"),
    ("all", "All"),
]


def _person(request: HttpRequest) -> User:
    """The person who asks; the permission table has let no stranger pass."""
    assert isinstance(request.user, User)
    return request.user


# --- the list -------------------------------------------------------------------------------------------------------


def _list_context(request: HttpRequest) -> dict[str, Any]:
    given = request.GET
    filters = queries.Filters(
        state=given.get("state", ReviewState.OPEN),
        project=given.get("project", "")[:60],
        text=given.get("q", "")[:200],
    )
    counts = queries.state_counts(filters)
    query = given.copy()
    query.pop("page", None)
    tabs = []
    for value, label in _STATES:
        query["state"] = value
        tabs.append(
            {
                "value": value,
                "label": label,
                "count": counts[value],
                "url": f"?{query.urlencode()}",
                "current": value == filters.state,
            }
        )
    query["state"] = filters.state
    return {
        "filters": filters,
        "filtered": bool(filters.project or filters.text),
        "tabs": tabs,
        "total": counts["all"],
        "rows": Paginator(queries.list_reviews(filters), queries.PAGE).get_page(given.get("page")),
        "query": query.urlencode(),
    }


@require_GET
def reviews(request: HttpRequest) -> HttpResponse:
    """The list of reviews; filters and page are in the address."""
    context = {**_list_context(request), "projects": queries.projects_with_reviews()}
    return render(request, "reviews/list.html", context)


@require_GET
def reviews_live(request: HttpRequest) -> HttpResponse:
    """The part of the list that is fetched again when something has happened."""
    return render(request, "reviews/_table.html", _list_context(request))


# --- one review -----------------------------------------------------------------------------------------------------


def _find(key: str) -> Review:
    review = queries.review_page(key)
    if review is None:
        raise Http404("There is no such review.")
    return review


def _frame(request: HttpRequest, review: Review, tab: str) -> dict[str, Any]:
    """What each tab of a review shows around its content."""
    return {
        "review": review,
        "run": review.run,
        "project": review.run.project,
        "tab": tab,
        "behind": page.behind(review),
        "is_open": review.state == ReviewState.OPEN,
        "may_decide": may(request.user, Permission.REVIEW),
        "form": page.promote_form(review),
        "promotions": list(review.promotions.all())[:10],
    }


@require_GET
def review(request: HttpRequest, key: str) -> HttpResponse:
    """The files of a change, one of them open: `?file=` names it, `?lines=all` shows it whole."""
    found = _find(key)
    shown = page.change(
        found, file=request.GET.get("file", ""), full=request.GET.get("lines") == "all"
    )
    return render(
        request, "reviews/files.html", {**_frame(request, found, "files"), "change": shown}
    )


@require_GET
def review_commits(request: HttpRequest, key: str) -> HttpResponse:
    """The commits that would leave."""
    found = _find(key)
    commits, problem = page.commits(found)
    return render(
        request,
        "reviews/commits.html",
        {**_frame(request, found, "commits"), "commits": commits, "problem": problem},
    )


@require_GET
def review_patch(request: HttpRequest, key: str) -> HttpResponse:
    """The whole change as a file for `git apply`, binary files included."""
    found = _find(key)
    repository = home.run_repository(found.run.project.key, found.run.key)
    try:
        text = git(
            ["diff", "--binary", *DIFF_FLAGS, "--end-of-options", found.base, found.head],
            repository=repository,
            limit=MAX_PATCH_BYTES,
            timeout=120,
        )
    except ForgeError as error:
        messages.error(request, error.sentence)
        return redirect("review", key=found.key)
    response = HttpResponse(text, content_type="text/x-diff; charset=utf-8")
    response.headers["Content-Disposition"] = f'attachment; filename="{found.run.key}.patch"'
    return response


@require_http_methods(["GET", "POST"])
def review_promote(request: HttpRequest, key: str) -> HttpResponse:
    """Ask once what would be promoted where, and do it."""
    found = _find(key)
    if request.method == "GET":
        return _decision(request, found, "promote")
    given = {
        "head": request.POST.get("head", "")[:64],
        "branch": request.POST.get("branch", "")[:250].strip(),
        "ticks": request.POST.getlist("tick")[:1000],
    }
    try:
        done = promote(
            found,
            _person(request),
            head=str(given["head"]),
            ticks=set(given["ticks"]),
            branch=str(given["branch"]),
        )
    except (ReviewError, ForgeError) as error:
        return _decision(request, _find(key), "promote", error=error, given=given)
    messages.success(
        request,
        f"Promoted {done.head[:12]} to {page.target_name(done.target_url)} as {done.target_branch}.",
    )
    return redirect("review", key=found.key)


@require_http_methods(["GET", "POST"])
def review_reject(request: HttpRequest, key: str) -> HttpResponse:
    """Ask once, and close the review."""
    found = _find(key)
    if request.method == "GET":
        return _decision(request, found, "reject")
    given = {"reason": request.POST.get("reason", "")[:1000]}
    try:
        reject(found, _person(request), head=request.POST.get("head", ""), reason=given["reason"])
    except (ReviewError, ForgeError) as error:
        return _decision(request, _find(key), "reject", error=error, given=given)
    messages.success(request, "Rejected. The run's next push opens the review again.")
    return redirect("review", key=found.key)


def _decision(
    request: HttpRequest,
    found: Review,
    verb: str,
    *,
    error: ReviewError | ForgeError | None = None,
    given: dict[str, Any] | None = None,
) -> HttpResponse:
    """The page that asks before something leaves or is closed, with what was entered and why it was refused."""
    context = {
        **_frame(request, found, verb),
        "verb": verb,
        "error": error,
        "given": given or {},
        "form": page.promote_form(found, given if verb == "promote" else None),
    }
    return render(request, "reviews/decide.html", context, status=error.status if error else 200)


# --- the audit log --------------------------------------------------------------------------------------------------


def _audit_filters(request: HttpRequest) -> queries.AuditFilters:
    given = request.GET
    return queries.AuditFilters(
        action=given.get("action", "")[:60],
        actor=given.get("actor", "")[:200],
        text=given.get("q", "")[:200],
    )


@require_GET
def audit(request: HttpRequest) -> HttpResponse:
    """Who did what; filters and page are in the address."""
    return render(request, "reviews/audit.html", _audit_context(request))


def _audit_context(request: HttpRequest) -> dict[str, Any]:
    filters = _audit_filters(request)
    actions, actors = queries.audit_choices()
    query = request.GET.copy()
    query.pop("page", None)
    return {
        "filters": filters,
        "filtered": bool(filters.action or filters.actor or filters.text),
        "actions": actions,
        "actors": actors,
        "rows": Paginator(queries.audit_entries(filters), queries.PAGE).get_page(
            request.GET.get("page")
        ),
        "query": query.urlencode(),
    }


@require_POST
def audit_verify(request: HttpRequest) -> HttpResponse:
    """Compute the chain of hashes again and say how far it is sound."""
    result = audit_log.verify()
    if getattr(request, "htmx", False):
        return render(request, "reviews/_audit_verified.html", {"verified": result})
    return render(request, "reviews/audit.html", {**_audit_context(request), "verified": result})


@require_GET
def audit_export(request: HttpRequest) -> HttpResponse:
    """The filtered entries as CSV, the oldest first, with their digests."""
    head = ["at", "actor", "action", "target", "address", "detail", "key", "digest"]
    rows = queries.audit_entries(_audit_filters(request)).order_by("id")
    found = (_export_row(entry) for entry in rows.iterator(chunk_size=1000))
    response = HttpResponse(sheets.lines([head, *found]), content_type=sheets.CONTENT_TYPE)
    response.headers["Content-Disposition"] = 'attachment; filename="audit.csv"'
    return response


def _export_row(entry: AuditEntry) -> list[str]:
    return [
        entry.at.isoformat(),
        entry.actor_name,
        entry.action,
        entry.target,
        entry.target_url,
        json.dumps(entry.detail, sort_keys=True),
        entry.key,
        entry.digest,
    ]
