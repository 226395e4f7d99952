"""One watch of all pods of an installation on a cluster, whatever their number, and the picture that it keeps.

It lists, watches from that resource version, goes on from the last one it saw when the connection ends, and lists again when that
version is too old (410) and on a regular beat, since a watch may lose events. Everybody reads the one picture; nobody asks for a pod
while it is fresh.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from pods.errors import BackendError, BackendUnavailable, PodNotFound
from pods.kubernetes_client import Expired, KubeClient
from pods.kubernetes_documents import STANDS_FOR
from pods.kubernetes_state import statuses
from pods.spec import LABEL_INSTALLATION, PodEvent

#: The API server ends a watch after so long; the next goes on where it ended.
WATCH_SECONDS = 120
#: A watch that says nothing for longer than it may last is dead.
SILENCE_SECONDS = WATCH_SECONDS + 15.0
RELIST_SECONDS = 600.0
BACKOFF_SECONDS = (0.05, 10.0)
#: A picture stays good for so long while the watch reconnects.
FRESH_SECONDS = 3.0
POLL_SECONDS = 1.0
#: Changes that a slow reader may be behind; more are dropped, and readers look on a beat anyway.
MAX_BEHIND = 1000

Document = dict[str, Any]


class Watch:
    """The pods of our installation as the API server last told them, by name."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._selector = f"{LABEL_INSTALLATION}={client.cluster.installation}"
        self.documents: dict[str, Document] = {}
        self._version = ""
        self._listed_at = 0.0
        self._is_open = False
        self._heard_at = 0.0
        self._error: BackendError | None = None
        self._task: asyncio.Task[None] | None = None
        self._first = asyncio.Event()
        self._waiters: set[asyncio.Future[None]] = set()
        self._readers: set[asyncio.Queue[PodEvent]] = set()

    # --- reading ------------------------------------------------------------------------------------------

    @property
    def is_fresh(self) -> bool:
        """Whether the picture is what the API server says now."""
        if not self._listed_at:
            return False
        return self._is_open or time.monotonic() - self._heard_at < FRESH_SECONDS

    async def pod(self, name: str) -> Document | None:
        """A pod: from the picture while it is fresh, else asked for."""
        if await self._begun() and self.is_fresh:
            return self.documents.get(name)
        return await self.ask(name)

    async def all(self) -> list[Document]:
        """All pods of the installation."""
        if await self._begun() and self.is_fresh:
            return list(self.documents.values())
        return list((await self._listed(self._selector))[0].values())

    async def ask(self, name: str) -> Document | None:
        """A pod, asked for at the API server."""
        try:
            document: Document = await self._client.json("GET", f"{self._client.pods}/{name}")
        except PodNotFound:
            return None
        return document

    async def list(self, labels: Mapping[str, str]) -> list[Document]:
        """All pods with these labels, asked for at the API server."""
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        return list((await self._listed(selector))[0].values())

    async def until(
        self, name: str, is_so: Callable[[Document | None], bool], *, seconds: float
    ) -> Document | None:
        """Wait until something is so of a pod (None: it is gone) and return the pod. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while True:
                news = self._news()
                document = await self.pod(name)
                if is_so(document):
                    return document
                await asyncio.wait({news}, timeout=None if self.is_fresh else POLL_SECONDS)

    async def events(self) -> AsyncGenerator[PodEvent]:
        """Changes from now on, until the iterator is closed."""
        queue: asyncio.Queue[PodEvent] = asyncio.Queue(MAX_BEHIND)
        self._readers.add(queue)
        try:
            await self._begun()
            while True:
                yield await queue.get()
        finally:
            self._readers.discard(queue)

    # --- writing ------------------------------------------------------------------------------------------

    def put(self, document: Document) -> None:
        """Show a pod that we have just made, until the watch tells of it."""
        name = document["metadata"]["name"]
        known = self.documents.get(name)
        if known is None or known["metadata"]["uid"] != document["metadata"]["uid"]:
            self._take("ADDED", document)

    async def close(self) -> None:
        """End the watch; safe to repeat."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _news(self) -> asyncio.Future[None]:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        waiter.add_done_callback(self._waiters.discard)
        return waiter

    async def _begun(self) -> bool:
        """Start the watch where it is not there yet, and wait for the first list. Raises what that fails with."""
        if self._task is None or self._task.done():
            self._first.clear()
            self._task = asyncio.create_task(self._keep(), name=f"pods of {self._selector}")
        if not self._listed_at:
            await self._first.wait()
            if not self._listed_at and self._error is not None:
                raise self._error
        return bool(self._listed_at)

    # --- the loop -----------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        least, most = BACKOFF_SECONDS
        pause = least
        while True:
            try:
                if not self._version or time.monotonic() - self._listed_at > RELIST_SECONDS:
                    await self._relist()
                await self._follow()
                pause = least
                continue
            except Expired:
                self._version = ""
            except BackendError as error:
                self._error = error
            finally:
                self._is_open = False
                self._first.set()
            await asyncio.sleep(pause * (1 + random.random()))  # noqa: S311 - jitter
            pause = min(pause * 2, most)

    async def _relist(self) -> None:
        found, version = await self._listed(self._selector)
        for name, document in found.items():
            if self.documents.get(name) != document:
                self._take("MODIFIED", document)
        for name in self.documents.keys() - found.keys():
            self._take("DELETED", self.documents[name])
        self._version, self._error = version, None
        self._listed_at = self._heard_at = time.monotonic()
        self._first.set()

    async def _listed(self, selector: str) -> tuple[dict[str, Document], str]:
        answer = await self._client.json(
            "GET", self._client.pods, params={"labelSelector": selector}
        )
        items = answer.get("items") or []
        version = str((answer.get("metadata") or {}).get("resourceVersion", ""))
        return {one["metadata"]["name"]: one for one in items}, version

    async def _follow(self) -> None:
        params = {
            "watch": "true",
            "labelSelector": self._selector,
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": WATCH_SECONDS,
        }
        async with self._client.stream(
            self._client.pods, params=params, silence=SILENCE_SECONDS
        ) as answer:
            self._is_open, self._error = True, None
            rest = b""
            async for piece in answer.content.iter_any():
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    self._hear(line)
                    self._heard_at = time.monotonic()
            self._heard_at = time.monotonic()

    def _hear(self, line: bytes) -> None:
        try:
            said = json.loads(line)
        except ValueError:
            return
        kind, document = said.get("type"), said.get("object") or {}
        if kind == "ERROR":
            message = str(document.get("message", ""))
            if document.get("code") == 410:
                raise Expired(message)
            raise BackendUnavailable(f"The cluster ended the watch: {message}")
        self._version = str((document.get("metadata") or {}).get("resourceVersion", self._version))
        if kind in ("ADDED", "MODIFIED", "DELETED"):
            self._take(kind, document)

    def _take(self, kind: str, document: Document) -> None:
        name = document["metadata"]["name"]
        before = self.documents.get(name)
        if kind == "DELETED":
            self.documents.pop(name, None)
        else:
            self.documents[name] = document
        for waiter in list(self._waiters):
            if not waiter.done():
                waiter.set_result(None)
        for event in _changes(before, None if kind == "DELETED" else document):
            for queue in self._readers:
                with contextlib.suppress(asyncio.QueueFull):
                    queue.put_nowait(event)


def _changes(before: Document | None, after: Document | None) -> Iterator[PodEvent]:
    """What changed of a pod, a container each. Either side may be missing, not both."""
    document = after or before
    if document is None:
        return
    pod, at = document["metadata"]["name"], datetime.now(UTC)
    old, new = statuses(before or {}), statuses(after or {})
    told = False
    for name in [*new, *(gone for gone in old if gone not in new)]:
        if old.get(name) != new.get(name):
            told = True
            state = (new.get(name) or {}).get("state") or {}
            yield PodEvent(pod, STANDS_FOR.get(name, name), next(iter(state), "removed"), at)
    if not told:
        yield PodEvent(pod, "", "removed" if after is None else "changed", at)
