"""Verbs about providers of models."""

from __future__ import annotations

from typing import Annotated

import typer

from devaipod_web.cli import output
from devaipod_web.cli.client import Client, CliError, segment
from devaipod_web.cli.output import clean, note, say

app = typer.Typer(help="Where models are reached; for managers.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON for programs.")]


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List providers."""
    rows = Client().get("/providers")
    if as_json:
        output.document(rows)
        return
    output.table(
        ["PROVIDER", "NAME", "KIND", "ADDRESS", "KEY"],
        [
            [
                row["key"],
                clean(row["name"]),
                row["kind"],
                clean(row["base_url"] or "built in"),
                "set" if row["has_credential"] else "none",
            ]
            for row in rows
        ],
        empty="There are no providers: the scripted demo answers. Add one on the page Providers.",
    )


@app.command("test")
def test(
    provider: Annotated[str, typer.Argument(metavar="PROVIDER", help="The provider's key.")],
    as_json: AsJson = False,
) -> None:
    """Ask a provider for its models as a run would; exit status 1 when it does not answer well."""
    found = Client().send("POST", f"/providers/{segment(provider)}/test")
    if as_json:
        output.document(found)
    else:
        say(f"{clean(found['message'])} ({found['milliseconds']} ms)")
        if found["next_step"]:
            note(clean(found["next_step"]))
    if not found["ok"]:
        raise typer.Exit(1)


@app.command("reseal")
def reseal(as_json: AsJson = False) -> None:
    """Seal every stored secret with the first of the server's encryption keys; then the others may go."""
    found = Client().send("POST", "/providers/reseal")
    if as_json:
        output.document(found)
    else:
        say(f"{found['sealed']} secrets are sealed with the first key.")
    if found["unreadable"]:
        raise CliError(
            f"No key opens these: {clean(', '.join(found['unreadable']))}. Enter them again."
        )
