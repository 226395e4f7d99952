"""What `--help` says of every verb beside its options: its panel, examples, exit statuses, environment. One table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from devaipod_web.cli.client import CliError

#: Panels of `devaipod --help`, in their order there.
PANELS: dict[str, tuple[str, ...]] = {
    "Runs": ("run", "ps", "show", "logs", "events", "attach", "prompt", "answer", "pause", "resume", "stop", "rm", "debug", "pod"),
    "Reviews": ("review", "diff", "promote", "reject"),
    "Projects, providers, targets, tokens, webhooks": ("project", "provider", "target", "token", "webhook"),
    "Spend": ("usage", "budget", "incident"),
    "Installation": ("setup", "status", "services", "restart", "teardown", "prune"),
    "This host": ("serve", "migrate", "down", "clean", "doctor", "sign-in-link"),
    "More": ("demo", "gc-session", "completion"),
}  # fmt: skip

STATUSES = {
    0: "done",
    1: "refused or not possible: standard error says why, and the next step",
    2: "the command was written wrongly",
    4: "the server has no such thing",
}
_FOLLOWED = {
    0: "the run succeeded, or --detach",
    10: "the run failed",
    11: "it was stopped",
    12: "it took longer than its wall time",
    130: "detached; it goes on",
}
_SERVER = {
    "DEVAIPOD_URL": "the server; unset: that of this installation on this host",
    "DEVAIPOD_TOKEN": "the token; needed with DEVAIPOD_URL, else the one that setup left",
}
_HOME = {
    "DEVAIPOD_HOME": "the installation's folder; else ./var in a checkout, else ~/.local/share/devaipod"
}
_PORT = {"DEVAIPOD_PORT": "the port that the server takes; else 8000 or the next free one"}


@dataclass(frozen=True)
class Help:
    """What stands under a verb's options."""

    examples: tuple[str, ...]
    statuses: dict[int, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=lambda: _SERVER)


HELP: dict[str, Help] = {
    "run": Help(
        (
            'devaipod run payments "Retry webhooks with back-off"',
            "devaipod run payments - < task.md",
            'key=$(devaipod run payments "Fix the flaky test" --detach)',
        ),
        _FOLLOWED,
    ),
    "ps": Help(("devaipod ps", "devaipod ps --all --mine", "devaipod ps --state waiting --json | jq -r '.[].key'")),
    "show": Help(("devaipod show RUN", "devaipod show RUN --json | jq .cost")),
    "logs": Help(("devaipod logs RUN --follow", "devaipod logs RUN -c sidecar --tail 50", "devaipod logs   # the server's")),
    "events": Help(("devaipod events RUN", "devaipod events RUN --follow --after 120 --json")),
    "prompt": Help(('devaipod prompt RUN "Also update the docs"', "devaipod prompt RUN - < more.md"), _FOLLOWED),
    "answer": Help(("devaipod answer RUN REQUEST once   # `devaipod show RUN` prints these lines",)),
    "pause": Help(('devaipod pause RUN --reason "let me look first"',)),
    "resume": Help(("devaipod resume RUN", 'devaipod resume RUN --text "Use the other table"', "devaipod resume RUN --detach"), _FOLLOWED),
    "stop": Help(('devaipod stop RUN --reason "wrong branch"',)),
    "rm": Help(("devaipod rm RUN", "devaipod ps --state failed --json | jq -r '.[].key' | xargs devaipod rm --yes")),
    "attach": Help(("devaipod attach RUN", "devaipod attach RUN -- git status", "devaipod attach RUN -- cat notes.md > notes.md"),
        {0: "the program ended with 0", 130: "left by Ctrl-]; else the program's own exit status"}),
    "gc-session": Help(
        ("GC_SESSION=exec:gc-session-devaipod gc start", "devaipod gc-session is-running worker-1"),
        {0: "done", 1: "refused or not possible", 2: "this provider has no such operation", 75: "no place came free in time"},
        {**_SERVER, "DEVAIPOD_GC_PROJECT": "the project of its sessions", "DEVAIPOD_GC_IMAGE": "their image; else the project's",
         "DEVAIPOD_GC_WALL_SECONDS": "how long one may take"},
    ),
    "pod create": Help(("devaipod pod create payments -- make test", "devaipod pod create payments --follow -e CI=true -- npm test"), _FOLLOWED),
    "pod ls": Help(("devaipod pod ls", "devaipod pod ls --all --run RUN --json")),
    "pod input": Help(('devaipod pod input POD "yes"', "devaipod pod input POD - < answers.txt")),
    "pod stop": Help(('devaipod pod stop POD --reason "Not needed"',)),
    "pod rm": Help(("devaipod pod rm POD", "devaipod pod rm RUN --no-wait")),
    "usage": Help(("devaipod usage", "devaipod usage --by model --since 7d",
        "devaipod usage --by person --per month --since 2026-01-01 --csv > spend.csv")),
    "budget list": Help(("devaipod budget list", "devaipod budget list --run RUN",
        "devaipod budget list --json | jq '.[] | select(.left == \"0\")'")),
    "budget set": Help(
        ("devaipod budget set 600", "devaipod budget set 220 --project payments --note Pilot",
         "devaipod budget set 5000000 --person alice --in tokens --over day",
         "devaipod budget set 2.50 --project payments --over each_run"),
    ),
    "budget raise": Help(("devaipod budget raise BUDGET 800",)),
    "budget rm": Help(("devaipod budget rm BUDGET",)),
    "incident list": Help(("devaipod incident list", "devaipod incident list --state all --json")),
    "incident resolve": Help(
        ("devaipod incident resolve INCIDENT extend 5.00", "devaipod incident resolve INCIDENT raise 20 --note 'For the release'",
         "devaipod incident resolve INCIDENT stop"),
    ),
    "provider list": Help(("devaipod provider list", "devaipod provider list --json")),
    "provider test": Help(("devaipod provider test PROVIDER",), {0: "it answered well", 1: "it did not"}),
    "provider reseal": Help(("devaipod provider reseal",), {0: "every secret is sealed anew", 1: "no key opens one"}),
    "target list": Help(("devaipod target list", "devaipod target list --json | jq '.[] | select(.health != \"ok\")'")),
    "target add": Help(("kubectl config view --minify --flatten --raw | devaipod target add cluster-a --kubeconfig - --gateway http://10.0.0.7:8001",),
        {0: "added, and it answers", 1: "not added, or it does not answer"}),
    "target test": Help(("devaipod target test podman",), {0: "it answered", 1: "it did not"}),
    "target rm": Help(("devaipod target rm cluster-a",)),
    "webhook ls": Help(("devaipod webhook ls", "devaipod webhook ls --json | jq '.[] | select(.failing_since)'")),
    "webhook create": Help(("devaipod webhook create Chat https://receiver.example/devaipod --event run.state --event review.opened",)),
    "webhook rm": Help(("devaipod webhook rm WEBHOOK",)),
    "webhook deliveries": Help(("devaipod webhook deliveries WEBHOOK --state failed",)),
    "webhook test": Help(("devaipod webhook test WEBHOOK",), {0: "the receiver took it", 1: "it did not, or is not allowed"}),
    "debug": Help(("devaipod debug RUN", "devaipod debug POD --json")),
    "diff": Help(("devaipod diff RUN | less -R",)),
    "promote": Help(("devaipod promote REVIEW", "devaipod promote REVIEW --head 4f9c2ab --yes")),
    "reject": Help(('devaipod reject REVIEW --reason "Needs a test"',)),
    "review list": Help(("devaipod review list", "devaipod review list --state all --json")),
    "review show": Help(("devaipod review show REVIEW | less -R",)),
    "project list": Help(("devaipod project list --json",)),
    "project create": Help(("devaipod project create Payments https://forge.example/acme/payments.git",)),
    "token list": Help(("devaipod token list",)),
    "token create": Help(("DEVAIPOD_TOKEN=$(devaipod token create nightly --role operator --expires 30)",)),
    "token revoke": Help(("devaipod token revoke TOKEN   # its key, as `devaipod token list` shows it",)),
    "setup": Help(("devaipod setup", "devaipod setup --json"), variables={**_HOME, **_PORT, **_SERVER}),
    "status": Help(("devaipod status", "devaipod status --json | jq .health"),
        {0: "no part is down", 1: "a part is down, or no server answers"}),
    "services": Help(("devaipod services", "devaipod services --json | jq '.[] | select(.health != \"ok\")'")),
    "restart": Help(("devaipod restart supervisor", "devaipod restart podman"),
        {0: "restarted, and it is not down", 1: "not restarted, or still down"}),
    "teardown": Help(("devaipod teardown", "devaipod teardown --yes && devaipod down"), {0: "no run is at work and no pod is left"}),
    "prune": Help(("devaipod prune --dry-run", "devaipod prune --yes")),
    "serve": Help(
        ("devaipod serve", "devaipod serve --host 0.0.0.0 --port 8000", "devaipod serve gateway   # with PostgreSQL and Redis"),
        {0: "ended by a signal", 1: "a service broke down", 2: "it could not start"},
        {**_HOME, "DATABASE_URL": "PostgreSQL instead of SQLite", "REDIS_URL": "when services run apart"},
    ),
    "migrate": Help(("devaipod migrate && exec devaipod serve",), variables={**_HOME, "DATABASE_URL": "PostgreSQL instead of SQLite"}),
    "down": Help(("devaipod down",), variables=_HOME),
    "clean": Help(("devaipod clean", "devaipod clean --yes && pipx uninstall devaipod-web"), variables=_HOME),
    "doctor": Help(("devaipod doctor", "devaipod doctor --json"), {0: "no error (warnings may be)", 1: "something is an error"}, _HOME),
    "sign-in-link": Help(("devaipod sign-in-link", "devaipod sign-in-link alice"), variables=_HOME),
    "demo": Help(("devaipod demo",), {0: "the run succeeded and opened a review", 10: "it did not"}, _HOME),
    "completion": Help(
        ("source <(devaipod completion bash)   # in ~/.bashrc", "source <(devaipod completion zsh)    # in ~/.zshrc",
         "devaipod completion fish > ~/.config/fish/completions/devaipod.fish"),
    ),
}  # fmt: skip


class ReaderGone(CliError):
    """Nobody reads what is written: nothing is wrong, and nothing more can be said."""

    def __init__(self, message: str) -> None:
        super().__init__(message, status=0)


class Verb(TyperCommand):
    """A verb whose help ends with examples, exit statuses and environment."""

    def invoke(self, ctx: Any) -> Any:
        """Run it. A reader of our output that is gone (`devaipod ps | head -1`) is no error, as typer would have it."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise ReaderGone("") from None

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Typer's help, then ours, printed as it is: its lines are meant to be copied."""
        super().format_help(ctx, formatter)
        path = ctx.command_path.removeprefix(ctx.find_root().command_path).strip()
        if path in HELP:
            print(text(HELP[path]))


class Root(TyperGroup):
    """The command itself: verbs stand in the order of their panels, whoever registered them when."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of PANELS; those of no panel at the end."""
        order = [verb for verbs in PANELS.values() for verb in verbs]
        return sorted(
            super().list_commands(ctx),
            key=lambda name: order.index(name) if name in order else len(order),
        )

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Typer's help, and where the rest is."""
        super().format_help(ctx, formatter)
        print(
            " `devaipod VERB --help` has examples, exit statuses and environment. Start with `devaipod setup`."
        )


def text(found: Help) -> str:
    """The lines under a verb's options."""
    statuses = {**STATUSES, **found.statuses}
    variables = {**found.variables, "NO_COLOR": "anything: no colours"}
    widest = max(len(name) for name in variables)
    return "\n".join(
        [
            " Examples",
            *(f"   {line}" for line in found.examples),
            "",
            " Exit status",
            *(f"   {status:<4} {words}" for status, words in sorted(statuses.items())),
            "",
            " Environment",
            *(f"   {name:<{widest}}  {words}" for name, words in variables.items()),
        ]
    )


def arrange(app: typer.Typer) -> None:
    """Give every verb its panel and the longer help. Called once, when all verbs are there."""
    panels = {verb: panel for panel, verbs in PANELS.items() for verb in verbs}
    for command in app.registered_commands:
        command.cls = Verb
        name = command.name or getattr(command.callback, "__name__", "").replace("_", "-")
        command.rich_help_panel = panels.get(name)
    for group in app.registered_groups:
        group.rich_help_panel = panels.get(str(group.name))
        if group.typer_instance is not None:
            for command in group.typer_instance.registered_commands:
                command.cls = Verb
