"""`debug`: what is wrong with a pod or a run, and what to do."""

from __future__ import annotations

from typing import Annotated

import typer

from devaipod_web.cli import output
from devaipod_web.cli.client import Client, segment
from devaipod_web.cli.output import clean, paint, say

#: Exit status when something is an error.
WRONG = 3
POD_PREFIX = "devaipod-"


def debug(
    name: Annotated[
        str, typer.Argument(metavar="POD|RUN", help="A pod's name, or a run's key: its last pod.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON for programs.")] = False,
) -> None:
    """Say what is wrong with a pod or a run: findings, containers, and their last lines. Secrets are masked.

    Exit status: 0 nothing is wrong, 3 something is an error.
    """
    from pods.diagnostics_text import lines

    kind = "pods" if name.startswith(POD_PREFIX) else "runs"
    found = Client().get(f"/{kind}/{segment(name)}/diagnostics")
    if as_json:
        output.document(found)
    else:
        for line in lines(found, clean=clean):
            say(_painted(line))
    if any(one["severity"] == "error" for one in found["findings"]):
        raise typer.Exit(WRONG)


HEADINGS = frozenset({"Findings", "Containers", "Container Logs"})
STYLES = (("  ✗ ", "red"), ("  ▲ ", "yellow"))


def _painted(line: str) -> str:
    if line in HEADINGS:
        return paint(line, "bold")
    style = next((style for start, style in STYLES if line.startswith(start)), "")
    return paint(line, style)
