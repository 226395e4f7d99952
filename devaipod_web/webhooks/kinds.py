"""The one table of what webhooks can be told, with the form of each payload.

A payload is `{type, timestamp, version, data}` as Standard Webhooks recommends: thin, with what a program needs to decide
whether to ask the API for more. `docs/use/webhooks.md` shows each, `docs/use/webhooks.schema.json` is made from here, and tests
hold both.

Within a version fields are only added; a receiver passes over what it does not know. Text of runs and permissions is an
agent's or a person's: bounded here, and to be shown rather than believed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, Field, create_model

#: Of every payload's form; a change that breaks a receiver raises it.
VERSION = 1
#: Bounds of text in a payload, in characters.
MAX_TITLE = 200
MAX_WORDS = 1000
MAX_OPTIONS = 10


class Kind(StrEnum):
    """Kinds of events. A payload's `type` is one of these."""

    RUN_STATE = "run.state"
    RUN_WAITING = "run.waiting"
    REVIEW_OPENED = "review.opened"
    REVIEW_PROMOTED = "review.promoted"
    BUDGET_EXCEEDED = "budget.exceeded"
    TEST = "webhook.test"


class RunPart(BaseModel):
    """The run that an event is about, as it was then."""

    key: str
    title: str = Field(max_length=MAX_TITLE)
    project: str = Field(description="The project's short name.")
    agent: str
    owner: str = Field(description="The user name of who launched it.")
    state: str
    labels: dict[str, str] = Field(
        {}, description="Its labels, by which whoever launched it knows it again."
    )
    url: str = Field(description="Its page.")
    api_url: str


class Option(BaseModel):
    """One answer that the agent offers."""

    id: str = Field(description="`option_id` of the answer.")
    name: str
    kind: str


class PermissionPart(BaseModel):
    """What the agent asks before it goes on."""

    key: str = Field(description="`request` of the answer.")
    title: str = Field(max_length=MAX_TITLE, description="What it wants to do, in a line.")
    options: list[Option] = Field(max_length=MAX_OPTIONS)
    asked_at: datetime
    expires_at: datetime = Field(description="It is refused then.")
    answer_url: str = Field(description="POST `{request, option_id}` here.")


class ReviewPart(BaseModel):
    """The review that an event is about."""

    key: str
    head: str = Field(description="The commit that is to be looked at, or that was promoted.")
    url: str
    api_url: str


class CountedReview(ReviewPart):
    """The same with how much changed."""

    revision: int = Field(description="1 when it was opened; each further push counts one up.")
    commits: int
    files: int
    additions: int
    deletions: int


class RunStateData(BaseModel):
    """A run moved from a state to another."""

    run: RunPart
    from_: str | None = Field(alias="from", description="null when the run was launched.")
    to: str
    reason: str = Field(max_length=MAX_WORDS)
    next_step: str = Field(max_length=MAX_WORDS)


class RunWaitingData(BaseModel):
    """A run needs a person."""

    run: RunPart
    waits_for: str = Field(max_length=MAX_WORDS)
    permission: PermissionPart | None = Field(description="null when it waits for a prompt.")


class ReviewOpenedData(BaseModel):
    """A push opened a review, or brought new commits to one."""

    run: RunPart
    review: CountedReview


class ReviewPromotedData(BaseModel):
    """A person promoted a reviewed commit."""

    run: RunPart
    review: ReviewPart
    branch: str = Field(max_length=MAX_WORDS, description="The branch at production.")
    by: str


class BudgetExceededData(BaseModel):
    """A run stands still, since its budget is used up."""

    run: RunPart
    cost: str = Field(description="What the run has cost so far, US dollars.")
    reason: str = Field(max_length=MAX_WORDS)
    next_step: str = Field(max_length=MAX_WORDS)


class TestData(BaseModel):
    """Sent by the button or verb of that name, and never otherwise."""

    webhook: str = Field(description="The webhook's key.")
    name: str
    by: str


@dataclass(frozen=True)
class Spec:
    """What a kind means in a line, the form of its `data`, and whether a webhook can ask for it."""

    says: str
    data: type[BaseModel]
    subscribable: bool = True


KINDS: dict[Kind, Spec] = {
    Kind.RUN_STATE: Spec("a run moves from a state to another", RunStateData),
    Kind.RUN_WAITING: Spec(
        "a run needs a person: a permission to give, or a prompt", RunWaitingData
    ),
    Kind.REVIEW_OPENED: Spec("a push opened a review, or brought commits to it", ReviewOpenedData),
    Kind.REVIEW_PROMOTED: Spec("a reviewed commit was promoted to production", ReviewPromotedData),
    Kind.BUDGET_EXCEEDED: Spec("a run is paused, since a budget is used up", BudgetExceededData),
    Kind.TEST: Spec("a manager sent a test", TestData, subscribable=False),
}
SUBSCRIBABLE = tuple(kind for kind, spec in KINDS.items() if spec.subscribable)


def payload(kind: Kind, data: dict[str, Any], *, at: datetime) -> str:
    """The JSON text of an event, compact. Raises pydantic.ValidationError when `data` is not of the kind's form."""
    body = KINDS[kind].data.model_validate(data).model_dump(mode="json", by_alias=True)
    moment = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    document = {"type": kind, "timestamp": moment, "version": VERSION, "data": body}
    # ASCII alone: what an agent wrote may hold a NUL or half a surrogate pair, which no database takes.
    return json.dumps(document, separators=(",", ":"))


def envelope(kind: Kind) -> type[BaseModel]:
    """The model of a whole payload of this kind."""
    spec = KINDS[kind]
    name = "".join(part.capitalize() for part in kind.split("."))
    return create_model(
        name,
        __doc__=f"{spec.says[0].upper()}{spec.says[1:]}.",
        # A literal that is computed is beyond mypy.
        type=(Literal[str(kind)], Field(description="The kind.")),  # type: ignore[arg-type]
        timestamp=(datetime, Field(description="When it happened, not when it was sent.")),
        version=(Literal[VERSION], ...),  # type: ignore[arg-type]
        data=(spec.data, ...),
    )


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of every payload, by kind."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Payloads of devaipod web's webhooks",
        "kinds": {str(kind): envelope(kind).model_json_schema() for kind in KINDS},
    }
