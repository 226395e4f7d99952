"""Push exactly the commit that was reviewed to the production remote."""

from __future__ import annotations

import re
import unicodedata
from contextlib import ExitStack
from pathlib import Path

from django.db import transaction
from django.utils import timezone

from devaipod_web import home
from devaipod_web.accounts.models import User
from devaipod_web.forges import guard, staging
from devaipod_web.forges.errors import BranchMoved, Busy, ForgeError, PushRefused
from devaipod_web.forges.git import REMOTE_SECONDS, commit_at, git
from devaipod_web.forges.guard import Target
from devaipod_web.projects.models import Project
from devaipod_web.reviews import audit, changes
from devaipod_web.reviews.errors import (
    AlreadyDecided,
    BadTarget,
    InProgress,
    MovedSinceReviewed,
    ReviewError,
    TicksMissing,
)
from devaipod_web.reviews.models import Promotion, PromotionState, Review, ReviewState
from devaipod_web.runs import events
from devaipod_web.runs.models import Run

_SLUG_LENGTH = 40
_INTERRUPTED = (
    "The server ended while this promotion was under way, and the branch had not arrived."
)


def production_url(project: Project) -> str:
    """Where approved changes of a project go."""
    return project.production_url or project.upstream_url


def default_branch(run: Run) -> str:
    """The branch that a promotion makes: the project's prefix, the run's key and its title's words."""
    plain = unicodedata.normalize("NFKD", run.title).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    if len(slug) > _SLUG_LENGTH:
        # Cut between words, unless the first is longer than all that there is room for.
        slug = slug[: _SLUG_LENGTH + 1].rpartition("-")[0] or slug[:_SLUG_LENGTH]
    return f"{run.project.production_prefix}{run.key}" + (f"-{slug}" if slug else "")


def promote(review: Review, by: User, *, head: str, ticks: set[str], branch: str = "") -> Promotion:
    """Push the reviewed commit to production as a new branch, and return the promotion that is done.

    `head` is the commit that the person saw; `ticks` are the ids of the risks that the person confirmed; `branch` is the
    target's name (empty: `default_branch`). Steps: take the review's lock (it dies with the process); check that review,
    run branch and diff are still what was seen; write the promotion as started; push, creating the branch and never
    moving one; write review, promotion, event and audit entry. A promotion that was killed in the middle is settled by the
    next call: one whose branch has arrived is written as done, any other as refused, and the call goes on.

    Blocking: git and the network, so never inside a transaction. Raises `reviews.errors` and `forges.errors`; every
    refusal is in the audit log.
    """
    review = Review.objects.select_related("run__project", "closed_by").get(pk=review.pk)
    project = review.run.project
    repository = home.run_repository(project.key, review.run.key)
    try:
        with ExitStack() as stack:
            _take(stack, review, repository)
            settled = _settle(review, by)
            if settled is not None and settled.head == head:
                return settled
            review.refresh_from_db()
            _check(review, repository, head=head, ticks=ticks)
            name = _branch(project, branch.strip() or default_branch(review.run))
            target = guard.open_repository(production_url(project))
            promotion = _start(review, by, target=target, branch=name, ticks=ticks)
            try:
                _push(repository, target, commit=head, branch=name)
            except ForgeError as error:
                _refused(promotion, by, error)
                raise
            return _done(promotion, by)
    except (ReviewError, ForgeError) as error:
        if not getattr(error, "audited", False):
            _note_refusal(review, by, head=head, error=error)
        raise


def _take(stack: ExitStack, review: Review, repository: Path) -> None:
    """Hold the review's lock, or say who is promoting it now."""
    if not repository.is_dir():
        raise MovedSinceReviewed(
            "The run's repository is no longer there, so its commit cannot be promoted.",
            next_step="Launch the task again.",
        )
    try:
        lock = staging.locked(
            repository / "devaipod-promote.lock", seconds=0, what="this promotion"
        )
        stack.enter_context(lock)
    except Busy as error:
        running = (
            Promotion.objects.filter(review=review, state=PromotionState.STARTED)
            .select_related("by")
            .first()
        )
        who = str(running.by) if running is not None and running.by else "Somebody else"
        raise InProgress(
            f"{who} is promoting this change at this moment.",
            next_step="Reload the page to see how it ended.",
        ) from error


def _settle(review: Review, by: User) -> Promotion | None:
    """Find out what became of a promotion that a killed server left as started; return it when its branch arrived.

    The review's lock is held, so none of these rows is alive.
    """
    arrived = None
    for row in Promotion.objects.filter(review=review, state=PromotionState.STARTED):
        try:
            target = guard.open_repository(row.target_url)
            there = _remote_ref(target, f"refs/heads/{row.target_branch}") == row.head
        except ForgeError as error:
            _refused(row, row.by or by, error)
            continue
        if there:
            arrived = _done(row, row.by or by)
        else:
            _refused(row, row.by or by, PushRefused(_INTERRUPTED))
    return arrived


def _check(review: Review, repository: Path, *, head: str, ticks: set[str]) -> None:
    """Raise unless the review is open and review, branch and diff are what the person saw, with every risk ticked."""
    if review.state != ReviewState.OPEN:
        raise decided(review)
    look = "Look at the changes again, then promote what you see."
    if not head or head != review.head:
        raise MovedSinceReviewed(
            f"The branch has moved since you reviewed it: it is at {review.head[:12]} now, and you saw "
            f"{head[:12] or 'no commit'}.",
            next_step=look,
        )
    present = commit_at(repository, f"refs/heads/{review.run.branch}")
    if present != head:
        raise MovedSinceReviewed(
            "The branch has moved since you reviewed it: "
            + (f"it is at {present[:12]} now." if present else "it is gone."),
            next_step=look,
        )
    base = changes.merge_base(repository, review.run.base_commit, head)
    if base != review.base or changes.digest(repository, base, head) != review.diff_digest:
        raise MovedSinceReviewed(
            "The diff between base and head is not the one that was reviewed.",
            next_step="Ask a manager to look at the staging repository: this should not happen.",
        )
    missing = [risk for risk in review.risks if risk["tick"] and risk["id"] not in ticks]
    if missing:
        names = "; ".join(
            f"{risk['path']}: {risk['text']}" if risk["path"] else risk["text"]
            for risk in missing[:3]
        )
        raise TicksMissing(
            f"{len(missing)} risk{'s' if len(missing) > 1 else ''} not confirmed: {names}.",
            missing=[risk["id"] for risk in missing],
            next_step="Tick each of them after looking at it.",
        )


def decided(review: Review) -> AlreadyDecided:
    """The error for a review that is closed, naming who closed it."""
    who = str(review.closed_by) if review.closed_by else "Somebody"
    what = "promoted" if review.state == ReviewState.PROMOTED else "rejected"
    return AlreadyDecided(
        f"{who} has {what} this change already.", next_step="Reload the page to see it."
    )


def _branch(project: Project, name: str) -> str:
    """The target's name when it may be used: below the project's prefix, and not the upstream's own branch."""
    prefix = project.production_prefix
    if not staging.valid_branch(name) or name.startswith("refs/"):
        raise BadTarget(
            f"{name!r} is not a name that git takes for a branch.",
            next_step="Use letters, digits, dots, dashes and slashes.",
        )
    if not name.startswith(prefix) or name == prefix or name == project.upstream_branch:
        raise BadTarget(
            f"Promoted branches of this project begin with {prefix!r}, and {name!r} does not.",
            next_step="Choose a name below the prefix; a manager can change the prefix.",
        )
    return name


def _start(review: Review, by: User, *, target: Target, branch: str, ticks: set[str]) -> Promotion:
    """Write the promotion as started."""
    with transaction.atomic():
        promotion = Promotion.objects.create(
            review=review,
            head=review.head,
            diff_digest=review.diff_digest,
            target_url=target.url,
            target_branch=branch,
            by=by,
        )
        confirmed = [risk for risk in review.risks if risk["id"] in ticks]
        _audit(
            promotion,
            by,
            "promotion.started",
            {"confirmed": [f"{risk['code']} {risk['path']}".strip() for risk in confirmed]},
        )
    return promotion


def _push(repository: Path, target: Target, *, commit: str, branch: str) -> None:
    """Create the branch at production with exactly this commit; a branch that is at this commit already is a success."""
    what = target.url
    ref = f"refs/heads/{branch}"
    present = _remote_ref(target, ref)
    if present == commit:
        return
    if present is not None:
        raise BranchMoved(
            f"The branch {branch} exists already at {what}, at another commit ({present[:12]}).",
            next_step="Promote to a branch with another name, or remove that one.",
        )
    try:
        git(
            [
                "push",
                "--no-verify",
                "--no-follow-tags",
                "--no-signed",
                "--recurse-submodules=no",
                # Expects that the ref is not there: another one's branch that appeared meanwhile is refused by the
                # other side, where a plain push would fast-forward it. Nothing is ever overwritten.
                f"--force-with-lease={ref}:",
                "--end-of-options",
                target.url,
                f"{commit}:{ref}",
            ],
            repository=repository,
            timeout=REMOTE_SECONDS,
            config=target.git_config,
            env=target.git_env,
            what=what,
        )
    except ForgeError:
        # The answer may have been lost after the other side took it.
        if _remote_ref(target, ref) == commit:
            return
        raise


def _remote_ref(target: Target, ref: str) -> str | None:
    """The object that a ref of the production repository is at, or None."""
    listed = git(
        ["ls-remote", "--refs", "--end-of-options", target.url, ref],
        repository=None,
        timeout=60,
        config=target.git_config,
        env=target.git_env,
        what=target.url,
    )
    for line in listed.decode("utf-8", "replace").splitlines():
        sha, _, name = line.partition("\t")
        if name == ref:
            return sha
    return None


def _done(promotion: Promotion, by: User) -> Promotion:
    """Write what was pushed: promotion, review (when it is still open at this head), event and audit entry."""
    now = timezone.now()
    with transaction.atomic():
        promotion.state, promotion.ended_at = PromotionState.DONE, now
        promotion.save(update_fields=["state", "ended_at"])
        # A push that came in between has opened the review at another head: then it stays open.
        Review.objects.filter(
            pk=promotion.review_id, state=ReviewState.OPEN, head=promotion.head
        ).update(state=ReviewState.PROMOTED, closed_at=now, closed_by=by, updated_at=now)
        events.record(
            promotion.review.run,
            events.Kind.PROMOTED,
            {
                "review": promotion.review.key,
                "branch": promotion.target_branch,
                "head": promotion.head,
                "by": str(by),
            },
        )
        _audit(promotion, by, "promotion.done", {})
    return promotion


def _refused(promotion: Promotion, by: User, error: ForgeError) -> None:
    """Write that the other side, or git, said no."""
    with transaction.atomic():
        promotion.state, promotion.ended_at = PromotionState.REFUSED, timezone.now()
        promotion.message = error.message[:1000]
        promotion.save(update_fields=["state", "ended_at", "message"])
        _audit(promotion, by, "promotion.refused", {"code": error.code, "message": error.message})
    error.audited = True  # type: ignore[attr-defined]


def _note_refusal(review: Review, by: User, *, head: str, error: ReviewError | ForgeError) -> None:
    """Write a refusal that came before anything was started."""
    audit.write(
        by,
        "promotion.refused",
        target=f"{review.run.title} ({review.key})",
        target_url=f"/reviews/{review.key}/",
        detail={"head": head[:64], "code": error.code, "message": error.message},
    )


def _audit(promotion: Promotion, by: User, action: str, more: dict[str, object]) -> None:
    review = promotion.review
    audit.write(
        by,
        action,
        target=f"{review.run.title} ({review.key})",
        target_url=f"/reviews/{review.key}/",
        detail={
            "promotion": promotion.key,
            "run": review.run.key,
            "project": review.run.project.slug,
            "head": promotion.head,
            "diff_sha256": promotion.diff_digest,
            "to": promotion.target_url,
            "branch": promotion.target_branch,
            **more,
        },
    )
