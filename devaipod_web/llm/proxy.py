"""`/llm/v1/…`: a run's requests to its model, in OpenAI's chat form.

The agent has no key: the provider, the model and the credential are the run's and are put in here. The answer passes
as its bytes arrive; token counts are read beside it. Whatever goes wrong is told to the agent in OpenAI's error form
and to people as an event of the run.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import aiohttp
import structlog
from django.utils import timezone

from devaipod_web import db
from devaipod_web.gateway.http import Request, Response, TooLarge, until_gone
from devaipod_web.gateway.tokens import Caller
from devaipod_web.llm import demo, meter, pace, reach, upstream, usage
from devaipod_web.llm.errors import (
    ModelError,
    ProviderFailed,
    ProviderSilent,
    RequestRefused,
)
from devaipod_web.llm.models import ProviderKind
from devaipod_web.llm.target import Target, target_of

log = structlog.get_logger("devaipod.llm")

#: A request's body; a long conversation with pictures as data has a few megabytes.
MAX_REQUEST_BYTES = 16 * 1024 * 1024
#: A whole (not streamed) answer.
MAX_ANSWER_BYTES = 32 * 1024 * 1024
DEMO_PROVIDER_NAME = "scripted demo, no AI"
JSON = "application/json"
EVENT_STREAM = "text/event-stream"
#: Headers of a provider's answer that the agent may see.
PASSED_HEADERS = ("content-type", "x-request-id", "openai-processing-ms")


@dataclass
class _Call:
    """One request under way, and what will be stored of it."""

    caller: Caller
    target: Target
    characters: int
    streamed: bool
    reader: usage.AnswerReader
    at: datetime = field(default_factory=timezone.now)
    began: float = field(default_factory=time.monotonic)
    first_byte: float | None = None
    status: int = 0
    error: str = ""
    asked: bool = False
    tokens: usage.Tokens = field(default_factory=usage.Tokens)

    def saw_byte(self) -> None:
        if self.first_byte is None:
            self.first_byte = time.monotonic()

    async def store(self) -> None:
        """Write the row; a call that never reached the provider used nothing."""
        target = self.target
        tokens = self.tokens if self.asked else usage.Tokens()
        first = self.first_byte
        await db.write(
            meter.record_call,
            run_id=self.caller.run_id,
            provider_id=target.provider_id,
            provider_kind=target.kind,
            model=target.model,
            at=self.at,
            status=self.status,
            error=self.error,
            milliseconds=int((time.monotonic() - self.began) * 1000),
            first_byte_milliseconds=None if first is None else int((first - self.began) * 1000),
            tokens=tokens,
            cost=usage.price(target.kind, target.model, tokens, base_url=target.base_url),
        )


async def models(caller: Caller, request: Request, response: Response) -> None:
    """`GET /llm/v1/models`: the one model that this run may use."""
    try:
        target = await db.read(target_of, caller.run_id)
    except ModelError as error:
        await _refuse(caller, response, error)
        return
    owner = DEMO_PROVIDER_NAME if target.kind == ProviderKind.DEMO else "devaipod"
    model = {"id": target.model, "object": "model", "created": 0, "owned_by": owner}
    await response.json(200, {"object": "list", "data": [model]})


async def chat_completions(caller: Caller, request: Request, response: Response) -> None:
    """`POST /llm/v1/chat/completions`, streamed or whole."""
    try:
        body = await _body(caller, request)
        target = await db.read(target_of, caller.run_id)
        allowed = reach.restrict(body)
    except reach.ReachRefused as error:
        await _refuse(caller, response, RequestRefused(f"{error}"))
        return
    except ModelError as error:
        await _refuse(caller, response, error)
        return
    await _note(caller, allowed.notes)
    sent = reach.with_usage({**allowed.body, "model": target.model})
    data = json.dumps(sent).encode()
    streamed = bool(sent.get("stream"))
    reader = usage.AnswerReader(streamed=streamed, request_characters=len(data))
    call = _Call(caller, target, characters=len(data), streamed=streamed, reader=reader)
    await until_gone(request, _answer(call, sent, data, response))


async def close() -> None:
    """Store what is still to be stored and let go of the connections to providers; at the server's end."""
    if _storing:
        await asyncio.wait(_storing, timeout=10)
    await upstream.close()


async def _body(caller: Caller, request: Request) -> dict[str, Any]:
    try:
        raw = await request.body(limit=MAX_REQUEST_BYTES)
        if pace.too_many_elements(raw):
            raise RequestRefused("The request has more than a million values.", status=413)
        await pace.wait_turn(caller.run_id, len(raw))
        value = json.loads(raw)
    except TooLarge as error:
        raise RequestRefused(
            f"The request has more than {MAX_REQUEST_BYTES // 1024**2} MB.", status=413
        ) from error
    except (ValueError, RecursionError) as error:
        raise RequestRefused("The request's body is not JSON.") from error
    if not isinstance(value, dict) or not isinstance(value.get("messages"), list):
        raise RequestRefused("The request's body must be an object with a list of messages.")
    return value


async def _answer(call: _Call, body: dict[str, Any], data: bytes, response: Response) -> None:
    """Ask the provider and pass its answer on; store the call whatever happens, also when the agent hung up."""
    try:
        if call.target.upstream is None:
            await _play_demo(call, body, response)
        else:
            await _pass_on(call, call.target.upstream, data, response)
    except ModelError as error:
        call.status, call.error = error.status, error.message
        await _refuse(call.caller, response, error)
    except asyncio.CancelledError:
        # The server says that the client is gone also when the answer is complete.
        if not call.status:
            call.status, call.error = 499, "The agent hung up."
        raise
    finally:
        call.reader.end()
        call.tokens = call.reader.tokens
        if call.error and not call.reader.recognised:
            # It failed before a word came back; providers do not charge for that.
            call.tokens = usage.Tokens()
        storing = asyncio.create_task(_store(call), name="llm-store")
        _storing.add(storing)
        storing.add_done_callback(_storing.discard)


_storing: set[asyncio.Task[None]] = set()


async def _store(call: _Call) -> None:
    try:
        await call.store()
    except (
        Exception
    ):  # the agent has its answer already; what is lost is a row of the metering, and it is logged
        log.exception("llm.not_metered", run=call.caller.run_key)


async def _play_demo(call: _Call, body: dict[str, Any], response: Response) -> None:
    call.asked = True
    try:
        said = demo.reply(body)
    except demo.DemoFails as error:
        raise ProviderFailed(
            f"The scripted demo answered {error.status}, as the task asked.",
            next_step="Take the line `demo: fail` out of the task.",
            status=error.status,
        ) from error
    if said.hang:
        await asyncio.sleep(upstream.FIRST_BYTE_SECONDS)
        raise ProviderSilent(
            f"The scripted demo said nothing for {upstream.FIRST_BYTE_SECONDS} seconds, as the task asked.",
            next_step="Take the line `demo: hang` out of the task.",
        )
    if not call.streamed:
        data = json.dumps(demo.whole(body, said)).encode()
        call.status = 200
        call.reader.feed(data)
        call.saw_byte()
        await response.whole(200, data, [("content-type", JSON)])
        return
    await response.start(200, _stream_headers())
    async with aclosing(demo.stream(body, said)) as pieces:
        async for piece in pieces:
            call.saw_byte()
            call.reader.feed(piece)
            await response.write(piece)
    call.status = 200
    await response.end()


async def _pass_on(
    call: _Call,
    to: upstream.Upstream,
    data: bytes,
    response: Response,
) -> None:
    call.asked = True
    answer = await upstream.ask(to, data, accept=EVENT_STREAM if call.streamed else JSON)
    try:
        kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if call.streamed and kind == EVENT_STREAM:
            await _pass_stream(call, to, answer, response)
        else:
            await _pass_whole(call, to, answer, response)
    finally:
        # Not released: an answer that was left in the middle must end the request at the provider too.
        answer.close()


async def _pass_stream(
    call: _Call,
    to: upstream.Upstream,
    answer: aiohttp.ClientResponse,
    response: Response,
) -> None:
    broken: ModelError | None = None
    try:
        async for piece in _pieces(to, answer):
            if not response.started:
                call.saw_byte()
                await response.start(200, [*_stream_headers(), *_passed(answer)])
            call.reader.feed(piece)
            await response.write(piece)
    except ModelError as error:
        broken = error
    if broken is None and not call.reader.complete:
        broken = _error_in_stream(to, call.reader)
    if broken is None:
        call.status = 200
        await response.end()
        return
    if not response.started:
        raise broken
    # The status has left already: the error goes as an event of the stream, as OpenAI's own servers send it.
    call.status, call.error = broken.status, broken.message
    await _tell(call.caller, broken)
    await response.write(b"\n\ndata: " + json.dumps(_error_body(broken)).encode() + b"\n\n")
    await response.end()


def _error_in_stream(to: upstream.Upstream, reader: usage.AnswerReader) -> ModelError:
    if reader.error is not None:
        words = upstream.masked(str(reader.error.get("message", ""))[:500], to.key)
        return ProviderFailed(
            f"The provider {to.name} broke off with an error: {words}",
            next_step="The agent may try again.",
        )
    what = (
        "broke off in the middle of its answer"
        if reader.recognised
        else "sent no answer that can be read"
    )
    return ProviderFailed(
        f"The provider {to.name} {what}.",
        next_step="The agent may try again; if it goes on, check the provider's base address.",
    )


async def _pass_whole(
    call: _Call, to: upstream.Upstream, answer: aiohttp.ClientResponse, response: Response
) -> None:
    """An answer in one piece: it is read whole before it passes, so that garbage becomes a clear error."""
    parts, size = list[bytes](), 0
    async for piece in _pieces(to, answer):
        call.saw_byte()
        size += len(piece)
        if size > MAX_ANSWER_BYTES:
            raise ProviderFailed(f"The provider {to.name} sent more than 32 MB.")
        parts.append(piece)
    data = b"".join(parts)
    call.reader = usage.AnswerReader(streamed=False, request_characters=call.characters)
    reader = call.reader
    reader.feed(data)
    reader.end()
    if not reader.complete or reader.error is not None:
        if reader.error is not None:
            raise _error_in_stream(to, reader)
        raise ProviderFailed(
            f"The provider {to.name} sent something that is not a chat completion.",
            next_step="Check the provider's base address: it usually ends in /v1.",
        )
    call.status = 200
    await response.whole(200, data, [("content-type", JSON), *_passed(answer)])


async def _pieces(to: upstream.Upstream, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The answer's bytes as they arrive. Raises `ProviderSilent` between two pieces, `ProviderFailed` when it breaks."""
    while True:
        try:
            async with asyncio.timeout(upstream.IDLE_SECONDS):
                piece = await answer.content.readany()
        except TimeoutError as error:
            raise ProviderSilent(
                f"The provider {to.name} fell silent in the middle of its answer "
                f"({upstream.IDLE_SECONDS} seconds).",
                next_step="The agent may try again.",
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise ProviderFailed(
                f"The provider {to.name} broke off in the middle of its answer.",
                next_step="The agent may try again.",
            ) from error
        if not piece:
            return
        yield piece


def _passed(answer: aiohttp.ClientResponse) -> list[tuple[str, str]]:
    return [
        (name, answer.headers[name])
        for name in PASSED_HEADERS
        if name in answer.headers and name != "content-type"
    ]


def _stream_headers() -> list[tuple[str, str]]:
    return [("content-type", EVENT_STREAM), ("cache-control", "no-store")]


def _error_body(error: ModelError) -> dict[str, Any]:
    words = f"{error.message} {error.next_step}".strip()
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    return {"error": {"message": words, "type": kind, "code": error.code, "param": None}}


async def _refuse(caller: Caller, response: Response, error: ModelError) -> None:
    """Tell people, then the agent: after the answer has left, this task may be cancelled at any moment."""
    await _tell(caller, error)
    if not response.started:
        headers = [("retry-after", error.retry_after)] if error.retry_after.isdigit() else []
        await response.json(error.status, _error_body(error), headers)


async def _tell(caller: Caller, error: ModelError) -> None:
    log.warning("llm.refused", code=error.code, status=error.status, message=error.message)
    if meter.due(caller.run_id, error.code):
        await db.write(meter.record_refusal, caller.run_id, error)


async def _note(caller: Caller, notes: list[str]) -> None:
    new = [note for note in notes if meter.due(caller.run_id, f"reach {note}")]
    if new:
        await db.write(
            meter.record_note,
            caller.run_id,
            "The agent's request to its model asked for more than the model; this was taken out: "
            + "; ".join(new)
            + ".",
        )
