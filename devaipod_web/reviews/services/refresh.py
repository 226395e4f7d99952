"""Open or update the review of what a run pushed."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from django.db import transaction
from django.utils import timezone

from devaipod_web import home
from devaipod_web.forges.git import commit_at, git
from devaipod_web.forges.staging import locked
from devaipod_web.home import new_key
from devaipod_web.reviews import audit, changes, risks
from devaipod_web.reviews.models import Review, ReviewState
from devaipod_web.runs import events
from devaipod_web.runs.models import Run

#: Seconds that a refresh waits for another of the same run.
LOCK_SECONDS = 120
#: Files that a run's page names beside its transcript.
LARGEST_FILES = 6
MAX_PATH = 300


def refresh(run_key: str) -> Review | None:
    """Bring the review of a run to what its branch holds now; None when the branch holds nothing to review.

    Steps: read the branch; find the one merge base with the run's base commit; hash the diff, count it and look for risks;
    pin the head so that no prune can take it; write review, run and event in one transaction. A review that was promoted
    or rejected is opened again when the head has changed. Calling it again changes nothing.

    Blocking: git and short transactions, so never inside one. Raises `reviews.errors.NotReviewable`, `forges.errors`, and
    Run.DoesNotExist.
    """
    run = Run.objects.select_related("project").get(key=run_key)
    repository = home.run_repository(run.project.key, run.key)
    if not repository.is_dir() or not run.branch or not run.base_commit:
        return None
    with ExitStack() as stack:
        stack.enter_context(
            locked(
                repository / "devaipod-review.lock", seconds=LOCK_SECONDS, what="the run's branch"
            )
        )
        head = commit_at(repository, f"refs/heads/{run.branch}")
        if head is None:
            return None
        review = Review.objects.filter(run=run).first()
        if review is not None and review.head == head:
            return review
        base = changes.merge_base(repository, run.base_commit, head)
        if base == head and review is None:
            return None
        return _write(run, review, repository, base, head)


def _write(run: Run, review: Review | None, repository: Path, base: str, head: str) -> Review:
    """Read the change and store it. Must run under the run's lock."""
    commits = changes.commits(repository, base, head)
    touched = changes.touched(repository, [commit.sha for commit in commits])
    counted = changes.counted(repository, base, head)
    found = risks.find(repository, base, head, commits=commits, touched=touched, counted=counted)
    facts = {
        "base": base,
        "head": head,
        "diff_digest": changes.digest(repository, base, head),
        "commits": len(commits),
        "files": len(counted),
        "additions": sum(entry.additions or 0 for entry in counted),
        "deletions": sum(entry.deletions or 0 for entry in counted),
        "largest_files": _largest(counted),
        "risks": found,
    }
    key = review.key if review is not None else new_key()
    git(
        ["update-ref", "--no-deref", f"refs/devaipod/reviews/{key}/{head}", head],
        repository=repository,
    )
    now = timezone.now()
    with transaction.atomic():
        if review is None:
            review = Review.objects.create(key=key, run=run, updated_at=now, **facts)
        else:
            Review.objects.filter(pk=review.pk).update(
                **facts,
                state=ReviewState.OPEN,
                revision=review.revision + 1,
                updated_at=now,
                closed_at=None,
                closed_by=None,
            )
            review.refresh_from_db()
        Run.objects.filter(pk=run.pk).update(
            head_commit=head,
            additions=review.additions,
            deletions=review.deletions,
            changed_files=review.files,
        )
        events.record(
            run,
            events.Kind.REVIEW,
            {
                "review": review.key,
                "head": head,
                "commits": review.commits,
                "files": review.files,
                "additions": review.additions,
                "deletions": review.deletions,
                "revision": review.revision,
            },
        )
        audit.write(
            None,
            "review.opened" if review.revision == 1 else "review.updated",
            actor_name=f"agent of run {run.key}",
            target=f"{run.title} ({review.key})",
            target_url=f"/reviews/{review.key}/",
            detail={
                "run": run.key,
                "project": run.project.slug,
                "base": base,
                "head": head,
                "diff_sha256": review.diff_digest,
                "commits": review.commits,
                "revision": review.revision,
            },
        )
    return review


def _largest(counted: list[changes.Counted]) -> list[dict[str, object]]:
    """The files that changed most, each with its lines; a binary file counts as none."""
    order = sorted(counted, key=lambda entry: -(entry.additions or 0) - (entry.deletions or 0))
    return [
        {
            "path": entry.path[:MAX_PATH],
            "additions": entry.additions or 0,
            "deletions": entry.deletions or 0,
        }
        for entry in order[:LARGEST_FILES]
    ]
