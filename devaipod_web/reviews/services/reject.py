"""Close a review without promoting it."""

from __future__ import annotations

from contextlib import ExitStack

from django.db import transaction
from django.utils import timezone

from devaipod_web import home
from devaipod_web.accounts.models import User
from devaipod_web.forges import staging
from devaipod_web.forges.errors import Busy
from devaipod_web.reviews import audit
from devaipod_web.reviews.errors import InProgress, MovedSinceReviewed
from devaipod_web.reviews.models import Review, ReviewState
from devaipod_web.reviews.services.promote import decided
from devaipod_web.runs import events


def reject(review: Review, by: User, *, head: str = "", reason: str = "") -> Review:
    """Close an open review as rejected, once; the run's next push opens it again.

    `head`, when given, is the commit that the person saw. Raises AlreadyDecided, InProgress while somebody promotes it,
    or MovedSinceReviewed.
    """
    review = Review.objects.select_related("run__project", "closed_by").get(pk=review.pk)
    repository = home.run_repository(review.run.project.key, review.run.key)
    with ExitStack() as stack:
        if repository.is_dir():
            try:
                stack.enter_context(
                    staging.locked(
                        repository / "devaipod-promote.lock", seconds=0, what="this review"
                    )
                )
            except Busy as error:
                raise InProgress(
                    "Somebody is promoting this change at this moment.",
                    next_step="Reload the page to see how it ended.",
                ) from error
        return _close(review, by, head=head, reason=reason)


def _close(review: Review, by: User, *, head: str, reason: str) -> Review:
    now = timezone.now()
    with transaction.atomic():
        review.refresh_from_db()
        if review.state != ReviewState.OPEN:
            raise decided(review)
        if head and head != review.head:
            raise MovedSinceReviewed(
                f"The branch has moved since you looked: it is at {review.head[:12]} now.",
                next_step="Look at the changes again, then decide.",
            )
        closed = Review.objects.filter(
            pk=review.pk, state=ReviewState.OPEN, head=review.head
        ).update(state=ReviewState.REJECTED, closed_at=now, closed_by=by, updated_at=now)
        review.refresh_from_db()
        if not closed:
            raise decided(review)
        events.record(review.run, events.Kind.REJECTED, {"review": review.key, "by": str(by)})
        audit.write(
            by,
            "review.rejected",
            target=f"{review.run.title} ({review.key})",
            target_url=f"/reviews/{review.key}/",
            detail={"run": review.run.key, "head": review.head, "reason": reason[:1000]},
        )
    return review
