"""Projects as pages, API and CLI show them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from django.db.models import Count, DecimalField, OuterRef, Q, QuerySet, Subquery, Sum, Value
from django.db.models.functions import Coalesce
from django.utils import timezone

from devaipod_web.llm.models import LlmCall
from devaipod_web.projects.models import Project
from devaipod_web.reviews.models import Review, ReviewState
from devaipod_web.runs.models import Run
from devaipod_web.runs.states import ENDED

#: How far back a project's spend is added up on its card.
SPEND_WINDOW = timedelta(days=30)
RECENT_RUNS = 10


def projects(*, archived: bool = False) -> QuerySet[Project]:
    """Projects with what a list shows of each, in one query.

    Annotated: `run_count`, `active_runs`, `open_reviews`, `last_run_key`, `last_run_title`, `last_run_state`,
    `last_run_at` and `spend` (USD in the last 30 days).
    """
    last = Run.objects.filter(project=OuterRef("pk")).order_by("-created_at")
    # A sum over a second joined table would count rows more than once: hence a subquery.
    spend = (
        LlmCall.objects.annotate(spent_by=Coalesce("run__project", "project"))
        .filter(spent_by=OuterRef("pk"), at__gt=timezone.now() - SPEND_WINDOW)
        .order_by()
        .values("spent_by")
        .annotate(total=Sum("cost"))
        .values("total")
    )
    money = DecimalField(max_digits=16, decimal_places=8)
    return (
        Project.objects.filter(archived_at__isnull=not archived)
        .select_related("provider")
        .annotate(
            run_count=Count("runs", distinct=True),
            active_runs=Count("runs", filter=~Q(runs__state__in=ENDED), distinct=True),
            open_reviews=Count(
                "runs__review", filter=Q(runs__review__state=ReviewState.OPEN), distinct=True
            ),
            last_run_key=Subquery(last.values("key")[:1]),
            last_run_title=Subquery(last.values("title")[:1]),
            last_run_state=Subquery(last.values("state")[:1]),
            last_run_at=Subquery(last.values("created_at")[:1]),
            spend=Coalesce(
                Subquery(spend, output_field=money), Value(Decimal(0)), output_field=money
            ),
        )
        .order_by("name", "pk")
    )


def by_slug(slug: str) -> Project | None:
    """A project, archived or not, with its provider."""
    return Project.objects.select_related("provider", "created_by").filter(slug=slug).first()


@dataclass(frozen=True)
class Overview:
    """What a project's page shows first. Costs are USD."""

    runs: list[Run]
    run_count: int
    active_runs: int
    reviews: list[Review]
    spend: Decimal
    spend_month: Decimal
    spend_total: Decimal
    unpriced_calls: int


def overview(project: Project) -> Overview:
    """Recent runs, open reviews and spend of a project."""
    now = timezone.now()
    since = now - SPEND_WINDOW
    month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    runs = Run.objects.filter(project=project)
    counts = runs.aggregate(
        all=Count("pk"),
        active=Count("pk", filter=~Q(state__in=ENDED)),
        unpriced=Sum("unpriced_calls"),
    )
    spent = LlmCall.objects.filter(Q(run__project=project) | Q(project=project)).aggregate(
        all=Sum("cost"),
        recent=Sum("cost", filter=Q(at__gt=since)),
        month=Sum("cost", filter=Q(at__gte=month)),
    )
    return Overview(
        runs=list(
            runs.select_related("owner", "project", "provider").order_by("-created_at")[
                :RECENT_RUNS
            ]
        ),
        run_count=counts["all"],
        active_runs=counts["active"],
        reviews=list(
            Review.objects.filter(run__project=project, state=ReviewState.OPEN)
            .select_related("run", "run__owner")
            .order_by("-updated_at")[:RECENT_RUNS]
        ),
        spend=spent["recent"] or Decimal(0),
        spend_month=spent["month"] or Decimal(0),
        spend_total=spent["all"] or Decimal(0),
        unpriced_calls=counts["unpriced"] or 0,
    )
