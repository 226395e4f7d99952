"""The `devaipod` command. Everything but the host's verbs goes over the API; the CLI never writes a run's state itself."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import Annotated

import typer

from devaipod_web import __version__
from devaipod_web.cli import (
    arrange,
    attach,
    completion,
    debug,
    demo,
    gc_session,
    installation,
    pods,
    providers,
    reviews,
    runs,
    server,
    spend,
    targets,
    tokens,
    webhooks,
)
from devaipod_web.cli.client import CliError
from devaipod_web.cli.output import note, say

app = typer.Typer(
    name="devaipod",
    cls=arrange.Root,
    help="Launch AI coding agents in sandboxes, watch them, review their work, promote it.",
    no_args_is_help=True,
    # `devaipod completion SHELL` prints the script; these two options would say the same in every help.
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        say(f"devaipod {__version__}")
        raise typer.Exit


@app.callback()
def devaipod(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Launch AI coding agents in sandboxes, watch them, review their work, promote it."""


for verb in (
    runs.run,
    runs.ps,
    runs.show,
    runs.logs,
    runs.events,
    attach.attach,
    runs.prompt,
    runs.answer,
    runs.pause,
    runs.resume,
    runs.stop,
    runs.rm,
    reviews.diff,
    debug.debug,
    reviews.promote,
    reviews.reject,
    spend.usage,
    installation.setup,
    installation.status,
    installation.services,
    installation.restart,
    installation.teardown,
    server.prune,
    server.serve,
    server.migrate,
    server.down,
    server.doctor,
    demo.demo,
    completion.completion,
):
    app.command()(verb)
app.command("clean")(server.clean_up)
app.command("sign-in-link")(server.sign_in_link)
app.command("gc-session", context_settings=gc_session.CONTEXT)(gc_session.gc_session)
app.add_typer(pods.app, name="pod")
app.add_typer(reviews.app, name="review")
app.add_typer(tokens.tokens, name="token")
app.add_typer(tokens.projects, name="project")
app.add_typer(providers.app, name="provider")
app.add_typer(targets.app, name="target")
app.add_typer(spend.budgets, name="budget")
app.add_typer(spend.incidents, name="incident")
app.add_typer(webhooks.app, name="webhook")
arrange.arrange(app)


def main() -> None:
    """Run the command; whatever goes wrong is one sentence and a next step on standard error, never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal without UTF-8 gets question marks, not a fault.
            stream.reconfigure(errors="replace")
    if completion.VARIABLE in os.environ:
        completion.prepare()
    try:
        status = app(prog_name="devaipod", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # As `arrange.ReaderGone`, in the last flush.
        _forget_output()
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if os.environ.get("DEVAIPOD_DEBUG") and not isinstance(error, CliError):
            raise
        told = _told(error)
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        _forget_output()
        if told.message:
            note(f"devaipod: {told.message}")
        if told.next_step:
            note(f"  → {told.next_step}")
        sys.exit(told.status)
    sys.exit(status if isinstance(status, int) else 0)


def _told(error: Exception) -> CliError:
    """What is said about an exception: message, next step and exit status."""
    if isinstance(error, CliError):
        return error
    if isinstance(error, typer.Abort):
        return CliError("Nothing was done.", status=130)
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        where = context.command_path if context is not None else "devaipod"
        # Without arguments a group has shown its help, and there is nothing to say.
        message = error.format_message().strip()
        step = f"`{where} --help` explains it." if message else ""
        return CliError(message, next_step=step, status=error.exit_code)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        where = f" to {error.filename}" if error.filename else ""
        return CliError(
            f"Nothing more could be written{where}: {error.strerror}.",
            next_step="Make room, or write somewhere else.",
        )
    if isinstance(error, OSError) and error.filename:
        return CliError(
            f"{error.filename}: {error.strerror}.",
            next_step="Check that this user may read and write there; DEVAIPOD_HOME names another folder.",
        )
    return CliError(
        f"{error.__class__.__name__}: {error}",
        next_step="This is a fault of devaipod; run it again with DEVAIPOD_DEBUG=1 to see where.",
        status=70,
    )


def _forget_output() -> None:
    """Nothing more goes to standard output: Python would try again at its end, and complain."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
