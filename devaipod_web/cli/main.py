"""The `devaipod` command. Everything but the host's verbs goes over the API; the CLI never writes a run's state itself."""

from __future__ import annotations

import os
import sys

import typer

from devaipod_web.cli import attach, demo, reviews, runs, server, tokens
from devaipod_web.cli.client import CliError
from devaipod_web.cli.output import note

app = typer.Typer(
    name="devaipod",
    help="Launch AI coding agents in sandboxes, watch them, review their work, promote it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for verb in (
    runs.run,
    runs.ps,
    runs.show,
    runs.logs,
    attach.attach,
    runs.prompt,
    runs.answer,
    runs.stop,
    reviews.promote,
    reviews.reject,
    demo.demo,
    server.serve,
    server.setup,
    server.up,
    server.down,
    server.doctor,
    server.prune,
):
    app.command()(verb)
app.command("sign-in-link")(server.sign_in_link)
app.add_typer(reviews.app, name="review")
app.add_typer(tokens.tokens, name="token")
app.add_typer(tokens.projects, name="project")


def main() -> None:
    """Run the command; whatever goes wrong is one sentence and a next step on standard error, never a traceback."""
    try:
        app()
    except CliError as error:
        note(f"devaipod: {error.message}")
        if error.next_step:
            note(f"  → {error.next_step}")
        sys.exit(error.status)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of a pipe is gone (`devaipod ps | head -1`): nothing is wrong, and nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if os.environ.get("DEVAIPOD_DEBUG"):
            raise
        note(f"devaipod: {error.__class__.__name__}: {error}")
        note("  → This is a fault of devaipod; run it again with DEVAIPOD_DEBUG=1 to see where.")
        sys.exit(70)


if __name__ == "__main__":
    main()
