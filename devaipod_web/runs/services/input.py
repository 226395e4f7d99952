"""Write to the standard input of a run's command."""

from __future__ import annotations

from django.db import transaction

from devaipod_web.accounts.models import User
from devaipod_web.runs import events, untrusted
from devaipod_web.runs.errors import BadRequest, NotNow
from devaipod_web.runs.models import Run, RunCommand
from devaipod_web.runs.services.commands import OPEN, enqueue
from devaipod_web.runs.services.stop import live_pod
from devaipod_web.runs.states import WORKING
from pods.sidecar.protocol import CommandKind

#: A pipe holds 64 KiB; a program that is slow to read should still get a whole message.
MAX_INPUT_CHARACTERS = 32 * 1024
MAX_WAITING = 50


def send_input(run: Run, by: User | None, text: str) -> RunCommand:
    """Queue `text`, as it is, for the standard input of the run's command.

    Raises NotNow when the run executes no interactive command that is at work, BadRequest when the text is empty or too long, or
    too many inputs wait.
    """
    text = untrusted.text(text, MAX_INPUT_CHARACTERS + 1)
    if not text:
        raise BadRequest("The input is empty.")
    if len(text) > MAX_INPUT_CHARACTERS:
        raise BadRequest(f"One input has at most {MAX_INPUT_CHARACTERS:,} characters.")
    with transaction.atomic():
        run = Run.objects.select_for_update().get(pk=run.pk)
        pod = live_pod(run.pk)
        if not run.interactive:
            raise NotNow(
                "This run takes no input.",
                next_step="Launch a command with `interactive`; an agent takes prompts.",
            )
        if run.state not in WORKING or pod is None:
            raise NotNow("The command does not run.", next_step="Look at the run's state.")
        waiting = RunCommand.objects.filter(run=run, kind=CommandKind.INPUT, state__in=OPEN)
        if waiting.count() >= MAX_WAITING:
            raise BadRequest(f"{MAX_WAITING} inputs wait for this command already.")
        events.record(run, events.Kind.INPUT, {"text": text, "by": str(by) if by else ""})
        return enqueue(run.pk, CommandKind.INPUT, {"text": text}, pod=pod)
