"""What a person is told when a project could not be made or changed.

ProjectError
├── InvalidProject   fields that cannot be as they were given, each with its sentence
└── Archived         the project is archived: nothing new starts in it
"""

from __future__ import annotations

from devaipod_web.errors import DevaipodError, InvalidFields


class ProjectError(DevaipodError):
    """A project could not be made or changed. `message` is a sentence, `next_step` another."""

    code = "project-error"
    status = 409


class InvalidProject(InvalidFields, ProjectError):
    """Fields that cannot be as they were given: `errors` has a sentence for each by its name."""

    code = "invalid-project"
    status = 400


class Archived(ProjectError):
    """The project is archived: nothing new starts in it."""

    code = "project-archived"
