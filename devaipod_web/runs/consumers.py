"""The browsers' websockets: a run's transcript, a container's log, and wakes for lists.

Who may listen is asked of the permission table at the handshake and again every `CHECK_SECONDS`: a socket ends (4403) when the
session or the role does. Origin was checked before (`asgi.py`). Nothing is taken from the browser.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any
from urllib.parse import parse_qs

from channels.generic.websocket import AsyncWebsocketConsumer

from devaipod_web import db
from devaipod_web.accounts.callers import Caller
from devaipod_web.accounts.permissions import ROUTES
from devaipod_web.runs import live, logs_hub, wake
from devaipod_web.runs.models import Run, RunPod

CHECK_SECONDS = 30.0
#: Wakes of lists are gathered for this long.
DEBOUNCE_SECONDS = 0.3
#: A browser that takes nothing for this long is let go; it reconnects where it was.
SEND_SECONDS = 60
CLOSE_FORBIDDEN = 4403
CLOSE_NOT_FOUND = 4404


class Watched(AsyncWebsocketConsumer):  # type: ignore[misc]
    """A socket that only sends, for as long as its person may see it. `route` names it in the permission table."""

    route = ""

    async def connect(self) -> None:
        """Check the person, accept, and begin to send."""
        self.tasks: list[asyncio.Task[None]] = []
        if not await self._allowed():
            await self.close(CLOSE_FORBIDDEN)
            return
        if not await self.exists():
            await self.close(CLOSE_NOT_FOUND)
            return
        await self.accept()
        self.tasks = [
            asyncio.create_task(self._sending(), name=f"socket {self.route}"),
            asyncio.create_task(self._watching(), name=f"socket watch {self.route}"),
        ]

    async def disconnect(self, code: int) -> None:
        """The browser has gone."""
        await self._end()

    async def _end(self) -> None:
        current = asyncio.current_task()
        for task in getattr(self, "tasks", []):
            if task is not current:
                task.cancel()
        for task in getattr(self, "tasks", []):
            if task is not current:
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task

    async def _sending(self) -> None:
        try:
            await self.stream()
        except asyncio.CancelledError:
            raise
        except TimeoutError:
            await self.close(1013)
        else:
            await self.close(1000)

    async def _watching(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            if not await self._allowed():
                await self.close(CLOSE_FORBIDDEN)
                await self._end()
                return

    async def _allowed(self) -> bool:
        return await db.read(self._caller().may, ROUTES[self.route])

    def _caller(self) -> Caller:
        # These sockets are for pages: a session and no token.
        return Caller(session_key=getattr(self.scope.get("session"), "session_key", None) or "")

    async def tell(self, text: str) -> None:
        """Send, within `SEND_SECONDS`."""
        async with asyncio.timeout(SEND_SECONDS):
            await self.send(text_data=text)

    async def exists(self) -> bool:
        """Whether there is what the address names."""
        return True

    async def stream(self) -> None:
        """Send until the task is cancelled."""
        raise NotImplementedError

    def after(self) -> int:
        """The `after` of the address, 0 when it is not a number."""
        found = parse_qs(self.scope.get("query_string", b"").decode("latin-1")).get("after", ["0"])[
            0
        ]
        return int(found) if found.isascii() and found.isdigit() and len(found) < 19 else 0

    @property
    def given(self) -> dict[str, Any]:
        """The parts of the address."""
        found: dict[str, Any] = self.scope["url_route"]["kwargs"]
        return found


class RunConsumer(Watched):
    """A run's page as it changes: `{seq, items: [{op, id, at, html}]}`, from `?after=<seq>` on."""

    route = "ws:run"

    async def exists(self) -> bool:
        """Whether there is such a run."""
        return await db.read(Run.objects.filter(key=self.given["key"]).exists)

    async def stream(self) -> None:
        """Send what the run's follower renders."""
        async with live.follow(self.given["key"], after=self.after()) as feed:
            async for message in feed:
                await self.tell(message)


class LogConsumer(Watched):
    """A container's log as it is stored: lists of lines, from `?after=<n>` on."""

    route = "ws:logs"

    async def exists(self) -> bool:
        """Whether the run has had such a pod."""
        given = self.given
        return await db.read(RunPod.objects.filter(run__key=given["key"], name=given["pod"]).exists)

    async def stream(self) -> None:
        """Send the batches that the hub has encoded once for everybody."""
        given = self.given
        with contextlib.suppress(ValueError):
            async with logs_hub.subscribe(
                given["key"], given["pod"], given["container"], after=self.after()
            ) as feed:
                async for batch in feed:
                    await self.tell(batch.encoded)


class WakeConsumer(Watched):
    """Says that something happened to some run, at most three times a second; lists then ask for themselves."""

    route = "ws:wakes"

    async def stream(self) -> None:
        """Send `{}` after each wake."""
        with wake.listening(wake.ANY_RUN) as event:
            while True:
                await event.wait()
                await asyncio.sleep(DEBOUNCE_SECONDS)
                event.clear()
                await self.tell("{}")
