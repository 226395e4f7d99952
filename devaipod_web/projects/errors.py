"""What a person is told when a project could not be made or changed.

ProjectError
├── InvalidProject   fields that cannot be as they were given, each with its sentence
└── Archived         the project is archived: nothing new starts in it
"""

from __future__ import annotations

from collections.abc import Mapping


class ProjectError(Exception):
    """A project could not be made or changed. `message` is a sentence, `next_step` another."""

    code = "project-error"
    status = 409

    def __init__(self, message: str, *, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step


class InvalidProject(ProjectError):
    """Fields that cannot be as they were given: `errors` has a sentence for each by its name."""

    code = "invalid-project"
    status = 400

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__(
            " ".join(errors.values()), next_step="Change what is named and send it again."
        )
        self.errors = dict(errors)


class Archived(ProjectError):
    """The project is archived: nothing new starts in it."""

    code = "project-archived"
