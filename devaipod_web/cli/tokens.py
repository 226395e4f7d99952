"""Verbs about API tokens and projects."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from devaipod_web.cli import output
from devaipod_web.cli.client import Client, segment
from devaipod_web.cli.output import clean, note, say

tokens = typer.Typer(help="Make and revoke API tokens of your own.", no_args_is_help=True)
projects = typer.Typer(help="Make and look at projects.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON for programs.")]


@tokens.command("list")
def token_list(as_json: AsJson = False) -> None:
    """List your tokens that count."""
    rows = Client().get("/tokens")
    if as_json:
        output.document(rows)
        return
    output.table(
        ["TOKEN", "NAME", "MADE", "LAST USED", "ENDS"],
        [
            [
                row["key"],
                clean(row["name"]),
                output.since(row["created_at"]) + " ago",
                output.since(row["last_used_at"]),
                (row["expires_at"] or "never")[:10],
            ]
            for row in rows
        ],
        empty="You have no tokens.",
    )


@tokens.command("create")
def token_create(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    days: Annotated[int, typer.Option(help="How long it counts; 0: until revoked.")] = 90,
    as_json: AsJson = False,
) -> None:
    """Make a token; its text is printed this once."""
    made = Client().send("POST", "/tokens", {"name": name, "days": days})
    if as_json:
        output.document(made)
        return
    say(made["token"])
    note("Keep it now: it is shown this once. Use it as DEVAIPOD_TOKEN.")


@tokens.command("revoke")
def token_revoke(
    key: Annotated[str, typer.Argument(metavar="TOKEN", help="The token's key.")],
) -> None:
    """End a token now."""
    Client().send("DELETE", f"/tokens/{segment(key)}")
    say(f"Token {clean(key)} is revoked.")


@projects.command("list")
def project_list(as_json: AsJson = False) -> None:
    """List projects."""
    rows = list(Client().pages("/projects"))
    if as_json:
        output.document(rows)
        return
    output.table(
        ["PROJECT", "NAME", "UPSTREAM", "AGENT", "MODEL"],
        [
            [
                row["slug"],
                clean(row["name"]),
                clean(f"{row['upstream_url']} · {row['upstream_branch']}"),
                clean(row["agent"]),
                clean(row["model"] or row["provider_label"]),
            ]
            for row in rows
        ],
        empty="There are no projects yet: `devaipod project create NAME ADDRESS`.",
    )


@projects.command("create")
def project_create(
    name: Annotated[str, typer.Argument(help="Its name.")],
    upstream: Annotated[str, typer.Argument(metavar="ADDRESS", help="The repository to work on.")],
    branch: Annotated[str, typer.Option(help="The branch to start from.")] = "main",
    production: Annotated[str, typer.Option(help="Where approved changes go; else upstream.")] = "",
    permissions: Annotated[str, typer.Option(help="ask or allow.")] = "ask",
    as_json: AsJson = False,
) -> None:
    """Make a project."""
    body: dict[str, Any] = {
        "name": name,
        "upstream_url": upstream,
        "upstream_branch": branch,
        "production_url": production,
        "permission_policy": permissions,
    }
    made = Client().send("POST", "/projects", body)
    if as_json:
        output.document(made)
        return
    say(f'Project {made["slug"]}: `devaipod run {made["slug"]} "…"`')
