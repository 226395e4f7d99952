"""One step of setup or teardown, as it is answered."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Result(StrEnum):
    """What became of a step."""

    OK = "ok"  # it was so already
    DONE = "done"  # it was done now
    WAITING = "waiting"  # it goes on; ask again
    FAILED = "failed"


@dataclass(frozen=True)
class Step:
    """`says` is a sentence, `next_step` another where it failed."""

    step: str
    result: Result
    says: str
    next_step: str = ""
