"""Schemas of reviews and promotions."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from ninja import Field, Schema

from devaipod_web.api.schemas.common import Body, doc
from devaipod_web.reviews.models import Promotion, Review

WHEN = "2026-11-24T20:14:03.512Z"
COMMIT = "41ab" * 10

ReviewStateName = Literal["open", "promoted", "rejected"]


class PromotionOut(Schema):
    """One push of a reviewed commit to the production remote."""

    key: str = doc("The promotion's public key.", "p2o5i7u3yt")
    head: str = doc("The commit that was pushed.", COMMIT)
    target_url: str = doc("Where it went.", "https://forge.example/acme/payments.git")
    target_branch: str = doc("The branch that it became.", "devaipod/b7kq2mx4dz")
    by: str | None = doc("Who promoted it, or null when that person is gone.", "bob")
    state: Literal["started", "done", "refused"] = doc("How far it is.", "done")
    message: str = doc("What the production forge said, or why it was refused.", "")
    started_at: datetime = doc("When it began, RFC 3339.", WHEN)
    ended_at: datetime | None = doc("When it ended, or null.", WHEN)

    @staticmethod
    def resolve_by(obj: Promotion) -> str | None:
        return obj.by.username if obj.by else None


class ReviewOut(Schema):
    """What a run staged."""

    key: str = doc("The review's public key.", "k6d3v7c2np")
    run: str = doc("The key of its run.", "b7kq2mx4dz")
    title: str = doc("The run's title.", "Retry webhooks")
    project: str = doc("The short name of its project.", "payments")
    owner: str = doc("Who asked for the run.", "alice")
    branch: str = doc("The run's branch on the staging forge.", "agent/b7kq2mx4dz/work")
    state: ReviewStateName = doc("Where it is.", "open")
    base: str = doc("The commit that the diff begins at.", "9f2c" * 10)
    head: str = doc("The commit that is reviewed.", COMMIT)
    diff_digest: str = doc("The hash of the diff, SHA-256.", "e3b0" * 16)
    revision: int = doc("How often the run has pushed, from 1.", 1)
    commits: int = doc("Commits that would leave.", 2)
    files: int = doc("Files that change.", 2)
    additions: int = doc("Lines that come.", 31)
    deletions: int = doc("Lines that go.", 4)
    risks: list[dict[str, Any]] = doc(
        "What needs a look of its own: `id`, `code`, `path`, `text` and `tick` of each; those with `tick` must be named at "
        "promotion.",
        [{"id": "r1", "code": "ci", "path": ".ci/run", "text": "Runs on CI.", "tick": True}],
    )
    opened_at: datetime = doc("When it was opened, RFC 3339.", WHEN)
    updated_at: datetime = doc("When it was last touched.", WHEN)
    closed_at: datetime | None = doc("When it was promoted or rejected, or null.", None)
    closed_by: str | None = doc("By whom, or null.", None)

    @staticmethod
    def resolve_run(obj: Review) -> str:
        return str(obj.run.key)

    @staticmethod
    def resolve_title(obj: Review) -> str:
        return obj.run.title

    @staticmethod
    def resolve_project(obj: Review) -> str:
        return str(obj.run.project.slug)

    @staticmethod
    def resolve_owner(obj: Review) -> str:
        return obj.run.owner.username

    @staticmethod
    def resolve_branch(obj: Review) -> str:
        return obj.run.branch

    @staticmethod
    def resolve_closed_by(obj: Review) -> str | None:
        return obj.closed_by.username if obj.closed_by else None


class ReviewDetail(ReviewOut):
    """A review with its promotions, newest first."""

    promotions: list[PromotionOut] = Field(..., description="Its promotions, newest first.")

    @staticmethod
    def resolve_promotions(obj: Review) -> list[Promotion]:
        return list(obj.promotions.select_related("by"))


class PromoteIn(Body):
    """What is promoted."""

    head: str = doc("The commit that was looked at.", COMMIT, min_length=1, max_length=64)
    ticks: list[str] = Field(
        [],
        description="The ids of the risks that were looked at.",
        examples=[["r1"]],
        max_length=10_000,
    )
    branch: str = doc(
        "The name of the branch on production; empty: the project's prefix and the run's key.",
        "",
        "",
        max_length=250,
    )


class RejectIn(Body):
    """Why a review is closed."""

    head: str = doc(
        "The commit that was looked at; when it is given and the run has pushed since, 409.",
        COMMIT,
        "",
        max_length=64,
    )
    reason: str = doc("A sentence for the record.", "Wrong approach.", "", max_length=1000)
