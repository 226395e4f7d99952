"""`devaipod completion SHELL`: the script that teaches a shell to complete verbs, run keys and names."""

from __future__ import annotations

from typing import Annotated

import typer

from devaipod_web.cli.client import CliError
from devaipod_web.cli.output import clean, say

#: The script sets it, and the command then offers words instead of doing anything.
VARIABLE = "_DEVAIPOD_COMPLETE"
SHELLS = ("bash", "zsh", "fish")


def completion(
    shell: Annotated[str, typer.Argument(metavar="SHELL", help=f"{', '.join(SHELLS)}.")],
) -> None:
    """Print the script that completes verbs, options, run keys, projects, reviews and services in a shell."""
    if shell not in SHELLS:
        raise CliError(
            f"There is no completion for {clean(shell)!r}.",
            next_step=f"Shells are {', '.join(SHELLS)}.",
            status=2,
        )
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    say(get_completion_script(prog_name="devaipod", complete_var=VARIABLE, shell=shell))


def prepare() -> None:
    """Teach typer the shells: it does so by itself only for commands with its own two options."""
    from typer.completion import completion_init  # type: ignore[attr-defined]

    completion_init()
