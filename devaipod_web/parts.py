"""The parts of a serving process: web, gateway, supervisor. Each starts and ends; some start anew while the others go on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Coroutine, Iterator
from typing import Any

import structlog
import uvicorn

from devaipod_web import home

log = structlog.get_logger("devaipod.serve")

#: A part that is told to end has this long, in seconds, before it is cancelled.
GRACE_SECONDS = 8


class PartFailed(Exception):
    """A part could not start, or ended by itself."""


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: one process, one owner of the signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: `serve` owns the signals."""
        yield


class Part:
    """Something that runs as one task of the loop. `failed` is set when that task ends without having been told to."""

    name = ""

    def __init__(self) -> None:
        self.failed = asyncio.Event()
        self.error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None
        self._turning = asyncio.Lock()

    @property
    def running(self) -> bool:
        """Whether its task is there and has not ended."""
        return self._task is not None and not self._task.done()

    async def start(self) -> None:
        """Start, and return when it is up. Raises PartFailed or OSError when it cannot be."""
        async with self._turning:
            await self._start()

    async def stop(self) -> None:
        """End, within about GRACE_SECONDS. Safe to repeat."""
        async with self._turning:
            await self._stop()

    async def restart(self) -> None:
        """End and start anew. When the start fails the process goes on without this part, and it may be tried again."""
        async with self._turning:
            log.info("part.restarting", part=self.name)
            await self._stop()
            await self._start()
            log.info("part.restarted", part=self.name)

    async def _start(self) -> None:
        raise NotImplementedError

    async def _stop(self) -> None:
        task, self._task = self._task, None
        if task is None:
            return
        self._tell_to_end()
        await asyncio.wait({task}, timeout=GRACE_SECONDS)
        if not task.done():
            log.warning("serve.late", service=self.name)
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def _tell_to_end(self) -> None:
        raise NotImplementedError

    def _run(self, task: asyncio.Task[None]) -> None:
        self._task = task
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task is not self._task:
            return
        self.error = None if task.cancelled() else task.exception()
        self.failed.set()


class _Listener(Part):
    """A part that is an ASGI application behind a uvicorn."""

    def __init__(self) -> None:
        super().__init__()
        self._server: _Server | None = None

    def _config(self) -> uvicorn.Config:
        raise NotImplementedError

    def _sockets(self) -> list[socket.socket] | None:
        return None

    async def _start(self) -> None:
        server = self._server = _Server(self._config())
        task = asyncio.create_task(self._serve(server), name=self.name)
        while not server.started:
            if task.done():
                task.result()
                raise PartFailed(f"The {self.name} ended before it had started.")
            await asyncio.sleep(0.005)
        self._run(task)

    async def _serve(self, server: _Server) -> None:
        try:
            await server.serve(sockets=self._sockets())
        except SystemExit as error:
            # uvicorn's way to say that it could not listen; the other parts go on.
            raise PartFailed(f"The {self.name} could not listen; the log says why.") from error

    def _tell_to_end(self) -> None:
        if self._server is not None:
            self._server.should_exit = True


class Web(_Listener):
    """Pages, API and the browsers' websockets, on a TCP socket that listens already."""

    name = "web"

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self._sock = sock

    async def _start(self) -> None:
        from devaipod_web import db
        from devaipod_web.runs import terminals

        await db.write(terminals.close_left)
        await super()._start()

    def _sockets(self) -> list[socket.socket]:
        return [self._sock]

    def _config(self) -> uvicorn.Config:
        from devaipod_web.asgi import application

        return uvicorn.Config(
            application,
            loop="none",
            http="httptools",
            ws="websockets-sansio",
            ws_max_size=64 * 1024,
            lifespan="off",
            log_config=None,
            access_log=False,  # `asgi.AccessLog` writes it: uvicorn's switch is one for all servers of a process
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS // 2,
        )


def _gateway_options() -> dict[str, Any]:
    """What uvicorn is told for both of the gateway's listeners."""
    from pods.sidecar.protocol import MAX_MESSAGE_BYTES

    return {
        "loop": "none",
        "http": "httptools",
        "ws": "websockets-sansio",
        "ws_max_size": MAX_MESSAGE_BYTES,
        "ws_per_message_deflate": False,
        "log_config": None,
        "access_log": False,
        # A pod must not choose the address that its token is bound to.
        "proxy_headers": False,
        "server_header": False,
        "timeout_graceful_shutdown": GRACE_SECONDS // 2,
    }


class Gateway(_Listener):
    """The pods' door, on a Unix socket. Each start makes the socket anew and gives it to every pod that lives."""

    name = "gateway"

    def _config(self) -> uvicorn.Config:
        from devaipod_web.gateway.app import application
        from devaipod_web.gateway.sockets import check_length

        path = check_length(home.gateway_socket())
        path.unlink(missing_ok=True)
        return uvicorn.Config(application, uds=str(path), lifespan="on", **_gateway_options())

    async def _start(self) -> None:
        await super()._start()
        await _relink_pods()


class GatewayPort(_Listener):
    """The pods' door on a TCP port, for pods that have no socket of ours (docs/decisions/0012). The same application.

    Its lifespan is the other listener's: what both share is drained once.
    """

    name = "gateway-port"

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self.host, self.port = host, port

    def _sockets(self) -> list[socket.socket]:
        return [self._listening()]

    def _listening(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((self.host, self.port))
            sock.listen(2048)
        except OSError as error:
            sock.close()
            raise PartFailed(
                f"Port {self.port} of {self.host} cannot be used for the gateway ({error.strerror}). "
                "Set DEVAIPOD_GATEWAY_LISTEN to another."
            ) from error
        sock.setblocking(False)
        return sock

    def _config(self) -> uvicorn.Config:
        from devaipod_web.gateway.app import application
        from devaipod_web.gateway.origin import AtPort

        return uvicorn.Config(AtPort(application), lifespan="off", **_gateway_options())


class Supervisor(Part):
    """The supervisor's loops. Ending them lets every lease go; the next start takes the runs up where they are."""

    name = "supervisor"

    def __init__(self) -> None:
        super().__init__()
        self._end = asyncio.Event()

    async def _start(self) -> None:
        from devaipod_web.runs import backends
        from devaipod_web.runs.supervisor import supervise

        self._end = asyncio.Event()
        backend = backends.shared()
        self._run(asyncio.create_task(supervise(backend, stop=self._end), name="supervisor"))

    def _tell_to_end(self) -> None:
        self._end.set()


class _Loop(Part):
    """A part that is one coroutine, which ends when its event is set."""

    def __init__(self) -> None:
        super().__init__()
        self._end = asyncio.Event()

    def _main(self, stop: asyncio.Event) -> Coroutine[Any, Any, None]:
        raise NotImplementedError

    async def _start(self) -> None:
        self._end = asyncio.Event()
        self._run(asyncio.create_task(self._main(self._end), name=self.name))

    def _tell_to_end(self) -> None:
        self._end.set()


class Budgets(_Loop):
    """The beat of the gateway's ledger. It starts before the gateway and ends after it: what a request did cost is settled at its end."""

    name = "budgets"

    def _main(self, stop: asyncio.Event) -> Coroutine[Any, Any, None]:
        from devaipod_web.budgets import ledger

        return ledger.current().run(stop)


class Webhooks(_Loop):
    """The sender of webhooks' deliveries."""

    name = "webhooks"

    def _main(self, stop: asyncio.Event) -> Coroutine[Any, Any, None]:
        from devaipod_web.webhooks.sender import send

        return send(stop=stop)


class Wakes(_Loop):
    """The relay of wakes between processes."""

    name = "wakes"

    def _main(self, stop: asyncio.Event) -> Coroutine[Any, Any, None]:
        from devaipod_web.runs.relay import Relay

        return Relay().run(stop)


async def _relink_pods() -> None:
    """Give every pod that lives the new socket."""
    from devaipod_web import db
    from devaipod_web.gateway.sockets import relink_all
    from devaipod_web.runs.models import RunPod

    def live() -> list[str]:
        return list(RunPod.objects.filter(ended_at=None).values_list("key", flat=True))

    relink_all(await db.read(live))
