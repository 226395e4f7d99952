"""The websocket to the gateway: dial for ever, say hello, send what the outbox holds, take commands."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any, cast

import aiohttp

from pods.sidecar import gateway
from pods.sidecar.outbox import Outbox
from pods.sidecar.protocol import (
    CLOSE_TOKEN_REFUSED,
    CLOSE_VERSION,
    MAX_MESSAGE_BYTES,
    PROTOCOL_VERSION,
    RunConfig,
)

BATCH_EVENTS = 200
BATCH_BYTES = 1024 * 1024
#: Sent and not yet acknowledged events of one connection.
WINDOW_EVENTS = 2000
PING_SECONDS = 20
SILENCE_SECONDS = 60
#: Of one dial. An address where nobody answers must not keep a pod from the next one, which a relay's move may bring.
DIAL = aiohttp.ClientTimeout(total=20, sock_connect=5)
BACKOFF_SECONDS = (0.05, 5.0)
#: A refused token may be one that the gateway does not see yet; after this many refusals it is dead.
TOKEN_REFUSALS = 5


class Refused(RuntimeError):
    """The gateway will never serve this sidecar: its token is dead, or no protocol version is shared."""


def gateway_address() -> tuple[str, str]:
    """(Unix socket or empty, base URL) of the gateway as it is now: the mounted socket unless a URL is named."""
    url = gateway.url()
    return ("", url) if url else (gateway.socket_path(), "http://gateway")


def connector(*, keep: bool = True) -> aiohttp.BaseConnector:
    """A connector to the gateway; without `keep` each request has a connection of its own."""
    socket, _ = gateway_address()
    if socket:
        return aiohttp.UnixConnector(socket, limit=0, force_close=not keep)
    return aiohttp.TCPConnector(limit=0, force_close=not keep)


class Link:
    """One sidecar's connection to the gateway, through any number of reconnects."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        token: str,
        last_command: Callable[[], int],
        on_command: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        self.outbox = outbox
        self.config: asyncio.Future[RunConfig] = asyncio.get_running_loop().create_future()
        self._token = token
        self._last_command = last_command
        self._on_command = on_command
        self._refusals = 0

    async def run(self) -> None:
        """Keep the connection until cancelled. Raises Refused when dialling again is of no use."""
        least, most = BACKOFF_SECONDS
        pause = least
        async with aiohttp.ClientSession(connector=connector(), timeout=DIAL) as session:
            while True:
                try:
                    if await self._once(session):
                        pause = least
                except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                    print(f"gateway away: {type(error).__name__}: {error}"[:300], flush=True)
                await asyncio.sleep(pause * (1 + random.random()))  # noqa: S311 - jitter
                pause = min(pause * 2, most)

    async def _once(self, session: aiohttp.ClientSession) -> bool:
        """One connection; returns whether it got as far as `welcome`."""
        _, base = gateway_address()
        async with session.ws_connect(
            f"{base}/sidecar",
            headers={"Authorization": f"Bearer {self._token}"},
            max_msg_size=MAX_MESSAGE_BYTES,
            timeout=aiohttp.ClientWSTimeout(ws_close=2),
        ) as socket:
            await socket.send_json(
                {
                    "type": "hello",
                    "protocol": PROTOCOL_VERSION,
                    "pod": "",
                    "last_source_seq": self.outbox.last_seq,
                    "last_command": self._last_command(),
                }
            )
            welcome = await self._hear(socket)
            if welcome is None or welcome.get("type") != "welcome":
                return False
            self._refusals = 0
            acked = int(welcome["acked"])
            self.outbox.ack(acked)
            if not self.config.done():
                self.config.set_result(cast("RunConfig", welcome["config"]))
            sender = asyncio.create_task(self._send(socket, acked))
            pinger = asyncio.create_task(self._ping(socket))
            try:
                while (message := await self._hear(socket)) is not None:
                    await self._take(message)
            finally:
                sender.cancel()
                pinger.cancel()
                await asyncio.gather(sender, pinger, return_exceptions=True)
            return True

    async def _hear(self, socket: aiohttp.ClientWebSocketResponse) -> dict[str, Any] | None:
        message = await socket.receive(timeout=SILENCE_SECONDS)
        if message.type is aiohttp.WSMsgType.TEXT:
            value = json.loads(message.data)
            return value if isinstance(value, dict) else {}
        code = socket.close_code
        if code == CLOSE_VERSION:
            raise Refused(f"the gateway speaks another protocol version: {message.extra}")
        if code == CLOSE_TOKEN_REFUSED:
            self._refusals += 1
            if self._refusals >= TOKEN_REFUSALS or self.config.done():
                raise Refused(f"the gateway refused the run's token: {message.extra}")
        return None

    async def _take(self, message: dict[str, Any]) -> None:
        match message.get("type"):
            case "ack":
                self.outbox.ack(int(message["source_seq"]))
            case "command":
                await self._on_command(message)

    async def _send(self, socket: aiohttp.ClientWebSocketResponse, sent: int) -> None:
        while True:
            await self.outbox.wait_news(sent)
            while sent - self.outbox.acked >= WINDOW_EVENTS:
                await asyncio.sleep(0.005)
            lines = self.outbox.batch(sent, limit=BATCH_EVENTS, max_bytes=BATCH_BYTES)
            if not lines:
                await asyncio.sleep(0.01)
                continue
            body = b",".join(line.rstrip(b"\n") for line in lines).decode()
            await socket.send_str(f'{{"type":"events","events":[{body}]}}')
            sent += len(lines)

    async def _ping(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            await asyncio.sleep(PING_SECONDS)
            await socket.send_json({"type": "ping"})
