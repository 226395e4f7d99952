"""Verbs about webhooks."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from devaipod_web.cli import output
from devaipod_web.cli.client import Client, CliError, segment
from devaipod_web.cli.output import clean, note, say

app = typer.Typer(
    help="Have addresses told about runs and reviews; for managers.", no_args_is_help=True
)

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON for programs.")]
Key = Annotated[str, typer.Argument(metavar="WEBHOOK", help="The webhook's key.")]
#: How long `test` waits for the first attempt: its time-out and a little.
TEST_SECONDS = 20.0
POLL_SECONDS = 0.2


@app.command("ls")
def ls(as_json: AsJson = False) -> None:
    """List webhooks."""
    rows = Client().get("/webhooks")
    if as_json:
        output.document(rows)
        return
    output.table(
        ["WEBHOOK", "NAME", "ADDRESS", "EVENTS", "PROJECT", "STATE", "LAST DELIVERED"],
        [
            [
                row["key"],
                clean(row["name"]),
                clean(row["url"]),
                clean(" ".join(row["events"])),
                clean(row["project"] or "all"),
                _state(row),
                output.since(row["last_delivered_at"]),
            ]
            for row in rows
        ],
        empty="There are no webhooks: `devaipod webhook create NAME ADDRESS --event run.state`.",
    )


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    url: Annotated[str, typer.Argument(metavar="ADDRESS", help="Where events are sent.")],
    event: Annotated[
        list[str], typer.Option(help="A kind of event, such as run.state; give it once for each.")
    ],
    project: Annotated[str, typer.Option(help="Of this project alone; else of all.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make a webhook; its signing secret is printed this once."""
    body = {"name": name, "url": url, "events": event, "project": project or None}
    made = Client().send("POST", "/webhooks", body)
    if as_json:
        output.document(made)
        return
    say(made["secret"])
    note(f"Webhook {made['key']} is made. Keep the secret now: it is shown this once.")
    note(f"Try it: `devaipod webhook test {made['key']}`")


@app.command("rm")
def rm(key: Key) -> None:
    """Remove a webhook with its deliveries."""
    Client().send("DELETE", f"/webhooks/{segment(key)}")
    say(f"Webhook {clean(key)} is removed.")


@app.command("deliveries")
def deliveries(
    key: Key,
    state: Annotated[str, typer.Option(help="queued, delivered or failed.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many; 0: all.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List what was sent to a webhook, the newest first."""
    query = {"state": state} if state else {}
    rows = list(Client().pages(f"/webhooks/{segment(key)}/deliveries", limit=limit, **query))
    if as_json:
        output.document(rows)
        return
    output.table(
        ["DELIVERY", "KIND", "STATE", "ATTEMPTS", "LAST", "AGE"],
        [
            [
                row["key"],
                clean(row["kind"]),
                output.state(row["state"]),
                str(len(row["attempts"])),
                clean(_outcome(row)),
                output.since(row["created_at"]),
            ]
            for row in rows
        ],
        empty="Nothing was sent to it yet.",
    )


@app.command("test")
def test(key: Key, as_json: AsJson = False) -> None:
    """Send a test event and say how its first attempt went; exit status 1 when the receiver did not take it."""
    client = Client()
    sent = client.send("POST", f"/webhooks/{segment(key)}/test")
    deadline = time.monotonic() + TEST_SECONDS
    while not sent["attempts"] and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        sent = client.get(f"/deliveries/{segment(sent['key'])}")
    if as_json:
        output.document(sent)
    elif sent["attempts"]:
        say(f"{_outcome(sent)} ({sent['attempts'][-1]['milliseconds']} ms)")
    if sent["state"] == "delivered":
        return
    if not sent["attempts"]:
        raise CliError(
            "The test event is queued, and nothing has sent it yet.",
            next_step="See whether the supervisor runs: `devaipod serve`.",
        )
    raise CliError(
        "The receiver did not take the test event.",
        next_step=f"It is tried again on the schedule: `devaipod webhook deliveries {clean(key)}`.",
    )


def _state(row: dict[str, Any]) -> str:
    if not row["enabled"]:
        return f"disabled: {clean(row['disabled_reason'])}"
    return "failing" if row["failing_since"] else "enabled"


def _outcome(row: dict[str, Any]) -> str:
    if not row["attempts"]:
        return "not tried yet"
    last = row["attempts"][-1]
    answered = f"answered {last['status']}" if last["status"] is not None else ""
    return " ".join(part for part in (answered, last["error"]) if part)
