"""Followers of runs: one reader and one renderer a run in a process, however many look on.

A follower wakes (or beats), reads what is new, renders it once, and puts one encoded message into a short ring; each viewer
holds its place in the ring and the last `seq` it was sent. A viewer who fell behind the ring, or who has just come with
`after=<seq>`, gets the items that were touched since then, from the same rendered pieces. Items are replaced or appended by
their id, so nothing is there twice, and nothing is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog

from devaipod_web import db
from devaipod_web.runs import shown, wake
from devaipod_web.runs.models import Run
from devaipod_web.runs.transcript import Item, Transcript

log = structlog.get_logger("devaipod.live")

Operation = dict[str, str | int]

RING = 256
#: Items that a follower keeps to serve viewers who reconnect; older gaps make the page load anew.
KEEP_ITEMS = 600
PARTS = ("header", "actions", "aside", "state")
#: At most this many messages a second, however fast the agent writes.
PACE_SECONDS = 0.05


@dataclass(frozen=True)
class Batch:
    """One message to every viewer: `number` counts them, `seq` is the run's last event in it."""

    number: int
    seq: int
    encoded: str


@dataclass
class _Parts:
    """The parts of the page that are replaced as a whole."""

    header: str = ""
    actions: str = ""
    aside: str = ""
    state: str = ""


@dataclass(frozen=True)
class Kept:
    """What can be sent to a viewer who comes or falls behind: (touched, operation) of each item, and the run's last event."""

    items: tuple[tuple[int, Operation], ...] = ()
    oldest: int = 0
    seq: int = 0
    parts: _Parts = field(default_factory=_Parts)


class Follower:
    """Follows one run for its viewers. All methods but `_read` belong to one event loop."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.transcript = Transcript()
        self.kept = Kept()
        self.parts = _Parts()
        self.number = 0
        self.ring: deque[Batch] = deque(maxlen=RING)
        self.news: set[asyncio.Event] = set()
        self.task: asyncio.Task[None] | None = None
        self.ready = asyncio.Event()
        self.is_gone = False
        self._began = False

    async def work(self) -> None:
        """Read, render and hand out until cancelled."""
        delay = PACE_SECONDS
        with wake.listening(self.key) as event:
            while not self.is_gone:
                try:
                    operations, kept = await db.read(self._read)
                except asyncio.CancelledError:
                    raise
                except Exception:
                    # The viewers wait; the store is asked again a little later.
                    log.exception("live.read_failed", run=self.key)
                    delay = min(delay * 2, wake.BEAT_SECONDS)
                    await asyncio.sleep(delay)
                    continue
                delay = PACE_SECONDS
                self.kept = kept
                if operations and self.ready.is_set():
                    self._hand_out(operations)
                self.ready.set()
                await asyncio.sleep(PACE_SECONDS)
                await wake.pause(event)
        self._hand_out([])

    def _hand_out(self, operations: list[Operation]) -> None:
        self.number += 1
        seq = self.kept.seq
        self.ring.append(Batch(self.number, seq, encode(seq, operations)))
        for event in self.news:
            event.set()

    def _read(self) -> tuple[list[Operation], Kept]:
        """In a reader's thread: what is new, rendered, and what is to be kept. One call at a time."""
        run = shown.find(self.key)
        if run is None:
            self.is_gone = True
            return [], self.kept
        if not self._began:
            window = shown.latest(run)
            self.transcript, self._began = window.transcript, True
            shown.render_items(run, list(self.transcript.items.values()))
            self._parts(run)
            return [], self._keep()
        before = self.transcript.last_seq
        changed = shown.feed_all(self.transcript, run.pk, before)
        # Questions and pending prompts change with their rows and with the run's state, not only with events of their own.
        loose = [
            item
            for item in self.transcript.items.values()
            if item.name == "permission" or item.data.get("pending")
        ]
        known = {item.id: item.html for item in loose}
        shown.render_items(run, list({item.id: item for item in [*changed, *loose]}.values()))
        touched = {item.id: item for item in changed}
        touched.update({item.id: item for item in loose if item.html != known[item.id]})
        operations = [operation(item) for item in sorted(touched.values(), key=lambda i: i.seq)]
        operations += self._parts(run)
        return operations, self._keep()

    def _parts(self, run: Run) -> list[Operation]:
        now = _Parts(
            header=shown.header(run, live=True),
            actions=shown.actions(run),
            aside=shown.aside(run, self.transcript.plan, self.transcript.context),
            state=run.state,
        )
        was, self.parts = self.parts, now
        return [
            {"op": name, "html": getattr(now, name)}
            for name in PARTS
            if getattr(now, name) != getattr(was, name)
        ]

    def _keep(self) -> Kept:
        self.transcript.forget(KEEP_ITEMS)
        items = list(self.transcript.items.values())
        return Kept(
            items=tuple((item.touched, operation(item)) for item in items),
            oldest=items[0].seq if items else 0,
            seq=self.transcript.last_seq,
            parts=self.parts,
        )

    def catch_up(self, after: int) -> str:
        """What a viewer who has seen everything up to `after` does not have yet, and the present parts.

        A question that was answered without a new event after `after` is among the parts' neighbours: items whose rows alone
        changed were touched by `permission.answered`, so their `touched` says it.
        """
        kept = self.kept
        if after + 1 < kept.oldest:
            return encode(kept.seq, [{"op": "reload", "html": ""}])
        operations = [done for touched, done in kept.items if touched > after]
        operations += [{"op": name, "html": getattr(kept.parts, name)} for name in PARTS]
        return encode(kept.seq, operations)


def operation(item: Item) -> Operation:
    """Put this item into the page: in place of the one with its id, or at its place by `at`."""
    return {"op": "item", "id": item.id, "at": item.seq, "html": item.html}


def encode(seq: int, operations: list[Operation]) -> str:
    """One message of the socket."""
    return json.dumps({"seq": seq, "items": operations}, ensure_ascii=False, separators=(",", ":"))


class Feed:
    """A viewer's place: iterate over messages. Ends when the run is gone."""

    def __init__(self, follower: Follower, event: asyncio.Event, after: int) -> None:
        self._follower = follower
        self._event = event
        self._seq = after
        self._number: int | None = None

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        """The next message; waits for it."""
        follower = self._follower
        await follower.ready.wait()
        while True:
            self._event.clear()
            if self._number is None or (
                follower.ring and follower.ring[0].number > self._number + 1
            ):
                self._number, since = follower.number, self._seq
                self._seq = follower.kept.seq
                return follower.catch_up(since)
            for batch in follower.ring:
                if batch.number > self._number:
                    self._number, self._seq = batch.number, batch.seq
                    return batch.encoded
            if follower.is_gone:
                raise StopAsyncIteration
            await self._event.wait()


_followers: dict[tuple[asyncio.AbstractEventLoop, str], tuple[Follower, list[Feed]]] = {}


@asynccontextmanager
async def follow(key: str, *, after: int) -> AsyncIterator[Feed]:
    """Follow a run from the viewer's last `seq`. The run's follower lives while somebody looks."""
    place = (asyncio.get_running_loop(), key)
    if place not in _followers:
        follower = Follower(key)
        _followers[place] = (follower, [])
        follower.task = asyncio.create_task(follower.work(), name=f"follow {key}")
    follower, feeds = _followers[place]
    event = asyncio.Event()
    feed = Feed(follower, event, max(after, 0))
    feeds.append(feed)
    follower.news.add(event)
    try:
        yield feed
    finally:
        feeds.remove(feed)
        follower.news.discard(event)
        if not feeds:
            _followers.pop(place, None)
            if follower.task is not None:
                follower.task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await follower.task
