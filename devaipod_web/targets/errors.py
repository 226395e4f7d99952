"""What a person is told when a target could not be changed.

DevaipodError
├── InvalidTarget    fields that cannot be as they were given, each with its sentence
└── TargetInUse      runs or projects need it
"""

from __future__ import annotations

from devaipod_web.errors import DevaipodError, InvalidFields


class InvalidTarget(InvalidFields):
    """Fields that cannot be as they were given: `errors` has a sentence for each by its name."""

    code = "invalid-target"


class TargetInUse(DevaipodError):
    """Runs or projects need the target; the message names them."""

    code = "target-in-use"
