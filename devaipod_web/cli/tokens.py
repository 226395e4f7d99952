"""Verbs about API tokens and projects."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime
from typing import Annotated, Any

import typer

from devaipod_web.cli import output
from devaipod_web.cli.client import Client, CliError, segment
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
        ["TOKEN", "NAME", "ROLE", "PROJECT", "MADE", "LAST USED", "ENDS"],
        [
            [
                row["key"],
                clean(row["name"]),
                row["role"],
                clean(row["project"] or "all"),
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
    role: Annotated[
        str, typer.Option(help="What it may do at most: viewer, operator, reviewer, manager.")
    ] = "",
    expires: Annotated[
        str, typer.Option(metavar="DAYS|DATE|never", help="When it ends; never is for managers.")
    ] = "90",
    project: Annotated[
        str, typer.Option(metavar="PROJECT", help="The one project that it counts for.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Make a token; its text is printed this once. Without options it may do what you may, for 90 days."""
    body: dict[str, Any] = {"name": name, "days": days_until(expires)}
    if role:
        body["role"] = role
    if project:
        body["project"] = project
    # A key of our own: a connection that breaks after the POST cannot make a second token.
    made = Client().send("POST", "/tokens", body, headers={"Idempotency-Key": uuid.uuid4().hex})
    if as_json:
        output.document(made)
        return
    say(made["token"])
    note("Keep it now: it is shown this once. Use it as DEVAIPOD_TOKEN.")


def days_until(word: str, *, today: date | None = None) -> int:
    """How many days `30`, `30d`, a date or `never` (0) are. Raises CliError."""
    text = word.strip().lower()
    if text == "never":
        return 0
    number = text.removesuffix("d")
    if number.isascii() and number.isdigit() and 0 < int(number) < 10**6:
        return int(number)
    try:
        days = (date.fromisoformat(text) - (today or datetime.now(UTC).date())).days
    except ValueError:
        days = 0
    if days < 1:
        raise CliError(
            f"{clean(word)!r} is no end of a token.",
            next_step="Give days (30), a date that is still to come (2027-01-31), or never.",
        )
    return days


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
