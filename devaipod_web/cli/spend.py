"""Verbs about what models cost: usage, budgets, incidents."""

from __future__ import annotations

import re
import sys
import uuid
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any

import typer

from devaipod_web.cli import complete, output
from devaipod_web.cli.client import Client, CliError, segment
from devaipod_web.cli.output import clean, note, say

budgets = typer.Typer(
    help="See what budgets are left; set, raise and remove them as a manager.", no_args_is_help=True
)
incidents = typer.Typer(
    help="Runs that came to a limit: see them, decide as a manager.", no_args_is_help=True
)

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON for programs.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Key = Annotated[
    str,
    typer.Argument(metavar="BUDGET", help="The budget's key.", autocompletion=complete.budgets),
]
GROUPS = ("project", "agent", "model", "person", "provider", "run", "day")
PERIODS = ("hour", "day", "week", "month")
METRICS = ("usd", "tokens", "requests")
WINDOWS = ("day", "month", "total", "each_run")
WAYS = {"raise": "raised", "extend": "extended", "stop": "stopped", "dismiss": "dismissed"}


def usage(
    by: Annotated[str, typer.Option(help=f"{', '.join(GROUPS[:-1])} or {GROUPS[-1]}.")] = "project",
    since: Annotated[
        str, typer.Option(metavar="DAYS|DATE", help="From then on (UTC): 7d, 2026-11-01.")
    ] = "",
    until: Annotated[str, typer.Option(metavar="DATE", help="To the end of this day (UTC).")] = "",
    project: Annotated[
        str, typer.Option(help="Of this project alone.", autocompletion=complete.projects)
    ] = "",
    per: Annotated[str, typer.Option(help="With --csv: hour, day, week or month.")] = "day",
    as_csv: Annotated[
        bool, typer.Option("--csv", help="A line a period and group, for spreadsheets.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what calls to models came to; without --since in the present month."""
    _one_of(by, GROUPS, "--by")
    _one_of(per, PERIODS, "--per")
    group = "owner" if by == "person" else by
    start = moment(since) if since else datetime.now(UTC).strftime("%Y-%m-01T00:00:00Z")
    query = {"project": project, "since": start, "until": moment(until, end=True) if until else ""}
    if as_csv:
        if group == "day":
            raise CliError(
                "--csv has its periods anyway.",
                next_step="Leave --by day out, or say --per.",
                status=2,
            )
        text = Client().text("/usage/series", group_by=group, per=per, format="csv", **query)
        sys.stdout.write(text.replace("\r\n", "\n"))
        return
    found = Client().get("/usage", group_by=group, limit=1000, **query)
    if as_json:
        output.document(found)
        return
    rows = [*found["results"], found["total"]]
    output.table(
        [by.upper(), "COST", "CALLS", "FAILED", "TOKENS IN", "OUT", "UNPRICED"],
        [
            [
                clean(row["group"]) or ("together" if row is found["total"] else "—"),
                _cost(row),
                f"{row['calls']:,}",
                f"{row['failed_calls']:,}",
                f"{row['tokens_in']:,}",
                f"{row['tokens_out']:,}",
                f"{row['unpriced_calls']:,}" if row["unpriced_calls"] else "—",
            ]
            for row in rows
            if found["total"]["calls"]
        ],
        empty="No model was called in that time.",
    )


def _cost(row: dict[str, Any]) -> str:
    # What is not known is never shown as nothing.
    return output.money(row["cost"]) + (" + ?" if row["uncounted_calls"] else "")


def moment(word: str, *, end: bool = False, today: date | None = None) -> str:
    """`7d` (days ago) or a date as a time of the API: its beginning, or with `end` its end. Raises CliError."""
    text = word.strip().lower()
    day = today or datetime.now(UTC).date()
    try:
        found = re.fullmatch(r"(\d{1,4})d?", text)
        day = day - timedelta(days=int(found[1])) if found else date.fromisoformat(text)
        if end:
            day += timedelta(days=1)
    except (ValueError, OverflowError):
        raise CliError(
            f"{clean(word)!r} is no day.",
            next_step="Give days that have passed (7d), or a date (2026-11-01).",
            status=2,
        ) from None
    return f"{day.isoformat()}T00:00:00Z"


# --- budgets ------------------------------------------------------------------------------------------------------


@budgets.command("list")
def budget_list(
    scope: Annotated[
        str, typer.Option(help="installation, project, person, token or run; else all but run.")
    ] = "",
    project: Annotated[
        str, typer.Option(help="Of this project alone.", autocompletion=complete.projects)
    ] = "",
    run: Annotated[str, typer.Option(help="Of this run alone.", autocompletion=complete.runs)] = "",
    as_json: AsJson = False,
) -> None:
    """List budgets and how they stand; those that each run has only with --run or --scope run."""
    scopes = scope or ("" if run else "installation,project,person,token")
    rows = list(Client().pages("/budgets", scope=scopes, project=project, run=run))
    if as_json:
        output.document(rows)
        return
    output.table(
        ["BUDGET", "SCOPE", "OVER", "SPENT", "LIMIT", "LEFT", "AT ITS END", "NOTE"],
        [
            [
                row["key"],
                clean(f"{row['scope']} {row['subject'] or ''}".strip()),
                row["window"].replace("_", " "),
                _amount(row, "spent") if row["window"] != "each_run" else "—",
                _amount(row, "limit"),
                _amount(row, "left") if row["enabled"] else "disabled",
                _amount(row, "projected") if row["projected"] is not None else "—",
                clean(row["note"]),
            ]
            for row in rows
        ],
        empty="There are no such budgets: `devaipod budget set 100`.",
    )


@budgets.command("set")
def budget_set(
    limit: Annotated[str, typer.Argument(help="US dollars, tokens or requests.")],
    project: Annotated[
        str, typer.Option(help="Of this project.", autocompletion=complete.projects)
    ] = "",
    person: Annotated[str, typer.Option(help="Of this person (name for signing in).")] = "",
    token: Annotated[str, typer.Option(help="Of the API token of this key.")] = "",
    run: Annotated[
        str, typer.Option(help="Of this run, in all.", autocompletion=complete.runs)
    ] = "",
    metric: Annotated[str, typer.Option("--in", help="usd, tokens or requests.")] = "usd",
    window: Annotated[str, typer.Option("--over", help="day, month, total or each_run.")] = "",
    soft: Annotated[int, typer.Option(help="Warn at this percentage.", min=1, max=100)] = 80,
    text: Annotated[str, typer.Option("--note", help="What it is for.")] = "",
    as_json: AsJson = False,
) -> None:
    """Set a budget: of the whole installation, or of what is named. Over a month unless said otherwise."""
    _one_of(metric, METRICS, "--in")
    named = {"project": project, "person": person, "token": token, "run": run}
    given = [(scope, subject) for scope, subject in named.items() if subject]
    if len(given) > 1:
        raise CliError(
            "A budget has one scope.", next_step=f"Name one of {', '.join(named)}.", status=2
        )
    scope, subject = given[0] if given else ("installation", "")
    over = window or ("total" if scope == "run" else "month")
    _one_of(over, WINDOWS, "--over")
    body = {
        "scope": scope,
        "subject": subject,
        "metric": metric,
        "window": over,
        "limit": limit.strip().lstrip("$"),
        "soft_percent": soft,
        "note": text,
    }
    # A key of our own: a connection that breaks after the POST cannot make a second one.
    made = Client().send(
        "POST", "/budgets", body, headers={"Idempotency-Key": uuid.uuid4().hex}, again=True
    )
    if as_json:
        output.document(made)
        return
    say(made["key"])
    note(
        f"It binds within two seconds; {_amount(made, 'left')} are left of {_amount(made, 'limit')}."
    )


@budgets.command("raise")
def budget_raise(
    key: Key,
    limit: Annotated[str, typer.Argument(help="The new limit.")],
    as_json: AsJson = False,
) -> None:
    """Set another limit; one with room again resolves the incidents that wait for it. A lower one lowers it."""
    path = f"/budgets/{segment(key)}"
    made = Client().send("PATCH", path, {"limit": limit.strip().lstrip("$")})
    if as_json:
        output.document(made)
        return
    say(f"The limit is {_amount(made, 'limit')}; {_amount(made, 'left')} are left.")


@budgets.command("rm")
def budget_rm(key: Key, yes: Yes = False) -> None:
    """Take a budget out of force, after asking once; its incidents are dismissed."""
    client = Client()
    row = client.get(f"/budgets/{segment(key)}")
    about = f"{row['scope']} {row['subject'] or ''}".strip()
    output.ask_once(
        f"Remove the budget of {clean(about)} ({_amount(row, 'limit')} over {row['window']})?",
        yes=yes,
    )
    client.send("DELETE", f"/budgets/{segment(key)}")
    say(f"Budget {clean(key)} is removed.")


def _amount(row: dict[str, Any], name: str) -> str:
    value = row[name]
    if row["metric"] == "usd":
        return output.money(value)
    return f"{int(float(value)):,} {row['metric']}"


# --- incidents ----------------------------------------------------------------------------------------------------


@incidents.command("list")
def incident_list(
    state: Annotated[str, typer.Option(help="open, resolved or all.")] = "open",
    run: Annotated[str, typer.Option(help="Of this run alone.", autocompletion=complete.runs)] = "",
    limit: Annotated[int, typer.Option(help="At most so many; 0: all.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List incidents, the open ones unless told otherwise."""
    _one_of(state, ("open", "resolved", "all"), "--state")
    rows = list(
        Client().pages("/incidents", limit=limit, run=run, state="" if state == "all" else state)
    )
    if as_json:
        output.document(rows)
        return
    output.table(
        ["INCIDENT", "LEVEL", "STATE", "RUN", "BUDGET", "FOUND", "AGE"],
        [
            [
                row["key"],
                output.paint(row["level"], "red" if row["level"] == "hard" else "yellow"),
                (row["how"] or row["state"]).replace("_", " "),
                row["run"],
                row["budget"],
                clean(row["message"])[:70],
                output.since(row["opened_at"]),
            ]
            for row in rows
        ],
        empty="No incident waits." if state == "open" else "There are no such incidents.",
    )


@incidents.command("resolve")
def incident_resolve(
    key: Annotated[
        str,
        typer.Argument(
            metavar="INCIDENT", help="The incident's key.", autocompletion=complete.incidents
        ),
    ],
    how: Annotated[
        str,
        typer.Argument(metavar="HOW", help=f"{', '.join(WAYS)}.", autocompletion=complete.ways),
    ],
    amount: Annotated[
        str, typer.Argument(help="The new limit (raise), or what is added (extend).")
    ] = "",
    text: Annotated[str, typer.Option("--note", help="Stands in the audit log.")] = "",
    as_json: AsJson = False,
) -> None:
    """Decide: raise the limit for good, extend this window once, stop the run, or dismiss it without room."""
    _one_of(how, tuple(WAYS), "HOW")
    if how in ("raise", "extend") and not amount:
        raise CliError(
            f"An amount is needed to {how}.",
            next_step=f"devaipod incident resolve {clean(key)} {how} 5.00",
            status=2,
        )
    body: dict[str, Any] = {"how": how, "note": text}
    if amount:
        body["amount"] = amount.strip().lstrip("$")
    done = Client().send("POST", f"/incidents/{segment(key)}/resolve", body)
    if as_json:
        output.document(done)
        return
    say(f"Incident {clean(key)} is resolved: {WAYS[how]}.")


def _one_of(word: str, words: tuple[str, ...], name: str) -> None:
    if word not in words:
        raise CliError(
            f"{name} cannot be {clean(word)!r}.",
            next_step=f"It is one of {', '.join(words)}.",
            status=2,
        )
