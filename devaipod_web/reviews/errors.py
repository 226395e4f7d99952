"""What a person is told when something about a review could not be done.

ReviewError
├── NotReviewable       what the run pushed cannot be shown as one change
├── MovedSinceReviewed  the branch, or the change in it, is not what was reviewed
├── TicksMissing        a risk has not been ticked
├── AlreadyDecided      somebody promoted or rejected it first
├── InProgress          somebody else is promoting it at this moment
└── BadTarget           the branch or the production address cannot be promoted to
"""

from __future__ import annotations

from devaipod_web.errors import DevaipodError


class ReviewError(DevaipodError):
    """Something about a review could not be done. `message` and `next_step` are sentences; both are shown."""

    code = "review-error"
    status = 409


class NotReviewable(ReviewError):
    """What the run pushed has no common history with its base, more than one merge base, or too many commits."""

    code = "not-reviewable"


class MovedSinceReviewed(ReviewError):
    """The branch, or the change in it, is not what was reviewed. Look at the page again, then decide."""

    code = "moved-since-reviewed"


class TicksMissing(ReviewError):
    """A risk has not been ticked. `missing` are the ids of those risks."""

    code = "ticks-missing"

    def __init__(self, message: str, *, missing: list[str], next_step: str = "") -> None:
        super().__init__(message, next_step=next_step)
        self.missing = missing


class AlreadyDecided(ReviewError):
    """Somebody promoted or rejected it first; the message says who."""

    code = "already-decided"


class InProgress(ReviewError):
    """Somebody else is promoting it at this moment."""

    code = "promotion-in-progress"


class BadTarget(ReviewError):
    """The branch's name, or the production address, cannot be promoted to."""

    code = "bad-target"
    status = 400
