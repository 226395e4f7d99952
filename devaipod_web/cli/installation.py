"""Verbs about the installation as a whole: setup, status, services, restart, teardown."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer

from devaipod_web import home
from devaipod_web.cli import complete, output
from devaipod_web.cli.client import Client, CliError, segment
from devaipod_web.cli.output import ask_once, clean, note, say

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON for programs.")]
T = TypeVar("T")

#: Sidecars stage for at most a minute, and several go at once.
TEARDOWN_SECONDS = 300.0
GIB = 1024**3


def setup(
    as_json: AsJson = False,
    agents: Annotated[
        str, typer.Option(help="Agents whose images are built too: codex, gemini, …, or all.")
    ] = "",
) -> None:
    """Make this installation ready and its server run, from nothing or from anywhere between; end with a sign-in link.

    On this host: packages (named in one command when you are not root), podman's configuration and service, images,
    database, first manager, the server in the background. Then, also on a server elsewhere (DEVAIPOD_URL): each part is
    checked, what is down is brought up, and new runs are taken again. Safe to repeat; undoes `teardown` and `down`.
    """
    local = not os.environ.get("DEVAIPOD_URL")
    if local:
        _bring_up_host(agents)
    answer = Client(seconds=300).send("POST", "/setup")
    if as_json:
        output.document(answer)
    else:
        _say_steps(answer["steps"])
    if not answer["ready"]:
        raise CliError(
            "Not everything is set up.",
            next_step="Do what the failed steps say, then `devaipod setup` again; `devaipod doctor` looks at the host.",
        )
    if local and not as_json:
        from devaipod_web.cli import setup as verbs

        verbs.django()
        say(f"Sign in once, within ten minutes: {verbs.sign_in_link()}")


def _bring_up_host(agents: str) -> None:
    from devaipod_web.host import commands, images
    from devaipod_web.host.terminal import Terminal

    # Standard output is for the result; the host's steps are progress.
    on_host(lambda: commands.up(home.home(), say=Terminal(sys.stderr), agents=images.named(agents)))


def status(as_json: AsJson = False) -> None:
    """Say how this installation is: version, health of each part, runs, queue, disk.

    Exit status 1 when a part is down, or when no server answers.
    """
    client = Client()
    found = client.get("/status")
    if as_json:
        output.document(found)
    else:
        _say_status(client, found)
    if any(one["health"] == "down" for one in found["services"]):
        raise typer.Exit(1)


def _say_status(client: Client, found: dict[str, Any]) -> None:
    say(f"{output.state(found['health'])}  devaipod {found['version']} at {client.url}")
    role = f" ({found['role']})" if found["role"] else ", who has no role"
    free, total = found["disk_free_bytes"] / GIB, found["disk_total_bytes"] / GIB
    for label, value in (
        ("installation", found["installation"]),
        ("you", f"{clean(found['user'])}{role}"),
        (
            "runs",
            f"{found['active_runs']}{_of(found['max_runs'])} at work, {found['queued_runs']} queued",
        ),
        (
            "needs a person",
            f"{found['waiting_permissions']} questions, {found['open_reviews']} reviews",
        ),
        ("disk", f"{free:.1f} of {total:.1f} GiB free"),
    ):
        say(f"  {label + ':':<16}{value}")
    if found["draining_since"]:
        say(
            output.paint("▲ takes no new runs ", "yellow")
            + f"since {output.since(found['draining_since'])} ago: `devaipod setup` takes it into work again"
        )
    for one in found["services"]:
        say(f"  {output.state(one['health'])}  {clean(one['title'])}: {clean(one['says'])}")


def _of(most: int | None) -> str:
    return f" of {most}" if most is not None else ""


def services(as_json: AsJson = False) -> None:
    """List the control plane's own parts: health, version, since when, last error, and which can be restarted."""
    rows = Client().get("/services")
    if as_json:
        output.document(rows)
        return
    output.table(
        ["SERVICE", "HEALTH", "SINCE", "VERSION", "FOUND", "LAST ERROR", "RESTART"],
        [
            [
                clean(row["name"]),
                output.state(row["health"]),
                output.since(row["since"]),
                clean(row["version"]) or "—",
                clean(row["says"])[:60],
                f"{output.since(row['last_error_at'])} ago: {clean(row['last_error'])}"[:50]
                if row["last_error"]
                else "—",
                "yes" if row["restart_does"] else "no",
            ]
            for row in rows
        ],
        empty="There are no services.",
    )


def restart(
    service: Annotated[
        str,
        typer.Argument(
            metavar="SERVICE",
            help="Its name, as `devaipod services` lists it.",
            autocompletion=complete.services,
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Restart one of the control plane's own parts, and say how it is then. Pods and agents go on meanwhile."""
    found = Client(seconds=90).send("POST", f"/services/{segment(service)}/restart")
    if as_json:
        output.document(found)
    else:
        say(f"{output.state(found['health'])}  {clean(found['title'])}: {clean(found['says'])}")
        if found["next_step"]:
            say(f"  → {clean(found['next_step'])}")
    if found["health"] == "down":
        raise typer.Exit(1)


def teardown(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take no new runs, stop those at work (what they did is staged), and end every pod. `setup` undoes it.

    The server goes on: everything can still be looked at, reviewed and promoted. `devaipod down` ends the server as well.
    """
    client = Client(seconds=120)
    found = client.get("/status")
    ask_once(
        f"Stop {found['active_runs'] + found['queued_runs']} runs and remove all pods of the installation "
        f"{found['installation']} at {client.url}?",
        yes=yes,
    )
    deadline = time.monotonic() + TEARDOWN_SECONDS
    while True:
        answer = client.send("POST", "/teardown", {"confirm": found["installation"]})
        waiting = any(step["result"] == "waiting" for step in answer["steps"])
        if not waiting or time.monotonic() > deadline:
            break
        for step in answer["steps"]:
            if step["result"] == "waiting":
                note(f"… {clean(step['says'])}")
    if as_json:
        output.document(answer)
    else:
        _say_steps(answer["steps"])
    if not answer["done"]:
        raise CliError(
            "Not everything is torn down.",
            next_step="Do what the steps above say, then `devaipod teardown` again.",
        )


def _say_steps(steps: list[dict[str, Any]]) -> None:
    for step in steps:
        say(f"{output.state(step['result'])}  {clean(step['step'])}: {clean(step['says'])}")
        if step["next_step"]:
            say(f"  → {clean(step['next_step'])}")


def on_host(do: Callable[[], T]) -> T:
    """Do something of `devaipod_web.host`; its errors become the command's."""
    from devaipod_web.host.errors import HostError

    try:
        return do()
    except HostError as error:
        raise CliError(
            str(error), next_step="`devaipod doctor` says more about this host."
        ) from error
