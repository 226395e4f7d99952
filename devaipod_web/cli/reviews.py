"""Verbs about reviews: review list, review show, diff, promote, reject."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from devaipod_web.cli import output
from devaipod_web.cli.client import Client, CliError, segment
from devaipod_web.cli.output import clean, note, say

app = typer.Typer(help="Look at what runs staged.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON for programs.")]
ReviewKey = Annotated[str, typer.Argument(metavar="REVIEW", help="The review's or its run's key.")]


@app.command("list")
def list_(
    state: Annotated[str, typer.Option(help="open, promoted, rejected or all.")] = "open",
    project: Annotated[str, typer.Option(help="Only this project's.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List reviews, the open ones unless told otherwise."""
    rows = list(
        Client().pages(
            "/reviews", limit=limit, project=project, state="" if state == "all" else state
        )
    )
    if as_json:
        output.document(rows)
        return
    output.table(
        ["REVIEW", "STATE", "RUN", "PROJECT", "TITLE", "CHANGE", "RISKS", "AGE"],
        [
            [
                row["key"],
                output.state(row["state"]),
                row["run"],
                clean(row["project"]),
                clean(row["title"])[:60],
                f"+{row['additions']} −{row['deletions']}",
                str(len(row["risks"]) or "—"),
                output.since(row["updated_at"]),
            ]
            for row in rows
        ],
        empty="No review waits." if state == "open" else "There are no such reviews.",
    )


@app.command("show")
def show(
    key: ReviewKey,
    diff: Annotated[bool, typer.Option("--diff/--no-diff", help="With the diff.")] = True,
    as_json: AsJson = False,
) -> None:
    """Show one review with its diff."""
    client = Client()
    found = client.get(f"/reviews/{segment(key)}")
    text = client.text(f"/reviews/{segment(found['key'])}/diff") if diff else ""
    if as_json:
        output.document({**found, "diff": text} if diff else found)
        return
    _head(client, found)
    for line in text.splitlines():
        say(_coloured(clean(line)))


def diff(key: ReviewKey) -> None:
    """Write a review's diff alone. Into a file or a pipe it goes as it is, for `git apply`."""
    client = Client()
    found = client.get(f"/reviews/{segment(key)}")
    text = client.text(f"/reviews/{segment(found['key'])}/diff")
    if not sys.stdout.isatty():
        sys.stdout.buffer.write(text.encode("utf-8", "replace"))
        return
    for line in text.splitlines():
        say(_coloured(clean(line)))


def _head(client: Client, found: dict[str, Any]) -> None:
    say(f"{output.state(found['state'])}  {clean(found['title'])}")
    say(
        f"  {clean(found['branch'])} @ {found['head'][:12]} on {found['base'][:12]} · "
        f"{found['commits']} commit(s), {found['files']} file(s), "
        f"+{found['additions']} −{found['deletions']}"
    )
    for risk in found["risks"]:
        mark = "needs a tick" if risk.get("tick") else "note"
        say(
            output.paint(f"  ▲ {mark} ", "yellow")
            + f"[{clean(risk.get('id'))}] {clean(risk.get('path'))} {clean(risk.get('text'))}"
        )
    for promotion in found["promotions"]:
        say(
            f"  promotion {promotion['state']}: {clean(promotion['target_branch'])} → "
            f"{clean(promotion['target_url'])} {clean(promotion['message'])}"
        )
    say(f"  {client.url}/reviews/{found['key']}/")


def _coloured(line: str) -> str:
    if line.startswith(("+++", "---", "diff ", "index ")):
        return output.paint(line, "bold")
    style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
    return output.paint(line, style)


def promote(
    key: ReviewKey,
    head: Annotated[
        str, typer.Option(help="The commit that you looked at (its first 7 letters or more).")
    ] = "",
    tick: Annotated[
        list[str] | None, typer.Option(help="The id of a risk that you looked at; may be repeated.")
    ] = None,
    branch: Annotated[str, typer.Option(help="The target's branch; else made from the run.")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Push exactly the reviewed commit to the project's production remote, as a branch."""
    if yes and not head:
        raise CliError(
            "--yes promotes without asking, so it must be told which commit was looked at.",
            next_step="Add --head COMMIT, as `devaipod review show` names it.",
            status=2,
        )
    client = Client()
    found = client.get(f"/reviews/{segment(key)}")
    if head and (len(head) < 7 or not found["head"].startswith(head)):
        raise CliError(
            f"The review is at {found['head'][:12]} now, not at {clean(head)[:12]}.",
            next_step=f"Look again: devaipod review show {found['key']}",
        )
    _head(client, found)
    missing = [
        risk["id"] for risk in found["risks"] if risk.get("tick") and risk["id"] not in (tick or [])
    ]
    if missing:
        raise CliError(
            f"{len(missing)} risk(s) need a tick of their own: {clean(', '.join(missing))}.",
            next_step="Look at each in the diff, then add `--tick ID` for it.",
        )
    if not yes:
        if not sys.stdin.isatty():
            raise CliError(
                "Promoting asks once, and there is no terminal to ask on.",
                next_step="Add --yes and --head COMMIT.",
            )
        if not typer.confirm(f"Promote commit {found['head'][:12]} to production?"):
            note("Nothing was promoted.")
            raise typer.Exit(1)
    done = client.send(
        "POST",
        f"/reviews/{segment(found['key'])}/promote",
        {"head": found["head"], "ticks": tick or [], "branch": branch},
    )
    say(
        f"Promoted {done['head'][:12]} to {clean(done['target_branch'])} at {clean(done['target_url'])}"
    )


def reject(
    key: ReviewKey,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
) -> None:
    """Close a review without promoting it; the run's next push opens it again."""
    found = Client().send("POST", f"/reviews/{segment(key)}/reject", {"reason": reason})
    say(f"{output.state(found['state'])}  {clean(found['title'])}")
