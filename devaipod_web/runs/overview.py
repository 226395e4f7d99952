"""What the pages Now and Runs and the frame count and list."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.db.models import Count, Q, QuerySet, Sum
from django.utils import timezone

from devaipod_web.budgets import queries as budgets
from devaipod_web.budgets.models import Incident, Level
from devaipod_web.llm.models import LlmCall
from devaipod_web.projects.models import Project
from devaipod_web.reviews.models import Promotion, PromotionState, Review, ReviewState
from devaipod_web.runs import queries
from devaipod_web.runs.models import PermissionRequest, PermissionState, Run
from devaipod_web.runs.starting import STEPS
from devaipod_web.runs.states import State
from devaipod_web.runs.tools import call_line
from devaipod_web.targets import queries as targets
from devaipod_web.targets.choice import Place
from devaipod_web.templatetags.show import ago

#: Rows of each kind that the page Now shows.
SHOWN = 30


def open_incidents() -> QuerySet[Incident]:
    """The runs that came to a hard limit of a budget, and wait for a manager; the oldest first."""
    return budgets.open_incidents().filter(level=Level.HARD).order_by("opened_at", "pk")


def waiting_counts() -> tuple[int, int, int]:
    """How much waits for a person: (all that the page Now lists, the reviews among it, the runs without budget among it)."""
    open_requests = PermissionRequest.objects.filter(state=PermissionState.OPEN)
    reviews = Review.objects.filter(state=ReviewState.OPEN).count()
    parked = Run.objects.filter(
        Q(state=State.WAITING) & ~Q(pk__in=open_requests.values("run"))
        | Q(state=State.PAUSED) & ~Q(pk__in=open_incidents().values("run"))
    )
    failed = queries.failed_lately().order_by().count()
    incidents = open_incidents().count()
    others = open_requests.count() + parked.count() + failed
    return others + incidents + reviews, reviews, incidents


@dataclass(frozen=True)
class Listed:
    """A run in a list, with its place in the queue and the words for the step of starting that it is in."""

    run: Run
    place: str
    step: str


@dataclass(frozen=True)
class Question:
    """A permission request in a list, with what it is about in one line."""

    request: PermissionRequest
    line: str


def listed(runs: Iterable[Run]) -> list[Listed]:
    """Runs as lists show them; few queries for all the places in the queue."""
    rows = list(runs)
    places: dict[int, list[Place]] = {}
    if any(run.state == State.QUEUED for run in rows):
        places = targets.all_queue_places()
    return [
        Listed(run, targets.words(places.get(run.pk, [])), STEPS.get(run.step, run.step))
        for run in rows
    ]


@dataclass(frozen=True)
class Now:
    """The page Now. Costs are USD."""

    permissions: list[Question]
    incidents: list[Incident]
    reviews: list[Review]
    failed: list[Run]
    waiting: list[Run]
    paused: list[Run]
    runs: list[Listed]
    running: int
    queued: int
    open_reviews: int
    spent_today: Decimal
    promoted_this_week: int
    any_project: bool

    @property
    def queued_words(self) -> str:
        """How many wait for a place."""
        return f"{self.queued} queued" if self.queued else "none queued"

    @property
    def review_words(self) -> str:
        """How long the oldest review waits."""
        return f"oldest {ago(self.reviews[0].opened_at)}" if self.reviews else "none"

    @property
    def needs(self) -> int:
        """How many things need a person."""
        lists = (self.permissions, self.incidents, self.waiting, self.paused, self.failed)
        return sum(len(each) for each in lists) + self.open_reviews


def now() -> Now:
    """Everything that the page Now shows."""
    moment = timezone.now()
    runs = list(queries.in_progress()[:100])
    counts = Run.objects.aggregate(
        running=Count(
            "pk",
            filter=Q(state__in=[State.PREPARING, State.STARTING, State.RUNNING, State.WAITING]),
        ),
        queued=Count("pk", filter=Q(state=State.QUEUED)),
    )  # fmt: skip
    permissions = list(queries.open_permissions()[:SHOWN])
    incidents = list(open_incidents()[:SHOWN])
    asking = {request.run_id for request in permissions}
    held = {incident.run_id for incident in incidents}
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    reviews = (
        Review.objects.filter(state=ReviewState.OPEN)
        .select_related("run__project", "run__owner")
        .order_by("opened_at")
    )
    return Now(
        permissions=[Question(request, line_of(request)) for request in permissions],
        incidents=incidents,
        reviews=list(reviews[:SHOWN]),
        failed=list(queries.failed_lately()[:SHOWN]),
        waiting=[run for run in runs if run.state == State.WAITING and run.pk not in asking],
        paused=[run for run in runs if run.state == State.PAUSED and run.pk not in held],
        runs=listed(runs),
        running=counts["running"],
        queued=counts["queued"],
        open_reviews=reviews.count(),
        spent_today=LlmCall.objects.filter(at__gte=day).aggregate(all=Sum("cost"))["all"]
        or Decimal(0),
        promoted_this_week=Promotion.objects.filter(
            state=PromotionState.DONE, started_at__gte=moment - timedelta(days=7)
        ).count(),
        any_project=bool(runs) or Project.objects.filter(archived_at=None).exists(),
    )


def line_of(request: PermissionRequest) -> str:
    """What a permission request is about, in one line."""
    return call_line(request.tool_call, request.title)


def search(text: str, *, limit: int = 8) -> dict[str, list[Any]]:
    """Runs, projects and reviews that hold the text, a few of each."""
    if not text.strip():
        return {"runs": [], "projects": [], "reviews": []}
    reviews = Review.objects.select_related("run__project").filter(
        Q(run__title__icontains=text) | Q(key__startswith=text) | Q(head__startswith=text.lower())
    )
    projects = Project.objects.filter(
        Q(name__icontains=text) | Q(slug__icontains=text) | Q(upstream_url__icontains=text)
    )
    return {
        "runs": list(queries.list_runs(text=text)[:limit]),
        "projects": list(projects[:limit]),
        "reviews": list(reviews.order_by("-updated_at")[:limit]),
    }
