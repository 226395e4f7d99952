"""What several rooms' schemas share: fields with description and example, money, problems."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from ninja import Field, Schema
from pydantic import ConfigDict, PlainSerializer, WithJsonSchema

#: Largest number that a cursor can be: the databases' 64-bit integers.
MAX_CURSOR = 2**63 - 1

KEY_PATTERN = "^[a-z2-7]{10}$"

RunState = Literal[
    "queued",
    "preparing",
    "starting",
    "running",
    "waiting",
    "paused",
    "succeeded",
    "failed",
    "stopped",
    "timed_out",
]

Money = Annotated[
    Decimal,
    PlainSerializer(lambda value: f"{value:f}", return_type=str),
    WithJsonSchema(
        {"type": "string", "pattern": r"^-?\d+(\.\d+)?$", "examples": ["0.01834500"]},
        mode="serialization",
    ),
]


def doc(description: str, example: Any, default: Any = ..., **more: Any) -> Any:
    """A field with the sentence and the example that stand in the document."""
    return Field(default, description=description, examples=[example], **more)


def optional(description: str, example: Any = None, **more: Any) -> Any:
    """A field of a body that may be left out or null."""
    return Field(None, description=description, examples=[example], **more)


#: An amount in a body: up to 15 digits before the point and 12 after it.
AMOUNT = r"^[0-9]{1,15}(\.[0-9]{1,12})?$"


def amount(description: str, example: str, default: Any = ...) -> Any:
    """A sum of money or tokens in a body, as a decimal string: a number with a point would lose its last digits."""
    return Field(default, description=description, examples=[example], pattern=AMOUNT)


class Body(Schema):
    """What is sent: fields that are not known are refused, and a number in quotes is no number."""

    model_config = ConfigDict(extra="forbid", strict=True)


class FieldProblem(Schema):
    """What is wrong with one place of a request."""

    field: str = doc("The field, parameter or path of fields.", "wall_seconds")
    detail: str = doc("What is wrong with it.", "It must lie between 60 and 604,800 seconds.")


class ProblemOut(Schema):
    """A problem document (RFC 9457)."""

    type: str = doc(
        "`urn:devaipod:problem:<code>`: what programs should look at.",
        "urn:devaipod:problem:not-found",
    )
    title: str = doc("What kind of problem it is.", "Not found")
    status: int = doc("The HTTP status again.", 404, ge=400, le=599)
    detail: str = doc("What is wrong, in a sentence for a person.", "There is no run 'b7kq2mx4dz'.")
    next_step: str = doc("What to do about it; absent where nothing can be said.", "", "")
    errors: list[FieldProblem] = Field(
        [], description="Each place that is wrong, when the request's form or a field is."
    )
    missing: list[str] = doc(
        "Of `ticks-missing`: the ids of the risks that were not ticked.", "r1f3a9c02", []
    )
