"""The page Spend and its CSV. Everything that it shows is in its address."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET

from devaipod_web import sheets
from devaipod_web.accounts.permissions import Permission, may
from devaipod_web.budgets import pace, queries
from devaipod_web.budgets.models import Level, Scope
from devaipod_web.budgets.pace import Pace
from devaipod_web.budgets.spend import changes, drawing, figures, month, report
from devaipod_web.budgets.spend import export as csv
from devaipod_web.budgets.spend.ranges import PRESETS, BadRange, Range, chosen, preset
from devaipod_web.llm import reports
from devaipod_web.llm.models import LlmCall
from devaipod_web.projects.models import Project
from devaipod_web.templatetags.show import money

#: Budgets and incidents that the page shows; the others are a link away.
BUDGETS_SHOWN = 8
INCIDENTS_SHOWN = 5


class Asked:
    """What an address asks for: range, stack, project. A range that cannot be is this month, and `error` says why."""

    def __init__(self, request: HttpRequest, today: date) -> None:
        given = request.GET
        self.error = ""
        self.typed = (given.get("from", "")[:20], given.get("to", "")[:20])
        try:
            self.range: Range = chosen(given, today)
        except BadRange as error:
            self.error = str(error)
            self.range = preset("month", today)
        by = given.get("by", "project")
        self.by = by if by in report.STACKS else "project"
        slug = given.get("project", "")[:60]
        self.project = Project.objects.filter(slug=slug).first() if slug else None
        if slug and self.project is None:
            raise Http404("There is no such project.")

    def address(self, **changes: Any) -> str:
        """The query of this page with changes: `range` (its parameters), `by`, `project` (a short name)."""
        project = self.project.slug if self.project else ""
        found = {
            **changes.get("range", self.range.query),
            "by": changes.get("by", self.by),
            "project": changes.get("project", project),
        }
        return urlencode({name: value for name, value in found.items() if value})

    def calls(self) -> Any:
        """The calls of the range and project."""
        found = reports.calls(since=self.range.start, until=self.range.end)
        return found if self.project is None else reports.of_project(found, self.project)


@require_GET
def spend(request: HttpRequest) -> HttpResponse:
    """What was spent, how budgets stand, which runs cost most."""
    now = timezone.now()
    asked = Asked(request, now.date())
    stacked, _ = report.stacked(asked.calls(), asked.range, asked.by, now)
    found = figures.figures(asked.range, now, asked.project, spent=stacked.total.cost)
    runs = changes.launched(asked.range.start, asked.range.end, asked.project)
    incidents = queries.open_incidents()
    if asked.project is not None:
        incidents = incidents.filter(run__project=asked.project)
    context = {
        **_menus(asked, now.date()),
        "asked": asked,
        "range": asked.range,
        "spend": stacked,
        "drawing": drawing.draw(stacked) if stacked.columns else None,
        "figures": found,
        **_words(found, stacked),
        "month_help": month.HELP,
        "rows": [
            (drawing.when(column.start, asked.range.per), column) for column in stacked.columns
        ],
        **_budgets(asked, runs),
        "expensive": changes.most_expensive(runs),
        "slowest": changes.slowest(runs),
        "incidents": incidents.filter(level=Level.HARD)[:INCIDENTS_SHOWN],
        "open_incidents": incidents.count(),
        "any_calls": stacked.total.calls > 0 or LlmCall.objects.exists(),
        "may_manage": may(request.user, Permission.MANAGE),
    }
    return render(request, "spend/page.html", context, status=400 if asked.error else 200)


def _menus(asked: Asked, today: date) -> dict[str, Any]:
    here = reverse("spend")
    ranges = [
        (label, f"{here}?{asked.address(range={'range': name})}", name == asked.range.name)
        for name, label in PRESETS
    ]
    stacks = [
        (f"By {label}", f"{here}?{asked.address(by=word)}", word == asked.by)
        for word, (_, label) in report.STACKS.items()
    ]
    slug = asked.project.slug if asked.project else ""
    projects = [("All projects", f"{here}?{asked.address(project='')}", not slug)]
    projects += [
        (row.name, f"{here}?{asked.address(project=row.slug)}", row.slug == slug)
        for row in Project.objects.order_by("name")
    ]
    query = asked.address()
    return {
        "ranges": ranges,
        "stacks": stacks,
        "projects": projects,
        "export_url": f"{reverse('spend_export')}?{query}",
        "calls_url": f"{reverse('spend_calls')}?{query}",
        "today": today,
    }


def _words(found: figures.Figures, stacked: report.Stacked) -> dict[str, str]:
    """The figures as sentences of the cards."""
    this = found.month
    if this.limit is not None:
        note = f"of {money(this.limit)}" + (f", {this.note}" if this.note else "")
    elif this.low is not None and this.high is not None:
        note = f"likely {whole(this.low)} – {whole(this.high)}"
    else:
        note = this.note
    promoted = found.changes.promoted
    changed = (
        f"median; {promoted:,} change{'s' if promoted != 1 else ''}, all spend over them {money(found.per_change)}"
        if promoted
        else "none promoted"
    )
    return {
        # What calls without a known price cost is in no sum.
        "spent_words": money(found.spent) + (" + ?" if stacked.total.uncounted_calls else ""),
        "month_words": whole(this.projected),
        "month_note": note,
        "change_note": changed,
    }


def whole(value: Decimal | None) -> str:
    """A projection, no more exact than it is: whole dollars from 100 on."""
    return f"${value:,.0f}" if value is not None and value >= 100 else money(value)


def _budgets(asked: Asked, runs: Any) -> dict[str, Any]:
    rows = pace.paces(asked.project, enabled_only=True)
    policies = {
        row.budget.metric
        for row in rows
        if row.is_policy and row.budget.scope == Scope.INSTALLATION
    }
    rows += pace.defaults(policies, timezone.now())
    # Those that are nearest to their end stand first among those that are shown; then the order of the list.
    shown = sorted(rows, key=_urgency)[:BUDGETS_SHOWN]
    launched = runs.count()
    return {
        "budgets": [(row, _reached(row, runs, launched)) for row in rows if row in shown],
        "more_budgets": len(rows) - len(shown),
    }


def _urgency(row: Pace) -> tuple[bool, float]:
    return row.budget.scope != Scope.INSTALLATION, -row.share


def _reached(row: Pace, runs: Any, launched: int) -> str:
    """Of a policy: how many of the range's runs came to it."""
    if not row.is_policy:
        return ""
    project = row.budget.project
    of = runs if project is None else runs.filter(project=project)
    count = launched if project is None else of.count()
    if not count:
        return "no runs in this range"
    return f"{pace.reached(of, row.budget.metric):,} of {count:,} runs reached it"


@require_GET
def export(request: HttpRequest) -> HttpResponse:
    """The range's sums per period and group as CSV."""
    now = timezone.now()
    asked = Asked(request, now.date())
    if asked.error:
        return HttpResponse(f"{asked.error}\n", content_type="text/plain", status=400)
    rows = reports.named_series(asked.calls(), report.STACKS[asked.by][0], asked.range.per)
    response = HttpResponse(
        csv.series(rows, asked.by, asked.range.per), content_type=sheets.CONTENT_TYPE
    )
    response.headers["Content-Disposition"] = f'attachment; filename="{_name(asked, "spend")}"'
    return response


@require_GET
def calls(request: HttpRequest) -> StreamingHttpResponse | HttpResponse:
    """The range's calls as CSV, one a line."""
    asked = Asked(request, timezone.now().date())
    if asked.error:
        return HttpResponse(f"{asked.error}\n", content_type="text/plain", status=400)
    response = StreamingHttpResponse(csv.calls_csv(asked.calls()), content_type=sheets.CONTENT_TYPE)
    response.headers["Content-Disposition"] = f'attachment; filename="{_name(asked, "calls")}"'
    response.headers["X-Accel-Buffering"] = "no"
    return response


def _name(asked: Asked, what: str) -> str:
    of = f"-{asked.project.slug}" if asked.project else ""
    return f"{what}{of}-{asked.range.first}-{asked.range.last}.csv"
