"""What a run of the profile `command` executes, checked: words, image, environment, folder and labels."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from django.conf import settings

from devaipod_web.projects.models import Project
from devaipod_web.runs import untrusted
from devaipod_web.runs.errors import BadRequest
from pods import devcontainer
from pods.command import is_ours, looks_secret
from pods.errors import PullRefused

MAX_WORDS = 256
MAX_ARGV_CHARACTERS = 96 * 1024
MAX_VARIABLES = 100
MAX_VALUE_CHARACTERS = 8 * 1024
MAX_ENV_CHARACTERS = 64 * 1024
MAX_WORKDIR = 500
MAX_LABELS = 64
MAX_LABEL_CHARACTERS = 4 * 1024
MAX_LABELS_CHARACTERS = 32 * 1024
#: A letter first: databases read a number in a JSON path as an index.
LABEL = re.compile(r"[A-Za-z][A-Za-z0-9._:/-]{0,99}")


@dataclass(frozen=True)
class Command:
    """A program and what it runs in. Empty `image`: that of the project's other runs; empty `workdir`: the workspace."""

    argv: list[str]
    image: str = ""
    env: dict[str, str] = field(default_factory=dict)
    workdir: str = ""
    interactive: bool = False

    @property
    def text(self) -> str:
        """The command as a person would type it."""
        return shlex.join(self.argv)

    @property
    def overruled(self) -> list[str]:
        """Names of given variables that we set ourselves, whatever was given."""
        return sorted(name for name in self.env if is_ours(name))


def check(command: Command, project: Project) -> None:
    """Raise BadRequest, with a sentence, for a command that the project cannot run."""
    _check_argv(command.argv)
    _check_env(command.env)
    if len(command.workdir) > MAX_WORKDIR or not is_plain(command.workdir):
        raise BadRequest(f"The folder to begin in has at most {MAX_WORKDIR} plain characters.")
    if not command.image:
        return
    try:
        devcontainer.check_image(
            command.image,
            defaults=(project.image, settings.AGENT_IMAGE, *settings.AGENT_IMAGES.values()),
            allowed_images=project.allowed_images,
        )
    except PullRefused as error:
        raise BadRequest(error.message, next_step=error.next_step) from error


def is_plain(text: str) -> bool:
    """Whether a text has no control character and can be stored."""
    return is_text(text) and text.isprintable()


def is_text(value: str) -> bool:
    """Whether every database stores this as it is: no NUL, no half of a surrogate pair."""
    return untrusted.text(value, len(value) + 1) == value


def _check_argv(argv: list[str]) -> None:
    if not argv or not argv[0].strip() or argv[0].startswith("-"):
        raise BadRequest(
            "A run of the profile command needs argv: its program and that program's arguments.",
            next_step='Give, for instance, ["sh", "-c", "make test"].',
        )
    if len(argv) > MAX_WORDS or sum(map(len, argv)) > MAX_ARGV_CHARACTERS:
        raise BadRequest(
            f"A command has at most {MAX_WORDS} words and {MAX_ARGV_CHARACTERS:,} characters.",
            next_step="Put a long script into the repository, and name its path.",
        )
    if not all(map(is_text, argv)) or not is_plain(argv[0]):
        raise BadRequest("The words of a command are text without NUL, its program plain text.")


def _check_env(env: Mapping[str, str]) -> None:
    if len(env) > MAX_VARIABLES or sum(map(len, env.values())) > MAX_ENV_CHARACTERS:
        raise BadRequest(
            f"An environment has at most {MAX_VARIABLES} variables and {MAX_ENV_CHARACTERS:,} characters."
        )
    for name, value in env.items():
        if not devcontainer.VARIABLE.fullmatch(name):
            raise BadRequest(
                f"{name[:60]!r} cannot be the name of a variable.",
                next_step="Names have letters, digits and _, and do not begin with a digit.",
            )
        if len(value) > MAX_VALUE_CHARACTERS or not is_text(value):
            raise BadRequest(
                f"The value of {name} is longer than {MAX_VALUE_CHARACTERS:,} characters, or not text."
            )
        if looks_secret(name, value):
            raise BadRequest(
                f"{name} looks like a credential, and no pod holds one.",
                next_step="Leave it out: the gateway adds the credentials of models and forges outside the pod.",
            )


def check_labels(labels: Mapping[str, str]) -> None:
    """Raise BadRequest for labels that are too many, too long or strangely named."""
    if len(labels) > MAX_LABELS or sum(map(len, labels.values())) > MAX_LABELS_CHARACTERS:
        raise BadRequest(
            f"A run has at most {MAX_LABELS} labels and {MAX_LABELS_CHARACTERS:,} characters in them."
        )
    for name, value in labels.items():
        if not LABEL.fullmatch(name):
            raise BadRequest(
                f"{name[:60]!r} cannot be the name of a label.",
                next_step="Names begin with a letter, and go on with letters, digits and . _ : / - (100 at most).",
            )
        if len(value) > MAX_LABEL_CHARACTERS or not is_text(value):
            raise BadRequest(
                f"The value of the label {name} is longer than {MAX_LABEL_CHARACTERS:,} characters, or not text."
            )
