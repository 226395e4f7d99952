"""Verbs about targets: where pods run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from devaipod_web.cli import output
from devaipod_web.cli.client import Client, CliError, segment
from devaipod_web.cli.output import ask_once, clean, note, say

app = typer.Typer(help="Where pods run: this host's podman, and clusters.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON for programs.")]
Name = Annotated[str, typer.Argument(metavar="TARGET", help="The target's name or key.")]
POLICIES = {True: "enforced", False: "not enforced", None: "not known"}


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List targets: health, version, room, and whether they hold pods to their network."""
    rows = Client().get("/targets")
    if as_json:
        output.document(rows)
        return
    output.table(
        [
            "TARGET",
            "KIND",
            "NAMESPACE",
            "HEALTH",
            "VERSION",
            "RUNS",
            "POLICIES",
            "TAKES NONE BECAUSE",
        ],
        [
            [
                clean(row["name"]),
                row["kind"],
                clean(row["namespace"]) or "—",
                output.state(row["health"]),
                clean(row["version"]) or "—",
                f"{row['runs']} of {row['most_runs']}" if row["most_runs"] else str(row["runs"]),
                POLICIES[row["policies_enforced"]],
                clean(row["closed"]) or "—",
            ]
            for row in rows
        ],
        empty="There are no targets: add a cluster with `devaipod target add`.",
    )


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is to be called.")],
    kubeconfig: Annotated[
        str,
        typer.Option(help="A file, or - for standard input; else the server's service account."),
    ] = "",
    context: Annotated[str, typer.Option(help="One of its contexts; else the current one.")] = "",
    namespace: Annotated[str, typer.Option(help="Where pods are made; else the context's.")] = "",
    gateway: Annotated[
        str, typer.Option(help="The gateway as pods reach it: http://ADDRESS:PORT.")
    ] = "",
    relay: Annotated[
        bool, typer.Option("--relay", help="Pods can't reach the gateway: keep forwards open.")
    ] = False,
    max_runs: Annotated[int, typer.Option(help="Runs at once; 0: as many as it takes.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Add a cluster, and test it; exit status 1 when it does not answer."""
    body: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "kubeconfig": _text(kubeconfig) if kubeconfig else "",
        "context": context,
        "gateway_mode": "relay" if relay else "direct",
        "gateway_address": gateway,
        "max_runs": max_runs or None,
    }
    client = Client()
    made = client.send("POST", "/targets", body)
    if not as_json:
        note(f"{made['name']} is added.")
    _test(client, made["key"], as_json=as_json)


def _text(path: str) -> str:
    if path == "-":
        return sys.stdin.read()
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"{path} can't be read: {error}.") from error


@app.command("test")
def test(target: Name, as_json: AsJson = False) -> None:
    """Ask a target for version, room and network policies; exit status 1 when it does not answer."""
    _test(Client(), target, as_json=as_json)


def _test(client: Client, target: str, *, as_json: bool) -> None:
    found = client.send("POST", f"/targets/{segment(target)}/test")
    if as_json:
        output.document(found)
    else:
        say(f"{clean(found['message'])} ({found['milliseconds']} ms)")
        if found["ok"] and not found["policies_enforced"]:
            note(f"Network policies are {POLICIES[found['policies_enforced']]} there.")
        if found["next_step"]:
            note(clean(found["next_step"]))
    if not found["ok"]:
        raise typer.Exit(1)


@app.command("rm")
def rm(
    target: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a cluster that no project names and where no run is; nothing in it is touched."""
    ask_once(f"Remove the target {target}?", yes=yes)
    Client().send("DELETE", f"/targets/{segment(target)}")
    note(f"{target} is removed.")
