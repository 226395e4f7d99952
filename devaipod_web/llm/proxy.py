"""`/llm/…`: a run's requests to its models, in every wire form.

The agent has no key: provider, model and credential are decided and put in here. What a request may cost at most is
reserved before a byte of it goes out; the answer passes as its bytes arrive, and token counts are read beside it. Whatever
goes wrong is told to the agent in its API's own error form and to people as an event of the run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from django.conf import settings

from devaipod_web.budgets import ledger
from devaipod_web.budgets.amounts import Amount, Payer
from devaipod_web.gateway.http import Request, Response, TooLarge
from devaipod_web.gateway.tokens import Caller
from devaipod_web.llm import meter, pace, prices, routing, snapshot, telling, upstream
from devaipod_web.llm.errors import (
    BudgetsUnavailable,
    BudgetUsedUp,
    ModelError,
    PriceUnknown,
    RequestRefused,
    RunPaused,
)
from devaipod_web.llm.exchange import Exchange, Offer
from devaipod_web.llm.forms import FORMS, Action, Asked, Body, Door, Form, NotPlain
from devaipod_web.llm.routing import RunView

#: A request's body; a long conversation with pictures as data has a few megabytes.
MAX_REQUEST_BYTES = 16 * 1024 * 1024
#: Models of one view of a run whose offers are remembered; agents use a few.
MAX_REMEMBERED = 64
#: Clients of another form, by the header that they always send.
BY_HEADER = {"anthropic-version": "anthropic-messages"}

Handler = Callable[[Caller, Request, Response], Awaitable[None]]


def handler(form: Form, door: Door) -> Handler:
    """What serves one route of a form."""

    async def serve(caller: Caller, request: Request, response: Response) -> None:
        try:
            if door.action is Action.MODELS:
                await _models(form, caller, request, response)
                return
            begun = await _begin(form, door, caller, request)
        except ModelError as error:
            await telling.refuse(caller, response, form, error)
            return
        await begun.run(request, response)

    return serve


async def close() -> None:
    """Finish what is done beside requests and let go of the connections to providers; at the server's end."""
    await telling.drain()
    await upstream.close()


async def _models(form: Form, caller: Caller, request: Request, response: Response) -> None:
    # Anthropic's list has the path of OpenAI's; its clients always name a version.
    for header, name in BY_HEADER.items():
        if header in request.headers and request.path == "/llm/v1/models":
            form = next(each for each in FORMS if each.name == name)
    run = await snapshot.of(caller.run_id)
    await response.json(200, form.models(routing.offered(run)))


async def _begin(form: Form, door: Door, caller: Caller, request: Request) -> Exchange:
    """Read the request, decide where it goes and what it may cost, and reserve that. Raises `ModelError`."""
    match = door.path.fullmatch(request.path)
    assert match is not None
    body = await _body(caller, request)
    asked = form.asked(door, match, request.query, body)
    notes = form.restrict(body)
    run = await snapshot.of(caller.run_id)
    if run.paused:
        run = await _resumed(caller.run_id)
    offers = _offers(run, form, asked)
    if notes:
        telling.later(_note(caller, notes))
    worst = [prices.bound(o.price, asked, size=len(body.raw), limit=o.limit) for o in offers]
    try:
        reservation = await ledger.current().reserve(
            Payer(run.run_id, run.project_id, run.person_id, run.token_id), _largest(worst)
        )
    except ledger.OverBudget as error:
        raise BudgetUsedUp(error.message, next_step=error.next_step) from error
    except ledger.LedgerUnavailable as error:
        raise BudgetsUnavailable(error.message, next_step=error.next_step) from error
    return Exchange(
        caller=caller,
        form=form,
        asked=asked,
        body=body,
        offers=offers,
        reservation=reservation,
        headers=request.headers,
    )


async def _resumed(run_id: int) -> RunView:
    """The view of a run that was paused when it was last looked at. Raises `RunPaused` when it still is."""
    run = await snapshot.of_resumed(run_id)
    if run.paused:
        raise RunPaused(
            f"The run is paused and may ask its model nothing. {run.paused}",
            next_step="It can go on when somebody resumes it.",
        )
    return run


async def _body(caller: Caller, request: Request) -> Body:
    try:
        raw = await request.body(limit=MAX_REQUEST_BYTES)
    except TooLarge as error:
        raise RequestRefused(
            f"The request has more than {MAX_REQUEST_BYTES // 1024**2} MB.", status=413
        ) from error
    if len(raw) > pace.FREE_BYTES:
        if pace.too_many_elements(raw):
            raise RequestRefused("The request has more than a million values.", status=413)
        await pace.wait_turn(caller.run_id, len(raw))
    try:
        return Body(raw)
    except NotPlain as error:
        raise RequestRefused(f"{error}") from error


def _offers(run: RunView, form: Form, asked: Asked) -> tuple[Offer, ...]:
    """Who may answer, with prices. A fallback whose price is not known is passed over; the first one's must be."""
    known = (form.name, asked.model, asked.price_context)
    found: tuple[Offer, ...] | None = run.memo.get(known)
    if found is not None:
        return found
    offers: list[Offer] = []
    for candidate in routing.candidates(run, form, asked.model):
        to = candidate.upstream
        try:
            price = prices.find(
                candidate.model,
                kind=to.kind,
                base_url=to.base_url,
                overrides=run.overrides,
                context=asked.price_context,
            )
        except PriceUnknown:
            if not offers:
                raise
            continue
        offers.append(Offer(candidate, price, candidate.limit(settings.OUTPUT_LIMIT)))
    if len(run.memo) < MAX_REMEMBERED:
        run.memo[known] = tuple(offers)
    return tuple(offers)


def _largest(amounts: list[Amount]) -> Amount:
    if len(amounts) == 1:
        return amounts[0]
    return Amount(max(a.pico_usd for a in amounts), max(a.tokens for a in amounts), 1)


async def _note(caller: Caller, notes: list[str]) -> None:
    new = [each for each in notes if meter.due(caller.run_id, f"reach {each}")]
    if new:
        await telling.note(
            caller,
            "The agent's request to its model asked for more than the model; this was taken out: "
            + "; ".join(new)
            + ".",
            f"reach {new}",
        )
