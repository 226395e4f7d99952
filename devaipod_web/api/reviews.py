"""Reviews over the API: list, read, promote, reject."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from ninja import Query, Router, Schema

from devaipod_web import home
from devaipod_web.api.auth import caller
from devaipod_web.api.problems import Problem
from devaipod_web.api.routing import operation, paged
from devaipod_web.api.schemas import PromoteIn, PromotionOut, RejectIn, ReviewDetail, ReviewOut
from devaipod_web.forges.git import DIFF_FLAGS, git
from devaipod_web.reviews.models import Promotion, Review, ReviewState
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
        raise Http404(f"There is no review {key[:20]!r}.")
    return review


class Filters(Schema):
    """Which reviews."""

    state: str = ""
    project: str = ""


@operation(router, "GET", "", operation_id="reviews_list", response=list[ReviewOut])
@paged("-updated_at", "-id")
def reviews_list(request: HttpRequest, filters: Query[Filters]) -> QuerySet[Review]:
    """List reviews, the last touched first."""
    rows = _rows()
    if filters.project:
        rows = rows.filter(run__project__slug=filters.project)
    if filters.state:
        if filters.state not in ReviewState.values:
            raise Problem(
                400,
                "no-such-state",
                f"There is no review state {filters.state[:30]!r}.",
                next_step=f"States are {', '.join(ReviewState.values)}.",
            )
        rows = rows.filter(state=filters.state)
    return rows


@operation(router, "GET", "/{key}", operation_id="review_get", response=ReviewDetail)
def review_get(request: HttpRequest, key: str) -> Review:
    """One review, by its own key or its run's, with its risks and promotions."""
    return find(key)


@operation(router, "GET", "/{key}/diff", operation_id="review_diff")
def review_diff(request: HttpRequest, key: str) -> HttpResponse:
    """The reviewed diff as plain text, from base to head, as `git apply` takes it. Its text comes from an agent."""
    review = find(key)
    repository = home.run_repository(review.run.project.key, review.run.key)
    if not repository.is_dir():
        raise Http404("The run's repository is no longer there.")
    text = git(
        ["diff", "--text", *DIFF_FLAGS, "--end-of-options", review.base, review.head],
        repository=repository,
        limit=MAX_DIFF_BYTES,
    )
    response = HttpResponse(text, content_type="text/x-diff; charset=utf-8")
    response.headers["X-Devaipod-Head"] = review.head
    return response


@operation(router, "POST", "/{key}/promote", operation_id="review_promote", response=PromotionOut)
def review_promote(request: HttpRequest, key: str, body: PromoteIn) -> Promotion:
    """Push exactly the reviewed commit to production. `ticks` are the ids of the risks that were looked at."""
    return promote(
        find(key), caller(request), head=body.head, ticks=set(body.ticks), branch=body.branch
    )


@operation(router, "POST", "/{key}/reject", operation_id="review_reject", response=ReviewDetail)
def review_reject(request: HttpRequest, key: str, body: RejectIn | None = None) -> Any:
    """Close a review; the run's next push opens it again."""
    asked = body or RejectIn()
    reject(find(key), caller(request), head=asked.head, reason=asked.reason)
    return find(key)
