"""Verbs about the server's process and this host: serve, migrate, down, clean, doctor, sign-in-link, prune."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from devaipod_web import home
from devaipod_web.cli import output
from devaipod_web.cli.client import Client, CliError
from devaipod_web.cli.installation import on_host
from devaipod_web.cli.output import ask_once, clean, say

if TYPE_CHECKING:
    from devaipod_web.host.target_facts import TargetFacts

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON for programs.")]


def serve(
    service: Annotated[
        str, typer.Argument(metavar="[SERVICE]", help="all, web, gateway or supervisor.")
    ] = "all",
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; else 8000 or the next free one.")] = 0,
    background: Annotated[
        bool, typer.Option("--background", help="Start it as a process of its own.")
    ] = False,
) -> None:
    """Run the server: web, gateway and supervisor."""
    from devaipod_web import serve as server

    if service not in ("all", *server.SERVICES):
        raise CliError(
            f"There is no service {clean(service)!r}.",
            next_step=f"Services are all, {', '.join(server.SERVICES)}.",
            status=2,
        )
    if not background:
        raise typer.Exit(server.main(service, host=host, port=port or None))
    try:
        card = server.in_background(host=host, port=port or None)
    except server.CannotServe as error:
        raise CliError(str(error), next_step="`devaipod doctor` looks for the cause.") from error
    say(f"The server is up at {card['url']} (process {card['pid']})")


def migrate() -> None:
    """Bring the database up to date: migrations (after a copy), roles, the first manager, the CLI's token. Needs no server."""
    from devaipod_web.cli import setup as verbs

    verbs.bring_up_to_date(say)


def sign_in_link(
    username: Annotated[str, typer.Argument(help="Whom; else the first manager.")] = "",
) -> None:
    """Print a link that signs a person in, once, within ten minutes."""
    from devaipod_web.cli import setup as verbs

    verbs.django()
    say(verbs.sign_in_link(username))


def down() -> None:
    """End the server and podman's service on this host. Pods go on; `devaipod setup` starts the server again and picks them up."""
    from devaipod_web.host import commands
    from devaipod_web.host.terminal import Terminal

    on_host(lambda: commands.down(home.home(), say=Terminal()))


def clean_up(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """End and remove everything of this installation on this host: server, pods, volumes, and DEVAIPOD_HOME with all runs and keys."""
    from devaipod_web.host import commands
    from devaipod_web.host.terminal import Terminal

    ask_once(f"Remove {home.home()} and every pod and volume of it, for good?", yes=yes)
    on_host(lambda: commands.clean(home.home(), say=Terminal()))


def server_log(*, follow: bool, tail: int) -> None:
    """Print the server's log, and go on with what comes."""
    from devaipod_web.host import commands
    from devaipod_web.host import server as card

    if follow:
        raise typer.Exit(on_host(lambda: commands.follow_logs(home.home(), lines=tail)))
    if not home.serve_log().exists():
        raise CliError(
            "There is no server log yet.", next_step="A server in the background writes one."
        )
    say(clean(card.tail(home.serve_log(), lines=tail), keep_newlines=True))


def doctor(as_json: AsJson = False) -> None:
    """Find what is wrong on this host and say what mends it. Exit status 1 when something is an error."""
    from devaipod_web.host import doctor as host_doctor

    findings = host_doctor.check(home.home(), targets=_targets())
    if as_json:
        output.document([found.as_dict() for found in findings])
    else:
        say(host_doctor.show(findings))
    if any(found.severity is host_doctor.Severity.ERROR for found in findings):
        raise typer.Exit(1)


def _targets() -> list[TargetFacts]:
    """The targets of an installation whose database is no file of this host, as its server answers; none when it does not."""
    from devaipod_web.host.target_facts import TargetFacts

    if "postgres" not in os.environ.get("DATABASE_URL", ""):
        return []
    try:
        rows = Client().get("/targets")
    except CliError:
        return []
    return [
        TargetFacts(
            name=clean(row["name"]),
            is_podman=row["kind"] == "podman",
            enabled=row["enabled"],
            health=row["health"],
            error=clean(row["error"]),
            next_step=clean(row["next_step"]),
            policies=row["policies_enforced"],
        )
        for row in rows
    ]


def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove logs and volumes of runs that are older than the installation keeps them."""
    client = Client()
    plan: list[dict[str, Any]] = client.get("/retention")
    if as_json and dry_run:
        output.document(plan)
        return
    if not as_json:
        output.table(
            ["WHAT", "RUN", "TITLE", "ENDED", "SIZE"],
            [
                [
                    item["what"],
                    item["run"],
                    clean(item["title"])[:60],
                    output.since(item["ended_at"]),
                    f"{item['bytes'] / 1024**2:.1f} MiB" if item["bytes"] else "—",
                ]
                for item in plan
            ],
            empty="Nothing is old enough to be removed.",
        )
    if dry_run or not plan:
        return
    ask_once(f"Remove these {len(plan)}?", yes=yes)
    done = client.send("POST", "/retention")
    output.document(done) if as_json else say(f"Removed {len(done)}.")
