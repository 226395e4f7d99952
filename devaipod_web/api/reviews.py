"""Reviews over the API: list, read, promote, reject."""

from __future__ import annotations

from typing import Annotated, Any

from django.db.models import F, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from ninja import Field, Query, Router, Schema

from devaipod_web import home
from devaipod_web.api.auth import caller
from devaipod_web.api.filters import CommaSeparated, Moment
from devaipod_web.api.problems import Problem
from devaipod_web.api.reach import nothing
from devaipod_web.api.routing import Order, operation, paged
from devaipod_web.api.schemas.reviews import (
    PromoteIn,
    PromotionOut,
    RejectIn,
    ReviewDetail,
    ReviewOut,
    ReviewStateName,
)
from devaipod_web.forges.git import DIFF_FLAGS, git
from devaipod_web.reviews.models import Promotion, Review
from devaipod_web.reviews.services.promote import promote
from devaipod_web.reviews.services.reject import reject

router = Router(tags=["reviews"])

#: A larger diff is refused with a sentence: it is read in the repository, not over the API.
MAX_DIFF_BYTES = 16 * 1024**2


def _rows() -> QuerySet[Review]:
    return Review.objects.select_related("run__project", "run__owner", "closed_by")


def find(key: str) -> Review:
    """The review of this key, or of the run of this key. Raises Http404."""
    review = _rows().filter(key=key).first() or _rows().filter(run__key=key).first()
    if review is None:
        raise nothing("review", key)
    return review


ORDERS = {
    "activity": Order("updated_at", descending=True),
    "newest": Order("opened_at", descending=True),
    "oldest": Order("opened_at"),
    "size": Order(F("additions") + F("deletions"), descending=True),
    "state": Order("state"),
    "project": Order("run__project__name"),
}


class Filters(Schema):
    """Which reviews."""

    state: Annotated[list[ReviewStateName], CommaSeparated] = Field(
        [], description="Any of these states; repeated, or with commas between."
    )
    project: str = Field("", description="The short name or key of a project.", max_length=60)
    owner: str = Field("", description="Who asked for the run: a name, or `me`.", max_length=150)
    updated_after: Moment | None = Field(None, description="Touched at this time or later.")
    updated_before: Moment | None = Field(None, description="Last touched before this time.")


@operation(router, "GET", "", operation_id="reviews_list", response=list[ReviewOut])
@paged(ORDERS)
def reviews_list(request: HttpRequest, filters: Query[Filters]) -> QuerySet[Review]:
    """List reviews.

    The last touched first, unless `sort` says otherwise.
    """
    rows = _rows()
    if filters.project:
        rows = rows.filter(
            Q(run__project__slug=filters.project) | Q(run__project__key=filters.project)
        )
    if filters.state:
        rows = rows.filter(state__in=filters.state)
    if filters.owner:
        name = caller(request).username if filters.owner == "me" else filters.owner
        rows = rows.filter(Q(run__owner__username=name) | Q(run__owner__key=name))
    if filters.updated_after is not None:
        rows = rows.filter(updated_at__gte=filters.updated_after)
    if filters.updated_before is not None:
        rows = rows.filter(updated_at__lt=filters.updated_before)
    return rows


@operation(router, "GET", "/{key}", operation_id="review_get", response=ReviewDetail)
def review_get(request: HttpRequest, key: str) -> Review:
    """One review.

    By its own key or its run's, with its risks and promotions.
    """
    return find(key)


@operation(
    router,
    "GET",
    "/{key}/diff",
    operation_id="review_diff",
    media={"text/x-diff": None},
    headers={"X-Devaipod-Head": "The commit that the diff ends at."},
    problems=(410, 413, 502, 503, 504),
)
def review_diff(request: HttpRequest, key: str) -> HttpResponse:
    """The reviewed diff as plain text.

    From base to head, as `git apply` takes it, at most 16 MiB. Its text comes from an agent: show it, never execute it.
    """
    review = find(key)
    repository = home.run_repository(review.run.project.key, review.run.key)
    if not repository.is_dir():
        raise Problem(410, "repository-gone", "The run's repository is no longer there.")
    text = git(
        ["diff", "--text", *DIFF_FLAGS, "--end-of-options", review.base, review.head],
        repository=repository,
        limit=MAX_DIFF_BYTES,
    )
    response = HttpResponse(text, content_type="text/x-diff; charset=utf-8")
    response.headers["X-Devaipod-Head"] = review.head
    return response


@operation(
    router,
    "POST",
    "/{key}/promote",
    operation_id="review_promote",
    response=PromotionOut,
    problems=(409, 413, 502, 503, 504),
)
def review_promote(request: HttpRequest, key: str, body: PromoteIn) -> Promotion:
    """Push exactly the reviewed commit to production.

    Plain git, no model. Refused (409) when the branch is no longer what was reviewed, a risk is not ticked, or somebody was
    first; sending it again is safe.
    """
    return promote(
        find(key), caller(request), head=body.head, ticks=set(body.ticks), branch=body.branch
    )


@operation(
    router,
    "POST",
    "/{key}/reject",
    operation_id="review_reject",
    response=ReviewDetail,
    problems=(409,),
)
def review_reject(request: HttpRequest, key: str, body: RejectIn | None = None) -> Any:
    """Close a review.

    The run's next push opens it again.
    """
    asked = body or RejectIn()
    reject(find(key), caller(request), head=asked.head, reason=asked.reason)
    return find(key)
