"""A pod's live connection: events come in and are acknowledged when they are committed, commands go out.

One connection a pod; a new one closes the old. Each connection has at most one batch on its way to the one writer, so
that a run that floods waits for itself and no other waits for more than a batch. While a batch is stored nothing more
is read from that socket (the server pauses its transport), so the pressure reaches the sidecar's outbox and from
there the agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import Any

import structlog

from devaipod_web import db
from devaipod_web.gateway import origin, tokens
from devaipod_web.gateway.http import Receive, Send
from devaipod_web.gateway.origin import Verdict
from devaipod_web.gateway.tokens import Caller
from devaipod_web.runs import wake
from devaipod_web.runs.errors import NotNow
from devaipod_web.runs.models import RunPod
from devaipod_web.runs.services.commands import mark_sent, pending
from devaipod_web.runs.services.connect import connected
from devaipod_web.runs.services.ingest import ingest
from pods.sidecar.protocol import (
    CLOSE_REPLACED,
    CLOSE_TOKEN_REFUSED,
    CLOSE_VERSION,
    MAX_MESSAGE_BYTES,
    PROTOCOL_VERSION,
    SPOKEN_VERSIONS,
    Event,
)

log = structlog.get_logger("devaipod.gateway.sidecar")

HELLO_SECONDS = 20
PING_SECONDS = 20
#: A sidecar that says nothing for this long is gone; its connection is closed so that it dials again.
SILENCE_SECONDS = 3 * PING_SECONDS
#: Events of one pod that are stored in one transaction.
BATCH_EVENTS = 200
CLOSE_BAD_MESSAGE = 1008
CLOSE_TRY_AGAIN = 1011
CLOSE_GOING_AWAY = 1012
CLOSE_NOT_YET = 1013
#: Words of a close frame: RFC 6455 §5.5 leaves 123 bytes.
MAX_REASON_BYTES = 123


class _Close(Exception):
    """End this connection with a code and a reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class _Gone(Exception):
    """The sidecar hung up."""


@dataclass(eq=False)
class _Connection:
    """One sidecar that is connected now."""

    caller: Caller
    token: str
    receive: Receive
    send: Send
    asked_to_close: asyncio.Future[_Close]
    sending: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def say(self, message: dict[str, Any]) -> None:
        async with self.sending:
            await self.send({"type": "websocket.send", "text": json.dumps(message)})

    async def hear(self) -> dict[str, Any]:
        message = await self.receive()
        if message["type"] == "websocket.disconnect":
            raise _Gone
        text = message.get("text")
        if text is None or len(text) > MAX_MESSAGE_BYTES:
            raise _Close(CLOSE_BAD_MESSAGE, "A message is one JSON object in a text frame.")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _Close(CLOSE_BAD_MESSAGE, "A message is not JSON.") from error
        if not isinstance(value, dict):
            raise _Close(CLOSE_BAD_MESSAGE, "A message is a JSON object.")
        return value

    def close(self, code: int, reason: str) -> None:
        """Ask the connection to end; safe to repeat."""
        if not self.asked_to_close.done():
            self.asked_to_close.set_result(_Close(code, reason))


_live: dict[int, _Connection] = {}


def connected_pods() -> set[int]:
    """Ids of the pods whose sidecar is connected to this process now."""
    return set(_live)


async def refuse(send: Send, *, wrong_kind: bool) -> None:
    """Accept and close with the code for a refused token: a refused handshake carries no code, and the sidecar would not
    learn why."""
    reason = (
        "The data token does not count at /sidecar: send the control token."
        if wrong_kind
        else "The run token is missing, unknown, or its pod has ended."
    )
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": CLOSE_TOKEN_REFUSED, "reason": reason})


async def refuse_origin(send: Send, verdict: Verdict) -> None:
    """Accept and close: with the code for a refused token, or while the pod's address is not known with one after which it dials again."""
    is_early = verdict is Verdict.NOT_YET
    code = CLOSE_NOT_YET if is_early else CLOSE_TOKEN_REFUSED
    log.info("sidecar.origin_refused", verdict=str(verdict))
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": code, "reason": origin.sentence(verdict)})


async def close_all() -> None:
    """Ask every sidecar to dial again later; at the server's end."""
    for connection in list(_live.values()):
        connection.close(CLOSE_GOING_AWAY, "The control plane is restarting.")
    for _ in range(100):
        if not _live:
            return
        await asyncio.sleep(0.02)


async def serve(caller: Caller, token: str, receive: Receive, send: Send) -> None:
    """Serve one sidecar from `hello` until one side closes."""
    await send({"type": "websocket.accept"})
    connection = _Connection(
        caller, token, receive, send, asyncio.get_running_loop().create_future()
    )
    with structlog.contextvars.bound_contextvars(run=caller.run_key, pod=caller.pod_name):
        try:
            await _conversation(connection)
        except _Gone:
            log.info("sidecar.gone")
        except _Close as close:
            log.info("sidecar.closed", code=close.code, reason=close.reason)
            reason = close.reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
            with contextlib.suppress(Exception):  # it may have hung up meanwhile
                await send({"type": "websocket.close", "code": close.code, "reason": reason})
        finally:
            if _live.get(caller.pod_id) is connection:
                del _live[caller.pod_id]


async def _conversation(connection: _Connection) -> None:
    await _greet(connection)
    older = _live.get(connection.caller.pod_id)
    _live[connection.caller.pod_id] = connection
    if older is not None:
        older.close(CLOSE_REPLACED, "A newer connection of this pod took over.")
    await _welcome(connection)
    tasks = [
        asyncio.create_task(_listen(connection), name="sidecar-listen"),
        asyncio.create_task(_command(connection), name="sidecar-command"),
        asyncio.create_task(_ping(connection), name="sidecar-ping"),
        asyncio.create_task(_asked(connection), name="sidecar-asked"),
    ]
    try:
        # Each of them ends by an exception alone.
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        done.pop().result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _asked(connection: _Connection) -> None:
    raise await asyncio.shield(connection.asked_to_close)


async def _greet(connection: _Connection) -> None:
    try:
        # Not wait_for: on Python 3.11 it swallows a cancellation that comes with the result.
        async with asyncio.timeout(HELLO_SECONDS):
            hello = await connection.hear()
    except TimeoutError as error:
        raise _Close(CLOSE_BAD_MESSAGE, "No hello came.") from error
    if hello.get("type") != "hello":
        raise _Close(CLOSE_BAD_MESSAGE, "The first message is hello.")
    if hello.get("protocol") not in SPOKEN_VERSIONS:
        spoken = ", ".join(str(version) for version in SPOKEN_VERSIONS)
        raise _Close(CLOSE_VERSION, f"The gateway speaks protocol version {spoken}.")
    log.info(
        "sidecar.hello",
        last_source_seq=hello.get("last_source_seq"),
        last_command=hello.get("last_command"),
    )


async def _welcome(connection: _Connection) -> None:
    try:
        config = await db.write(connected, connection.caller.pod_id)
    except NotNow as error:
        raise _Close(CLOSE_TOKEN_REFUSED, error.message) from error
    acked = await db.read(_last_source_seq, connection.caller.pod_id)
    await connection.say(
        {
            "type": "welcome",
            "protocol": PROTOCOL_VERSION,
            "acked": acked,
            "config": dict(config),
        }
    )


def _last_source_seq(pod_id: int) -> int:
    return RunPod.objects.values_list("last_source_seq", flat=True).get(pk=pod_id)


async def _listen(connection: _Connection) -> None:
    while True:
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                message = await connection.hear()
        except TimeoutError as error:
            raise _Close(CLOSE_TRY_AGAIN, "Nothing was heard for a minute.") from error
        match message.get("type"):
            case "events":
                await _store(connection, message.get("events"))
            case "ping":
                await connection.say({"type": "pong"})
            case "pong":
                pass
            case _:
                # A newer sidecar may say what we do not know yet; it does not rely on it.
                log.info("sidecar.unknown_message", type=str(message.get("type"))[:60])


async def _store(connection: _Connection, events: object) -> None:
    """Commit the events batch by batch and acknowledge each batch after its commit."""
    if not isinstance(events, list) or not all(_is_event(event) for event in events):
        raise _Close(CLOSE_BAD_MESSAGE, "Events are a list of objects with source_seq and kind.")
    for start in range(0, len(events), BATCH_EVENTS):
        batch: list[Event] = events[start : start + BATCH_EVENTS]
        try:
            acked = await db.write(ingest, connection.caller.pod_id, batch)
        except ValueError as error:
            log.warning("sidecar.events_refused", reason=str(error)[:300])
            raise _Close(CLOSE_BAD_MESSAGE, str(error)) from error
        except Exception as error:
            log.exception("sidecar.events_not_stored")
            raise _Close(CLOSE_TRY_AGAIN, "The events could not be stored; send again.") from error
        await connection.say({"type": "ack", "source_seq": acked})


def _is_event(event: object) -> bool:
    return (
        isinstance(event, dict)
        and type(event.get("source_seq")) is int
        and isinstance(event.get("kind"), str)
        and isinstance(event.get("payload"), dict)
        and isinstance(event.get("at"), str)
    )


async def _command(connection: _Connection) -> None:
    """Send what the run's queue holds, at each wake and on the beat; end when the token died."""
    sent: set[int] = set()
    caller = connection.caller
    with wake.listening(caller.run_key) as awake:
        while True:
            if await tokens.find(connection.token) is None:
                raise _Close(CLOSE_TOKEN_REFUSED, "The run's pod has ended.")
            waiting = await db.read(_pending, caller.pod_id)
            new = [command for command in waiting if command["id"] not in sent]
            for command in new:
                await connection.say(command["message"])
                sent.add(command["id"])
            if new:
                await db.write(_mark_sent, [command["id"] for command in new], caller.pod_id)
            await wake.pause(awake)


def _pending(pod_id: int) -> list[dict[str, Any]]:
    return [
        {
            "id": command.pk,
            "message": {
                "type": "command",
                "id": command.key,
                "number": command.number,
                "kind": command.kind,
                "payload": command.payload,
            },
        }
        for command in pending(RunPod.objects.get(pk=pod_id))
    ]


def _mark_sent(ids: list[int], pod_id: int) -> None:
    mark_sent(ids, RunPod.objects.get(pk=pod_id))


async def _ping(connection: _Connection) -> None:
    while True:
        await asyncio.sleep(PING_SECONDS)
        await connection.say({"type": "ping"})
