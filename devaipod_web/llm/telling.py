"""What goes wrong with a model request: told to the agent in its API's form, and to people as an event of the run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

import structlog

from devaipod_web import db
from devaipod_web.gateway.http import Response
from devaipod_web.gateway.tokens import Caller
from devaipod_web.llm import meter
from devaipod_web.llm.errors import ModelError
from devaipod_web.llm.forms import Form

log = structlog.get_logger("devaipod.llm")

_later: set[asyncio.Task[None]] = set()


async def refuse(caller: Caller, response: Response, form: Form, error: ModelError) -> None:
    """Tell people, then the agent: after the answer has left, this task may be cancelled at any moment."""
    await tell(caller, error)
    if response.started:
        return
    headers = [("retry-after", error.retry_after)] if error.retry_after.isdigit() else []
    body = error.body or json.dumps(form.error_of(error)).encode()
    await response.whole(error.status, body, [*headers, ("content-type", "application/json")])


async def tell(caller: Caller, error: ModelError) -> None:
    """Put an error on the run, each kind once in a while."""
    log.warning("llm.refused", code=error.code, status=error.status, message=error.message)
    if meter.due(caller.run_id, error.code):
        await db.write(meter.record_refusal, caller.run_id, error)


async def note(caller: Caller, text: str, kind: str, next_step: str = "") -> None:
    """Put a warning on the run, each kind once in a while."""
    if meter.due(caller.run_id, kind):
        await say(caller, text, next_step)


async def say(caller: Caller, text: str, next_step: str = "") -> None:
    """Put a warning on the run."""
    await db.write(meter.record_note, caller.run_id, text, next_step)


def later(work: Coroutine[Any, Any, None]) -> None:
    """Do it beside the request; `drain` waits for it."""
    task = asyncio.create_task(work, name="llm-later")
    _later.add(task)
    task.add_done_callback(_done)


def _done(task: asyncio.Task[None]) -> None:
    _later.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("llm.not_noted", exc_info=error)


async def drain() -> None:
    """Wait for what is done beside requests; at the server's end."""
    if _later:
        await asyncio.wait(set(_later), timeout=10)
