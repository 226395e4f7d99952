"""Runs by what they cost, how long they took and what became of them; what a promoted change costs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from statistics import median

from django.db.models import DurationField, ExpressionWrapper, F, QuerySet
from django.db.models.functions import Coalesce, Now

from devaipod_web.llm import reports
from devaipod_web.projects.models import Project
from devaipod_web.reviews.models import Promotion, PromotionState, ReviewState
from devaipod_web.runs.models import Run
from devaipod_web.runs.states import ENDED

SHOWN = 8


@dataclass(frozen=True)
class Changes:
    """Changes that were promoted in a range. Costs are those of their runs, whole, in US dollars; None without any."""

    promoted: int
    median_cost: Decimal | None


@dataclass(frozen=True)
class Listed:
    """A run in a table, with what became of it: (tone, shape, word), or none where its state says it."""

    run: Run
    outcome: tuple[str, str, str] | None

    @property
    def tokens(self) -> int:
        """Tokens sent and received."""
        return self.run.tokens_in + self.run.tokens_out


_OUTCOMES = {
    ReviewState.PROMOTED: ("green", "✓", "promoted"),
    ReviewState.REJECTED: ("red", "■", "rejected"),
    ReviewState.OPEN: ("amber", "◆", "in review"),
}


def promoted(start: datetime, end: datetime, project: Project | None = None) -> Changes:
    """The changes whose first promotion was done from `start` to before `end`."""
    rows = Promotion.objects.filter(state=PromotionState.DONE, ended_at__lt=end)
    if project is not None:
        rows = rows.filter(review__run__project=project)
    before = rows.filter(ended_at__lt=start)
    costs = dict(
        rows.filter(ended_at__gte=start)
        .exclude(review__in=before.values("review"))
        .order_by()
        .values_list("review_id", "review__run__cost")
    )
    return Changes(len(costs), median(costs.values()) if costs else None)


def rejected_cost(start: datetime, end: datetime, project: Project | None = None) -> Decimal:
    """What the calls of this time cost of runs whose change stands rejected."""
    runs = Run.objects.filter(review__state=ReviewState.REJECTED)
    if project is not None:
        runs = runs.filter(project=project)
    return reports.cost(reports.calls(since=start, until=end).filter(run__in=runs.values("pk")))


def launched(start: datetime, end: datetime, project: Project | None = None) -> QuerySet[Run]:
    """The runs that were launched in this time."""
    rows = Run.objects.filter(created_at__gte=start, created_at__lt=end)
    return rows if project is None else rows.filter(project=project)


def most_expensive(runs: QuerySet[Run]) -> list[Listed]:
    """Those that cost most, but for those that cost nothing."""
    return _listed(runs.filter(cost__gt=0).order_by("-cost", "-pk"))


def slowest(runs: QuerySet[Run]) -> list[Listed]:
    """Those that took, or have been taking, the longest since their start; waiting for people included."""
    took = ExpressionWrapper(
        Coalesce("ended_at", Now()) - F("started_at"), output_field=DurationField()
    )
    return _listed(runs.exclude(started_at=None).annotate(took=took).order_by("-took", "-pk"))


def _listed(runs: QuerySet[Run]) -> list[Listed]:
    rows = runs.select_related("project", "owner", "provider", "review")[:SHOWN]
    return [Listed(run, _outcome(run)) for run in rows]


def _outcome(run: Run) -> tuple[str, str, str] | None:
    review = getattr(run, "review", None) if run.state in ENDED else None
    return _OUTCOMES[ReviewState(review.state)] if review is not None else None
