"""`devaipod serve`: web, gateway and supervisor in one process, on one event loop.

The order matters. Coming up: lock, migrations looked at, sockets, pods' links renewed, supervisor, card. Going down
(SIGTERM, SIGINT): the parts (`parts.py`) are told to end and given `GRACE_SECONDS`, then the database's writer
finishes what waits for it, and only then the loop ends. uvicorn would catch the signals and raise them again after
its own shutdown, which would end the rest in the middle: its `capture_signals` does nothing here.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "devaipod_web.settings")

import structlog

from devaipod_web import home, logging
from devaipod_web.parts import (
    Budgets,
    Gateway,
    GatewayPort,
    Part,
    PartFailed,
    Supervisor,
    Wakes,
    Web,
    Webhooks,
)

log = structlog.get_logger("devaipod.serve")

SERVICES = ("web", "gateway", "supervisor")
DEFAULT_PORT = 8000
#: Ports tried after the first when none was asked for.
MORE_PORTS = 100
#: How long a busy thread keeps the interpreter from the others (Python's own is 5 ms). Log writers and readers are busy threads in a flood,
#: and a page's request changes threads a dozen times.
SWITCH_SECONDS = 0.0005
#: A server in the background must be up within this time.
START_SECONDS = 60


class CannotServe(Exception):
    """The server cannot start; the message says why and what to do."""


def main(service: str = "all", *, host: str = "127.0.0.1", port: int | None = None) -> int:
    """Serve until SIGTERM or SIGINT. `service` is `all` or one of SERVICES; without `port` the first free one from 8000 on.

    Returns the exit status: 0 after a signal, 1 when a service broke down, 2 when it could not start (said on standard error).
    """
    logging.configure()
    try:
        with _lock(shared=service != "all"):
            _set_up_django(service)
            return _run(service, host=host, port=port)
    except (CannotServe, OSError) as error:
        print(f"devaipod serve: {error}", file=sys.stderr)
        return 2


def in_background(*, host: str = "127.0.0.1", port: int | None = None) -> dict[str, Any]:
    """Start `devaipod serve` as a process of its own, wait until it serves, and return its card {pid, url, started_at}.

    A server that runs already is left alone and its card returned. Raises `CannotServe` with the end of the log.
    """
    running = card()
    if running is not None:
        return running
    out = home.serve_log()
    out.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    words = [sys.executable, "-m", "devaipod_web.serve", "--host", host]
    words += ["--port", str(port)] if port is not None else []
    with out.open("ab") as sink:
        began = sink.tell()
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        running = card()
        if running is not None and running["pid"] == process.pid:
            return running
        if process.poll() is not None:
            break
        time.sleep(0.05)
    with out.open("rb") as log_file:
        log_file.seek(began)
        tail = log_file.read()[-2000:].decode(errors="replace").strip()
    if process.poll() is None:
        process.terminate()
        raise CannotServe(
            f"The server did not come up in {START_SECONDS} seconds; see {out}:\n{tail}"
        )
    raise CannotServe(f"The server ended at once; see {out}:\n{tail}")


def card() -> dict[str, Any] | None:
    """The card of the server that runs in this installation now, or None."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        found: dict[str, Any] = json.loads(home.serve_card().read_text())
        # The card of a killed server stays behind; the lock does not.
        if _is_locked() and isinstance(found["pid"], int) and found["url"]:
            return found
    return None


# --- Before anything runs -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _lock(*, shared: bool) -> Iterator[None]:
    """Hold the installation's lock: one whole server, or several single services, but not while `setup` migrates."""
    home.ensure_home()
    with home.serve_lock().open("a+") as file:
        if not _take(file, shared=shared):
            raise CannotServe(_who_holds(file))
        if not shared:
            file.seek(0)
            file.truncate()
            file.write(f"{os.getpid()}\n")
            file.flush()
        yield


def _take(file: IO[str], *, shared: bool) -> bool:
    """Take the lock, trying for half a second: whoever asks whether it is held holds it for a moment."""
    for _ in range(10):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            return True
        time.sleep(0.05)
    return False


def _who_holds(file: IO[str]) -> str:
    file.seek(0)
    pid = file.read(20).strip()
    where = ""
    with contextlib.suppress(OSError, ValueError):
        where = f" at {json.loads(home.serve_card().read_text())['url']}"
    holder = f"process {pid}" if pid else "another process"
    return (
        f"This installation ({home.home()}) is being served already, by {holder}{where}. "
        f"Use that one, or end it first (`devaipod down` or `kill {pid or '<pid>'}`)."
    )


def _is_locked() -> bool:
    try:
        with home.serve_lock().open("r") as file:
            # Exclusive: single services hold it together.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _set_up_django(service: str) -> None:
    import django

    django.setup()
    from django.conf import settings
    from django.db import connection
    from django.db.migrations.executor import MigrationExecutor

    if service != "all":
        layer = settings.CHANNEL_LAYERS["default"]["BACKEND"]
        if connection.vendor == "sqlite":
            raise CannotServe(
                f"`serve {service}` alone needs a database that several processes share: set DATABASE_URL to a PostgreSQL "
                "address, or run `devaipod serve`, which serves everything from one process."
            )
        if "InMemory" in layer:
            raise CannotServe(
                f"`serve {service}` alone needs a channel layer that several processes share: set REDIS_URL, or run "
                "`devaipod serve`, which serves everything from one process."
            )
    try:
        executor = MigrationExecutor(connection)
        waiting = executor.migration_plan(executor.loader.graph.leaf_nodes())
    finally:
        connection.close()
    if waiting:
        raise CannotServe(
            f"The database lacks {len(waiting)} migration{'s' if len(waiting) > 1 else ''} (first: {waiting[0][0]}). "
            "Run `devaipod migrate`, then serve again."
        )


def _listen(host: str, port: int | None) -> socket.socket:
    """A listening TCP socket on the port, or without one on the first free port from 8000 on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    ports = [port] if port is not None else range(DEFAULT_PORT, DEFAULT_PORT + MORE_PORTS)
    for number in ports:
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, number))
            sock.listen(2048)
        except OSError as error:
            sock.close()
            if port is not None:
                raise CannotServe(
                    f"Port {port} of {host} cannot be used ({error.strerror}). Choose another with --port, or leave it out."
                ) from error
            continue
        sock.setblocking(False)
        if port is None and number != DEFAULT_PORT:
            print(f"Port {DEFAULT_PORT} is taken: serving on {number} instead.", flush=True)
        return sock
    raise CannotServe(
        f"No port from {DEFAULT_PORT} to {DEFAULT_PORT + MORE_PORTS - 1} is free on {host}. Choose one with --port."
    )


# --- While it runs --------------------------------------------------------------------------------------------


def _run(service: str, *, host: str, port: int | None) -> int:
    import uvloop

    sys.setswitchinterval(SWITCH_SECONDS)
    wanted = SERVICES if service == "all" else (service,)
    sock = _listen(host, port) if "web" in wanted else None
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(wanted, sock, host))


async def _serve(wanted: tuple[str, ...], sock: socket.socket | None, host: str) -> int:
    from django.conf import settings

    from devaipod_web.runs import backends, relay

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    parts: dict[str, Part] = {}
    beats: asyncio.Task[None] | None = None
    try:
        # The gateway first: a sidecar that waits for it finds it before the supervisor looks at its pod.
        if "gateway" in wanted:
            await _add(parts, Budgets())
            await _add(parts, Gateway())
            if settings.GATEWAY_LISTEN is not None:
                await _add(parts, GatewayPort(*settings.GATEWAY_LISTEN))
        if sock is not None:
            await _add(parts, Web(sock))
        if "supervisor" in wanted:
            await _add(parts, Supervisor())
            await _add(parts, Webhooks())
        if relay.is_needed():
            await _add(parts, Wakes())
        beats = asyncio.create_task(_beat(parts), name="beats")
        url = _url(sock, host)
        if sock is not None:
            _write_card(url)
        freeze_heap()
        log.info("serve.up", services=list(wanted), url=url, pid=os.getpid())
        if sys.stdout.isatty():
            print(f"devaipod serves at {url} (end with Ctrl-C)", flush=True)
        return await _until_stopped(stop, parts)
    finally:
        if beats is not None:
            beats.cancel()
        await asyncio.gather(
            *([beats] if beats is not None else []),
            *(part.stop() for part in parts.values() if part.name != Budgets.name),
            return_exceptions=True,
        )
        if Budgets.name in parts:
            await parts[Budgets.name].stop()
        await backends.close()
        await _drain()
        if sock is not None:
            home.serve_card().unlink(missing_ok=True)
        log.info("serve.down")


def freeze_heap() -> None:
    """Take what is loaded by now out of the garbage collector's sight: looking through it took a sixth of a busy gateway's time."""
    gc.collect()
    gc.freeze()


async def _add(parts: dict[str, Part], part: Part) -> None:
    parts[part.name] = part
    try:
        await part.start()
    except PartFailed as error:
        raise CannotServe(str(error)) from error


async def _beat(parts: dict[str, Part]) -> None:
    from devaipod_web.health.beat import Beats

    await Beats(parts).run()


async def _until_stopped(stop: asyncio.Event, parts: dict[str, Part]) -> int:
    """Wait for a signal, or for a part that ends by itself, which none should."""
    waits = [
        asyncio.create_task(event.wait()) for event in (stop, *(p.failed for p in parts.values()))
    ]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    if stop.is_set():
        log.info("serve.stopping")
        return 0
    for part in parts.values():
        if part.failed.is_set():
            log.error("serve.broke_down", service=part.name, exc_info=part.error)
    return 1


async def _drain() -> None:
    """Let what waits for the database's writer be written: it takes its jobs in order, so all before is committed then."""
    from devaipod_web import db

    await db.close_connections()


def _url(sock: socket.socket | None, host: str) -> str:
    from django.conf import settings

    if settings.PUBLIC_URL or sock is None:
        return str(settings.PUBLIC_URL)
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - shown, not bound
    shown = everywhere.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{sock.getsockname()[1]}"


def _write_card(url: str) -> None:
    path: Path = home.serve_card()
    draft = path.with_suffix(".draft")
    value = {"pid": os.getpid(), "url": url, "started_at": datetime.now(UTC).isoformat()}
    draft.write_text(json.dumps(value))
    draft.replace(path)


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="devaipod serve", description=__doc__.splitlines()[0])
    parser.add_argument("service", nargs="?", default="all", choices=["all", *SERVICES])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=None)
    return parser.parse_args(words)


if __name__ == "__main__":
    given = _arguments(sys.argv[1:])
    sys.exit(main(given.service, host=given.host, port=given.port))
