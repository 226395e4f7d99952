"""The staging forge: `git http-backend` on the run's own repository, as a CGI program, streaming both ways.

What a run may read and write is decided by git itself through configuration given in the environment, where a
repository's own configuration cannot undo it: every ref but `refs/heads/agent/<run>/…` is hidden from receive-pack,
and the repository holds no other run's objects (hiding refs hides no objects: a protocol v2 fetch of a hidden commit
succeeded).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator

import structlog
from django.conf import settings
from django.db import connections

from devaipod_web import db, home
from devaipod_web.gateway.http import ClientGone, Request, Response
from devaipod_web.gateway.tokens import Caller
from devaipod_web.reviews.services.refresh import refresh
from devaipod_web.runs import events
from devaipod_web.runs.models import Run

log = structlog.get_logger("devaipod.gateway.git")

#: One git request may take this long, in seconds.
DEADLINE_SECONDS = 600
CHUNK_BYTES = 64 * 1024
MAX_HEADER_BYTES = 16 * 1024
MAX_STDERR_BYTES = 16 * 1024
SERVICES = ("git-upload-pack", "git-receive-pack")
PROTOCOL = re.compile(r"version=[012]")
CONTENT_ENCODINGS = ("", "gzip", "x-gzip")


def configuration(run_key: str) -> list[tuple[str, str]]:
    """git's configuration for one run's requests, in the order in which git reads it."""
    own = f"refs/heads/agent/{run_key}/"
    return [
        ("http.uploadpack", "true"),
        ("http.receivepack", "true"),
        ("receive.hideRefs", "refs/"),
        ("receive.hideRefs", f"!{own}"),
        ("receive.fsckObjects", "true"),
        ("receive.maxInputSize", str(settings.MAX_PUSH_BYTES)),
        # Work on a branch is never lost: a branch may be moved, not removed.
        ("receive.denyDeletes", "true"),
        ("receive.advertisePushOptions", "false"),
        ("receive.autogc", "false"),
        ("receive.updateServerInfo", "false"),
        ("uploadpack.hideRefs", "refs/devaipod/"),
        ("uploadpack.allowAnySHA1InWant", "false"),
        ("uploadpack.allowReachableSHA1InWant", "false"),
        ("uploadpack.allowTipSHA1InWant", "false"),
        ("uploadpack.allowRefInWant", "false"),
        ("transfer.advertiseSID", "false"),
        ("core.hooksPath", "/dev/null"),
        ("core.alternateRefsPrefixes", "refs/heads/"),
        ("gc.auto", "0"),
        ("maintenance.auto", "false"),
    ]


def environment(caller: Caller, request: Request) -> dict[str, str]:
    """The whole environment of `git http-backend` for this request; nothing of ours is inherited but PATH."""
    repository = home.run_repository(caller.project_key, caller.run_key)
    variables = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": "/nonexistent",
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_PROJECT_ROOT": str(repository.parent),
        "GIT_HTTP_EXPORT_ALL": "1",
        "REQUEST_METHOD": request.method,
        "PATH_INFO": f"/{repository.name}{request.path.removeprefix('/git/repo.git')}",
        "QUERY_STRING": request.query,
        "CONTENT_TYPE": request.headers.get("content-type", ""),
        "REMOTE_USER": caller.run_key,
        "REMOTE_ADDR": caller.pod_name,
    }
    if request.headers.get("content-length", "").isdigit():
        variables["CONTENT_LENGTH"] = request.headers["content-length"]
    if encoding := request.headers.get("content-encoding"):
        variables["HTTP_CONTENT_ENCODING"] = encoding
    if PROTOCOL.fullmatch(protocol := request.headers.get("git-protocol", "")):
        variables["GIT_PROTOCOL"] = protocol
    config = configuration(caller.run_key)
    variables["GIT_CONFIG_COUNT"] = str(len(config))
    for index, (key, value) in enumerate(config):
        variables[f"GIT_CONFIG_KEY_{index}"] = key
        variables[f"GIT_CONFIG_VALUE_{index}"] = value
    return variables


async def info_refs(caller: Caller, request: Request, response: Response) -> None:
    """`GET info/refs?service=git-(upload|receive)-pack`. The dumb protocol (no service, or another) is not served."""
    if request.query not in [f"service={service}" for service in SERVICES]:
        await response.error(
            404, "Only git's smart protocol is served here: update git.", code="not-found"
        )
        return
    await _serve(caller, request, response)


async def upload_pack(caller: Caller, request: Request, response: Response) -> None:
    """`POST git-upload-pack`: clone and fetch."""
    if await _is_form_of(request, response, "git-upload-pack"):
        await _serve(caller, request, response)


async def receive_pack(caller: Caller, request: Request, response: Response) -> None:
    """`POST git-receive-pack`: push. The run's review is brought up to date afterwards."""
    if not await _is_form_of(request, response, "git-receive-pack"):
        return
    _keep_branch_folder(caller)
    try:
        await _serve(caller, request, response)
    finally:
        # Also after a break: the refs may have moved before the answer was lost. It only reads, and is safe to repeat.
        if response.started and response.status == 200:
            refresh_soon(caller)


async def _is_form_of(request: Request, response: Response, service: str) -> bool:
    if (
        request.query
        or request.headers.get("content-type") != f"application/x-{service}-request"
        or request.headers.get("content-encoding", "") not in CONTENT_ENCODINGS
    ):
        await response.error(415, f"This is not a {service} request.", code="unsupported")
        return False
    return True


def _keep_branch_folder(caller: Caller) -> None:
    """Keep `refs/heads/agent/<run>` a folder.

    git strips the slash at the end of a hideRefs value, so the run could push a branch of just that name, and no branch below
    it could be made any more. A file in the folder prevents it; git passes over names that begin with a dot.
    """
    repository = home.run_repository(caller.project_key, caller.run_key)
    folder = repository / "refs" / "heads" / "agent" / caller.run_key
    if repository.is_dir() and not (folder / ".keep").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".keep").touch()


async def _serve(caller: Caller, request: Request, response: Response) -> None:
    if not home.run_repository(caller.project_key, caller.run_key).is_dir():
        await response.error(404, "The run's repository is not there.", code="not-found")
        return
    async with _backend(environment(caller, request)) as process:
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                await _exchange(process, request, response)
        except TimeoutError:
            log.warning("git.deadline", seconds=DEADLINE_SECONDS, path=request.path)
            if response.started:
                raise
            await response.error(504, "git took too long.", code="timeout")


@contextlib.asynccontextmanager
async def _backend(environ: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """`git http-backend` in a process group of its own, of which nothing is left at the end."""
    process = await asyncio.create_subprocess_exec(
        "git",
        "http-backend",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environ,
        cwd="/",
        start_new_session=True,
        limit=CHUNK_BYTES,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _exchange(
    process: asyncio.subprocess.Process, request: Request, response: Response
) -> None:
    """Feed the body in while the answer goes out. Raises `ClientGone` when the client hangs up before the answer's end."""
    client = asyncio.create_task(_feed(process, request), name="git-feed")
    complaining = asyncio.create_task(_complaints(process), name="git-stderr")
    answering = asyncio.create_task(_answer(process, response), name="git-answer")
    tasks = [client, complaining, answering]
    try:
        await asyncio.wait({client, answering}, return_when=asyncio.FIRST_COMPLETED)
        # `client` ends by an exception alone, `answering` when git has said everything.
        await (answering if answering.done() else client)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _feed(process: asyncio.subprocess.Process, request: Request) -> None:
    """Write the body to git, then wait for the client to hang up and raise `ClientGone`.

    When git stops reading (it refused) the rest is read and dropped, so that the client gets to git's answer.
    """
    assert process.stdin is not None
    listening = True
    async for chunk in request.chunks():
        if not listening:
            continue
        try:
            process.stdin.write(chunk)
            await process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            listening = False
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.close()
        await process.stdin.wait_closed()
    await request.gone()
    raise ClientGone


async def _answer(process: asyncio.subprocess.Process, response: Response) -> None:
    """Turn the CGI program's output into the answer."""
    assert process.stdout is not None
    status, headers = await _cgi_headers(process.stdout)
    if status == 0:
        await response.error(502, "git gave no answer: see the server's log.", code="git-failed")
        return
    await response.start(status, headers)
    while data := await process.stdout.read(CHUNK_BYTES):
        await response.write(data)
    await response.end()


async def _cgi_headers(out: asyncio.StreamReader) -> tuple[int, list[tuple[str, str]]]:
    """Read the header block (RFC 3875 §6). Status 0 when the program ended without one."""
    status, headers, size = 200, list[tuple[str, str]](), 0
    while True:
        line = await out.readline()
        size += len(line)
        if not line or size > MAX_HEADER_BYTES:
            return 0, []
        text = line.decode("latin-1").strip()
        if not text:
            return status, headers
        name, _, value = text.partition(":")
        if name.lower() == "status":
            status = int(value.split()[0])
        else:
            headers.append((name, value.strip()))


async def _complaints(process: asyncio.subprocess.Process) -> None:
    """Log what git says on its standard error, bounded."""
    assert process.stderr is not None
    kept = b""
    while data := await process.stderr.read(4096):
        kept = (kept + data)[:MAX_STDERR_BYTES]
    if kept.strip():
        log.info("git.stderr", text=kept.decode(errors="replace").strip())


# --- After a push ---------------------------------------------------------------------------------------------

_refreshing: dict[str, asyncio.Task[None]] = {}
_again: set[str] = set()


def refresh_soon(caller: Caller) -> None:
    """Bring the run's review up to date in the background; pushes that come meanwhile share one more round."""
    key = caller.run_key
    if key in _refreshing:
        _again.add(key)
        return
    _refreshing[key] = asyncio.create_task(_refresh(caller), name=f"review-refresh-{key}")


async def _refresh(caller: Caller) -> None:
    key = caller.run_key
    while True:
        _again.discard(key)
        try:
            await asyncio.to_thread(_refresh_now, key)
        except (
            Exception
        ) as error:  # the push itself succeeded: the run goes on, and the page says what is missing
            log.exception("review.refresh_failed", run=key)
            await db.write(_note_refresh_failed, caller.run_id, f"{error}")
        if key not in _again:
            # In the same step as the look: a push that comes after it starts a round of its own.
            del _refreshing[key]
            return


def _refresh_now(run_key: str) -> None:
    """git and short transactions, in a thread that is not the database door's: its connection is closed again."""
    try:
        refresh(run_key)
    finally:
        connections.close_all()


def _note_refresh_failed(run_id: int, message: str) -> None:
    events.record(
        Run.objects.get(pk=run_id),
        events.Kind.NOTE,
        {
            "level": "error",
            "text": f"The work was pushed, but the review could not be brought up to date: {message[:500]}",
            "next_step": "It is tried again with the next push; the server's log has the details.",
        },
    )


async def drain() -> None:
    """Wait for the refreshes under way; at the server's end."""
    if _refreshing:
        await asyncio.wait([*_refreshing.values()], timeout=10)
