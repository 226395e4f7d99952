"""One request under way: who is asked, how the answer passes, and what is settled in the end, whatever happens."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import aiohttp
import structlog
from django.utils import timezone

from devaipod_web.budgets import ledger
from devaipod_web.budgets.amounts import NOTHING, Amount
from devaipod_web.gateway.http import ClientGone, Request, Response, until_gone
from devaipod_web.gateway.tokens import Caller
from devaipod_web.llm import calls, cut_off, demo, demo_read, demo_write, prices, telling, upstream
from devaipod_web.llm.errors import (
    BudgetUsedUp,
    ModelError,
    ProviderFailed,
    ProviderSilent,
    ProviderUnreachable,
    RateLimited,
)
from devaipod_web.llm.forms import Action, Asked, Body, Form
from devaipod_web.llm.forms.reader import AnswerReader
from devaipod_web.llm.rates import ModelPrice
from devaipod_web.llm.routing import Candidate
from devaipod_web.llm.usage import Tokens

log = structlog.get_logger("devaipod.llm")

#: A whole (not streamed) answer.
MAX_ANSWER_BYTES = 32 * 1024 * 1024
#: No other provider is asked when so much time has gone by since the request came.
FALLBACK_SECONDS = 60.0
JSON = "application/json"
EVENT_STREAM = "text/event-stream"
STREAM_HEADERS = (("content-type", EVENT_STREAM), ("cache-control", "no-store"))
#: Headers of a provider's answer that the agent may see.
PASSED_HEADERS = ("x-request-id", "request-id", "openai-processing-ms")
#: Trouble of one provider that another one may not have, before a word came back.
TRY_ANOTHER = (RateLimited, BudgetUsedUp, ProviderFailed, ProviderUnreachable)


@dataclass(frozen=True, slots=True)
class Offer:
    """A candidate with its price there and the output limit that a request without one gets."""

    candidate: Candidate
    price: ModelPrice
    limit: int


@dataclass
class Exchange:
    """One request that has its reservation. `run` it once."""

    caller: Caller
    form: Form
    asked: Asked
    body: Body
    offers: tuple[Offer, ...]
    reservation: ledger.Reservation
    headers: Mapping[str, str]
    at: datetime = field(default_factory=timezone.now)
    began: float = field(default_factory=time.monotonic)
    first_byte: float | None = None
    status: int = 0
    error: str = ""
    #: Whether a provider was asked that may charge for it.
    sent: bool = False

    def __post_init__(self) -> None:
        self.offer = self.offers[0]
        self.reader: AnswerReader = self.form.reader(self.asked, size=len(self.body.raw))

    async def run(self, request: Request, response: Response) -> None:
        """Ask and pass the answer on; settle whatever happens, also when the agent hung up."""
        try:
            await until_gone(request, response, self._answer(response))
            # What was written leaves at the end of the loop's turn: the agent need not wait for our books.
            await asyncio.sleep(0)
        except ModelError as error:
            self.status, self.error = error.status, error.message
            await telling.refuse(self.caller, response, self.form, error)
        except (asyncio.CancelledError, ClientGone):
            if not self.status:
                self.status, self.error = cut_off.HUNG_UP, "The agent hung up."
            raise
        finally:
            self._settle()

    # --- asking

    async def _answer(self, response: Response) -> None:
        last = len(self.offers) - 1
        for index, offer in enumerate(self.offers):
            self.offer = offer
            try:
                if offer.candidate.is_demo:
                    await self._play_demo(response)
                    return
                answer = await self._ask()
            except TRY_ANOTHER as error:
                self.sent = False
                if index == last or time.monotonic() - self.began > FALLBACK_SECONDS:
                    raise
                self._note_fallback(error, self.offers[index + 1].candidate)
                continue
            break
        # A stream may last for hours, and what was asked may be large.
        self.body.forget()
        try:
            kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            if self.asked.streamed and kind == EVENT_STREAM:
                await self._pass_stream(answer, response)
            else:
                await self._pass_whole(answer, response)
        finally:
            # Not released: an answer that was left in the middle must end the request at the provider too.
            answer.close()

    async def _ask(self) -> aiohttp.ClientResponse:
        offer, form = self.offer, self.form
        to, model = offer.candidate.upstream, offer.candidate.model
        base = to.base_url.rstrip("/")
        form.prepare(self.body, self.asked, model=model, limit=offer.limit, kind=to.kind, base=base)
        url = form.address(self.asked, model=model, kind=to.kind, base=base)
        accept = EVENT_STREAM if self.asked.streamed else JSON
        self.sent = True
        try:
            return await upstream.ask(
                to, url, self.body.data(), form.headers(self.headers), accept=accept, form=form
            )
        except ProviderSilent:
            raise  # it may be at work on it, and charge
        except ModelError:
            self.sent = False
            raise

    # --- passing on

    async def _pass_stream(self, answer: aiohttp.ClientResponse, response: Response) -> None:
        reader, read = self.reader, answer.content.readany
        broken: ModelError | None = None
        try:
            while piece := await read():
                if self.first_byte is None:
                    self.first_byte = time.monotonic()
                    await response.start(200, (*STREAM_HEADERS, *_passed(answer)))
                reader.feed(piece)
                await response.write(piece)
        except TimeoutError:
            broken = self._silent()
        except (aiohttp.ClientError, OSError):
            broken = self._broken()
        reader.end()
        if broken is None and not reader.complete:
            broken = self._unfinished()
        if broken is None:
            self.status = 200
            await response.end()
            return
        if not response.started:
            raise broken
        # The status has left already: the error goes as an event of the stream, as the API's own servers send it.
        self.status, self.error = broken.status, broken.message
        await telling.tell(self.caller, broken)
        await response.write(self.form.error_event(broken))
        await response.end()

    async def _pass_whole(self, answer: aiohttp.ClientResponse, response: Response) -> None:
        """An answer in one piece: it is read whole before it passes, so that garbage becomes a clear error."""
        parts, size, read = list[bytes](), 0, answer.content.readany
        try:
            while piece := await read():
                if self.first_byte is None:
                    self.first_byte = time.monotonic()
                size += len(piece)
                if size > MAX_ANSWER_BYTES:
                    raise ProviderFailed(f"The provider {self._name} sent more than 32 MB.")
                parts.append(piece)
        except TimeoutError as error:
            raise self._silent() from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._broken() from error
        data = b"".join(parts)
        if not self.reader.whole(data):
            if self.reader.error:
                raise self._unfinished()
            raise ProviderFailed(
                f"The provider {self._name} sent something that is not an answer in the form {self.form.label}.",
                next_step="Check the provider's kind and base address.",
            )
        self.status = 200
        await response.whole(200, data, [("content-type", JSON), *_passed(answer)])

    async def _play_demo(self, response: Response) -> None:
        self.sent = True
        form = self.form.name
        try:
            said = demo.reply(demo_read.conversation(form, self.body.value))
        except demo.DemoFails as error:
            raise ProviderFailed(
                f"The scripted demo answered {error.status}, as the task asked.",
                next_step="Take the line `demo: fail` out of the task.",
                status=error.status,
            ) from error
        if self.asked.action is Action.COUNT:
            self.status = 200
            await response.json(200, demo_write.counted(form, said))
            return
        if said.hang:
            await asyncio.sleep(upstream.IDLE_SECONDS)
            raise ProviderSilent(
                f"The scripted demo said nothing for {upstream.IDLE_SECONDS} seconds, as the task asked.",
                next_step="Take the line `demo: hang` out of the task.",
            )
        self.first_byte = time.monotonic()
        if not self.asked.streamed:
            whole: Any = demo_write.whole(form, said)
            data = json.dumps([whole] if self.asked.array else whole).encode()
            self.reader.whole(data)
            self.status = 200
            await response.whole(200, data, [("content-type", JSON)])
            return
        await response.start(200, STREAM_HEADERS)
        async with aclosing(demo_write.stream(form, said)) as pieces:
            async for piece in pieces:
                self.reader.feed(piece)
                await response.write(piece)
        self.status = 200
        await response.end()

    # --- what went wrong

    @property
    def _name(self) -> str:
        return self.offer.candidate.upstream.name

    def _silent(self) -> ModelError:
        return ProviderSilent(
            f"The provider {self._name} fell silent in the middle of its answer ({upstream.IDLE_SECONDS} seconds).",
            next_step="The agent may try again.",
        )

    def _broken(self) -> ModelError:
        return ProviderFailed(
            f"The provider {self._name} broke off in the middle of its answer.",
            next_step="The agent may try again.",
        )

    def _unfinished(self) -> ModelError:
        reader = self.reader
        if reader.error:
            words = upstream.masked(reader.error, self.offer.candidate.upstream.key)
            return ProviderFailed(
                f"The provider {self._name} broke off with an error: {words}",
                next_step="The agent may try again.",
            )
        if reader.recognised:
            return self._broken()
        return ProviderFailed(
            f"The provider {self._name} sent no answer that can be read.",
            next_step="The agent may try again; if it goes on, check the provider's base address.",
        )

    def _note_fallback(self, error: ModelError, other: Candidate) -> None:
        words = f"{error.message} The request goes to {other.upstream.name} instead."
        telling.later(
            telling.note(self.caller, words, f"fallback {other.upstream.name}", error.next_step)
        )

    # --- settling

    def _settle(self) -> None:
        """Count what the request did cost, exactly once. Never raises: the answer has left already."""
        try:
            tokens, amount = self._used() if self.sent else (Tokens(), NOTHING)
            first = self.first_byte
            row = calls.row(
                run_id=self.caller.run_id,
                candidate=self.offer.candidate,
                form=self.form.name,
                at=self.at,
                status=self.status,
                error=self.error,
                milliseconds=int((time.monotonic() - self.began) * 1000),
                first_byte_milliseconds=None if first is None else int((first - self.began) * 1000),
                tokens=tokens,
                pico_usd=amount.pico_usd,
                unpriced=self.offer.price.unpriced,
            )
            ledger.current().settle(self.reservation, amount, row)
        except Exception:
            # What is not settled stays reserved and is charged in full when the process ends.
            log.exception("llm.not_settled", run=self.caller.run_key)

    def _used(self) -> tuple[Tokens, Amount]:
        """Tokens and their cost. Without counts of the provider's they are estimated from what was sent and received."""
        if self.asked.action is Action.COUNT:
            return Tokens(), Amount(0, 0, 1)
        reader, offer, run_id = self.reader, self.offer, self.caller.run_id
        if reader.streamed:
            reader.end()
        tokens = reader.tokens
        if tokens.estimated:
            most = (self.asked.output_limit or offer.limit) * self.asked.choices
            tokens.received = min(tokens.received, most + self.asked.output_beyond)
        hung_up = self.status == cut_off.HUNG_UP
        # Also one that hangs up when it has all the words and only the counts are to come.
        if not tokens.estimated or (reader.complete and not hung_up):
            cut_off.ended_well(run_id)
        else:
            times = cut_off.again(run_id, by_agent=hung_up)
            if times >= cut_off.MAX_CUT_OFF:
                telling.later(
                    telling.note(
                        self.caller,
                        f"{times} answers of the model of late ended before their token counts came: such requests "
                        "are charged what they may cost at most.",
                        "cut off",
                    )
                )
                return tokens, self.reservation.worst
        to = offer.candidate.upstream
        price = prices.served(
            offer.candidate.model,
            offer.price,
            tokens.tier,
            self.asked,
            kind=to.kind,
            base_url=to.base_url,
        )
        return tokens, Amount(prices.cost(price, tokens, self.asked), tokens.total, 1)


def _passed(answer: aiohttp.ClientResponse) -> list[tuple[str, str]]:
    headers = answer.headers
    return [(name, headers[name]) for name in PASSED_HEADERS if name in headers]
