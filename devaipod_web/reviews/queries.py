"""What pages and API read of reviews and the audit log, with the joins that they need."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Count, Q, QuerySet

from devaipod_web.projects.models import Project
from devaipod_web.reviews.models import AuditEntry, Review, ReviewState

PAGE = 50


@dataclass(frozen=True)
class Filters:
    """Which reviews to list. `state` is one of ReviewState or "all"; `project` a slug; `text` words of the title."""

    state: str = ReviewState.OPEN
    project: str = ""
    text: str = ""


@dataclass(frozen=True)
class AuditFilters:
    """Which audit entries to list. `action` is an action or its part before the dot; `text` is looked for in the target."""

    action: str = ""
    actor: str = ""
    text: str = ""


def _rows() -> QuerySet[Review]:
    return Review.objects.select_related("run__project", "run__owner", "closed_by")


def list_reviews(filters: Filters) -> QuerySet[Review]:
    """Reviews with run, project and people, the last touched first."""
    rows = _rows().order_by("-updated_at", "-id")
    if filters.state in ReviewState.values:
        rows = rows.filter(state=filters.state)
    return _narrowed(rows, filters)


def state_counts(filters: Filters) -> dict[str, int]:
    """How many reviews each state has under the other filters, and "all"."""
    rows = _narrowed(Review.objects.all(), filters)
    counts = dict(rows.order_by().values_list("state").annotate(count=Count("id")))
    found = {state: counts.get(state, 0) for state in ReviewState.values}
    return {**found, "all": sum(found.values())}


def _narrowed(rows: QuerySet[Review], filters: Filters) -> QuerySet[Review]:
    if filters.project:
        rows = rows.filter(run__project__slug=filters.project)
    for word in filters.text.split()[:8]:
        rows = rows.filter(
            Q(run__title__icontains=word)
            | Q(run__key__startswith=word)
            | Q(key__startswith=word)
            | Q(head__startswith=word)
        )
    return rows


def projects_with_reviews() -> list[Project]:
    """Projects that have a review, for the filter."""
    return list(Project.objects.filter(runs__review__isnull=False).distinct().order_by("name"))


def review_page(key: str) -> Review | None:
    """One review with all that its page shows, by its own key or its run's."""
    rows = _rows().prefetch_related("promotions__by")
    return rows.filter(key=key).first() or rows.filter(run__key=key).first()


def open_count() -> int:
    """How many reviews wait for somebody."""
    return Review.objects.filter(state=ReviewState.OPEN).count()


def audit_entries(filters: AuditFilters) -> QuerySet[AuditEntry]:
    """Audit entries, the newest first."""
    rows = AuditEntry.objects.order_by("-id")
    if filters.action:
        rows = rows.filter(Q(action=filters.action) | Q(action__startswith=filters.action + "."))
    if filters.actor:
        rows = rows.filter(actor_name=filters.actor)
    for word in filters.text.split()[:8]:
        rows = rows.filter(Q(target__icontains=word) | Q(detail__icontains=word))
    return rows


def audit_choices() -> tuple[list[str], list[str]]:
    """The actions and the people's names that occur, for the filters. Agents of runs are not listed one by one."""
    actions = AuditEntry.objects.order_by("action").values_list("action", flat=True).distinct()
    actors = (
        AuditEntry.objects.exclude(actor_name__startswith="agent of run ")
        .order_by("actor_name")
        .values_list("actor_name", flat=True)
        .distinct()
    )
    return list(actions[:200]), list(actors[:500])
