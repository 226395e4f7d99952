"""The gateway's application: its own small table of routes, and nothing of the web app's.

A path counts byte for byte: it is compared undecoded, so that no encoded spelling reaches a route. Every route but 404
asks for a token; which of the two kinds stands in the table.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache

import structlog

from devaipod_web.gateway import git, lives, origin, sidecar, tokens
from devaipod_web.gateway.http import (
    ClientGone,
    ErrorForm,
    Receive,
    Request,
    Response,
    Scope,
    Send,
    TooLarge,
)
from devaipod_web.gateway.origin import Verdict
from devaipod_web.gateway.tokens import Caller, TokenKind
from devaipod_web.llm import proxy
from devaipod_web.llm.forms import FORMS

#: Requests of one run that may be under way at once; a flood of one run must not take everybody's room.
MAX_MODEL_REQUESTS = 8
MAX_GIT_REQUESTS = 4

Handler = Callable[[Caller, Request, Response], Awaitable[None]]


@dataclass(frozen=True)
class Route:
    """One route for requests with the data token. `path` is matched against the whole undecoded path; `at_once` bounds
    the requests of one run to its room (the first part of the path)."""

    method: str
    path: re.Pattern[str]
    handler: Handler
    at_once: int
    #: How errors are told on this route.
    errors: ErrorForm | None = None

    @property
    def room(self) -> str:
        """The first part of the path: llm or git."""
        return self.path.pattern.split("/")[1]


async def tools_absent(caller: Caller, request: Request, response: Response) -> None:
    """The place of MCP servers, of which there are none yet: programs are told so in words, not by a connection that fails."""
    await response.error(
        404,
        "No MCP server is configured for this run: it has no tools of forges.",
        code="no-such-mcp-server",
    )


ROUTES: tuple[Route, ...] = (
    *(
        Route(door.method, door.path, proxy.handler(form, door), MAX_MODEL_REQUESTS, form.error)
        for form in FORMS
        for door in form.doors
    ),
    *(
        Route(method, re.compile(r"/mcp/[a-z0-9-]+"), tools_absent, MAX_MODEL_REQUESTS)
        for method in ("GET", "POST", "DELETE")
    ),
    Route("GET", re.compile(r"/git/repo\.git/info/refs"), git.info_refs, MAX_GIT_REQUESTS),
    Route("POST", re.compile(r"/git/repo\.git/git-upload-pack"), git.upload_pack, MAX_GIT_REQUESTS),
    Route(
        "POST", re.compile(r"/git/repo\.git/git-receive-pack"), git.receive_pack, MAX_GIT_REQUESTS
    ),
)
SIDECAR_PATH = "/sidecar"

_under_way: Counter[tuple[int, str]] = Counter()


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI application that listens on the gateway's socket."""
    if scope["type"] == "http":
        await _http(Request(scope, receive), Response(send))
    elif scope["type"] == "websocket":
        await _websocket(scope, receive, send)
    elif scope["type"] == "lifespan":
        await _lifespan(receive, send)


async def _lifespan(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await sidecar.close_all()
    await git.drain()
    await proxy.close()
    await send({"type": "lifespan.shutdown.complete"})


async def _websocket(scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope, receive)
    await receive()  # websocket.connect
    if request.path != SIDECAR_PATH:
        await send({"type": "websocket.close", "code": 4404})
        return
    caller = await tokens.find(request.bearer) if request.bearer else None
    if caller is None or caller.kind is not TokenKind.CONTROL:
        await sidecar.refuse(send, wrong_kind=caller is not None)
        return
    verdict = await origin.awaited(request, caller)
    if verdict is not Verdict.YES:
        await sidecar.refuse_origin(send, verdict)
        return
    await sidecar.serve(caller, request.bearer, receive, send)


async def _http(request: Request, response: Response) -> None:
    routes = _routes(request.path)
    if not routes:
        await response.error(404, _not_served(request.path), code="not-found")
        return
    form = routes[0].errors
    caller = await tokens.find(request.bearer) if request.bearer else None
    if caller is None:
        await response.error(
            401,
            "The run token is missing, unknown, or its pod has ended.",
            code="token-refused",
            headers=[("www-authenticate", "Bearer")],
            form=form,
        )
        return
    if caller.kind is not TokenKind.DATA:
        await response.error(
            403,
            "The control token does not count here: send the data token.",
            code="wrong-token",
            form=form,
        )
        return
    verdict = await origin.judged(request, caller)
    if verdict is not Verdict.YES:
        is_early = verdict is Verdict.NOT_YET
        await response.error(
            503 if is_early else 403,
            origin.sentence(verdict),
            code="pod-address-unknown" if is_early else "wrong-pod",
            headers=[("retry-after", "1")] if is_early else (),
            form=form,
        )
        return
    route = next((route for route in routes if route.method == request.method), None)
    if route is None:
        allowed = ", ".join(sorted({route.method for route in routes}))
        await response.error(
            405,
            f"Use {allowed} here.",
            code="method-not-allowed",
            headers=[("allow", allowed)],
            form=form,
        )
        return
    await _run(route, caller, request, response)


def _not_served(path: str) -> str:
    if path == SIDECAR_PATH:
        return "This path takes websockets only."
    if path.startswith("/llm"):
        served = ", ".join(route.path.pattern for route in ROUTES if route.room == "llm")
        return f"This path is not served here. Of models these are: {served}."
    if path.startswith("/git"):
        return "This path is not served here. The run's own repository is /git/repo.git."
    return "This path is not served here."


@lru_cache(maxsize=1024)
def _routes(path: str) -> tuple[Route, ...]:
    return tuple(route for route in ROUTES if route.path.fullmatch(path))


async def _run(route: Route, caller: Caller, request: Request, response: Response) -> None:
    place = (caller.run_id, route.room)
    if _under_way[place] >= route.at_once:
        await response.error(
            429,
            f"This run has {route.at_once} such requests under way: wait for one to end.",
            code="too-many-requests",
            headers=[("retry-after", "1")],
            form=route.errors,
        )
        return
    _under_way[place] += 1
    try:
        # Each request is a task with a context of its own: what is bound ends with it.
        structlog.contextvars.bind_contextvars(run=caller.run_key, pod=caller.pod_name)
        with lives.while_token_lives(request.bearer):
            await route.handler(caller, request, response)
    except ClientGone:
        return
    except TooLarge:
        if not response.started:
            await response.error(
                413, "The request's body is too large.", code="too-large", form=route.errors
            )
    except lives.TokenDied:
        if not response.started:
            await response.error(
                401, "The run's pod has ended.", code="token-refused", form=route.errors
            )
        else:
            # An answer that is cut must not look complete: without the last chunk the client sees the break.
            raise
    finally:
        _under_way[place] -= 1
        if not _under_way[place]:
            del _under_way[place]
