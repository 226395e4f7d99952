"""Live log lines for any number of viewers: one channel a container in the serving process.

What is shown is stored first. The supervisor's follower publishes what it has stored; a channel gathers about
`BATCH_SECONDS` of lines into one batch, encodes it once, and every viewer gets that same object. A viewer holds nothing
but the number of its last line: one that falls behind the ring reads from the store at its own pace and slows nobody. Where the writer is
another process, a channel with viewers reads the store on a short beat.

Lines are cut for showing here, and batches and the ring have bounds in characters too: a log may be one line of 100 MB.

    async with hub.subscribe(run.key, pod.name, "agent", after=120) as feed:
        async for batch in feed:
            await send(batch.encoded)
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from devaipod_web.runs import logs
from devaipod_web.runs.log_records import StoredLine

BATCH_SECONDS = 0.02
#: And when more waits than one batch, the next comes so soon; others have their turn in between.
FLOOD_SECONDS = 0.004
#: Lines of one batch, and characters after which it ends.
BATCH_LINES = 500
BATCH_CHARACTERS = 128 * 1024
#: What a channel keeps for viewers who are a little behind: batches, and characters of their lines.
RING_BATCHES = 128
RING_CHARACTERS = 2 * 1024 * 1024
#: Lines that wait to be handed out; what is more is left to the store, from which every viewer catches up.
PENDING_LINES = 5_000
#: A record is shown up to here (as a line of a diff is); the page fetches the rest of it when it is asked to.
SHOWN_CHARACTERS = 1_000
#: Beat of reading the store when nobody in this process publishes.
STORE_BEAT_SECONDS = 0.5

_as_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_readers = ThreadPoolExecutor(max_workers=4, thread_name_prefix="log-reader")
Name = tuple[str, str, str]
T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """Consecutive lines, and the same as JSON text (a list of what `shown` says), made once."""

    lines: Sequence[StoredLine]
    encoded: str
    weight: int

    @property
    def first(self) -> int:
        """The number of the first line."""
        return self.lines[0].n

    @property
    def last(self) -> int:
        """The number of the last line."""
        return self.lines[-1].n


def shown(line: StoredLine) -> dict[str, Any]:
    """A line as pages get it: the names of `StoredLine`, and `length` where its text was cut at `SHOWN_CHARACTERS`."""
    # Not `asdict`, which copies deeply: it took half of the server's time in a flood.
    row = dict(vars(line))
    if len(line.text) > SHOWN_CHARACTERS:
        row |= {"text": line.text[:SHOWN_CHARACTERS], "length": len(line.text)}
    return row


def batch_of(lines: Sequence[StoredLine]) -> Batch:
    """A batch of these lines (not empty, consecutive)."""
    text = _as_json([shown(line) for line in lines])
    return Batch(tuple(lines), text, len(text) + sum(len(line.text) for line in lines))


@dataclass(eq=False)
class _Channel:
    name: Name
    last: int = 0
    ring: deque[Batch] = field(default_factory=deque)
    ring_characters: int = 0
    pending: list[StoredLine] = field(default_factory=list)
    flush_at: asyncio.TimerHandle | None = None
    flushed: float = 0.0
    published: float = 0.0
    viewers: int = 0
    feeds: set[asyncio.Event] = field(default_factory=set)
    poll: asyncio.Task[None] | None = None

    def publish(self, lines: Iterable[StoredLine]) -> None:
        known = self.pending[-1].n if self.pending else self.last
        self.published = time.monotonic()
        self.pending.extend(line for line in lines if line.n > known)
        if len(self.pending) > PENDING_LINES:
            # Faster than it can be handed out: the viewers find the number changed and read on in the store.
            self.last, self.flushed = self.pending[-1].n, self.published
            self.pending.clear()
            self._forget_ring()
            self._wake()
        if not self.pending or self.flush_at is not None:
            return
        # The first line after a pause goes out at once; the next ones are gathered.
        wait = max(self.flushed + BATCH_SECONDS - time.monotonic(), 0.0)
        self.flush_at = asyncio.get_running_loop().call_later(wait, self._flush)

    def _flush(self) -> None:
        self.flush_at = None
        lines = self._next_lines()
        if not lines:
            return
        if self.ring and self.ring[-1].last + 1 != lines[0].n:
            self._forget_ring()
        self.ring.append(batch_of(lines))
        self.ring_characters += self.ring[-1].weight
        while len(self.ring) > RING_BATCHES or self.ring_characters > RING_CHARACTERS:
            self.ring_characters -= self.ring.popleft().weight
        self.last, self.flushed = lines[-1].n, time.monotonic()
        self._wake()
        if self.pending:
            loop = asyncio.get_running_loop()
            self.flush_at = loop.call_later(FLOOD_SECONDS, self._flush)

    def _next_lines(self) -> list[StoredLine]:
        count = characters = 0
        for line in self.pending[:BATCH_LINES]:
            if characters > BATCH_CHARACTERS:
                break
            count, characters = count + 1, characters + len(line.text)
        lines, self.pending = self.pending[:count], self.pending[count:]
        return lines

    def _forget_ring(self) -> None:
        self.ring.clear()
        self.ring_characters = 0

    def _wake(self) -> None:
        for event in self.feeds:
            event.set()

    def after(self, number: int) -> Batch | None:
        """The batch that goes on after line `number`, when the ring has it."""
        if not self.ring or not self.ring[0].first <= number + 1 <= self.last:
            return None
        for batch in reversed(self.ring):
            if batch.first == number + 1:
                return batch
            if batch.first <= number < batch.last:
                return batch_of(batch.lines[number + 1 - batch.first :])
        return None

    async def follow_store(self) -> None:
        """Read what another process stored, while there are viewers."""
        reader = logs.Reader(*self.name, after=self.last)
        beat = STORE_BEAT_SECONDS
        try:
            while True:
                await asyncio.sleep(beat)
                beat = STORE_BEAT_SECONDS
                if time.monotonic() - self.published < STORE_BEAT_SECONDS:
                    continue
                known = self.pending[-1].n if self.pending else self.last
                if reader.at < known:
                    reader.close()
                    reader = logs.Reader(*self.name, after=known)
                lines = await in_thread(reader.read, BATCH_LINES)
                if lines:
                    published = self.published
                    self.publish(lines)
                    # It was not the writer's process that spoke: look again soon.
                    self.published, beat = published, BATCH_SECONDS
        finally:
            reader.close()


class Feed:
    """A viewer's place in a log: iterate over batches, without a gap or a double."""

    def __init__(self, channel: _Channel, event: asyncio.Event, after: int) -> None:
        self._channel = channel
        self._event = event
        self._reader: logs.Reader | None = None
        self.at = after

    def __aiter__(self) -> AsyncIterator[Batch]:
        return self

    async def __anext__(self) -> Batch:
        """The next batch; waits for it. Never ends by itself: leave the loop when the container has ended."""
        while True:
            self._event.clear()
            batch = self._channel.after(self.at)
            if batch is None and self.at < self._channel.last:
                batch = await in_thread(self._behind)
            else:
                self.close()
            if batch is not None:
                self.at = batch.last
                return batch
            await self._event.wait()

    def _behind(self) -> Batch | None:
        """In a reader's thread: what the ring does not have any more. The place in the files is kept until it is caught up."""
        if self._reader is None:
            self._reader = logs.Reader(*self._channel.name, after=self.at)
        lines = self._reader.read(BATCH_LINES, characters=BATCH_CHARACTERS)
        return batch_of(lines) if lines else None

    def close(self) -> None:
        """Let go of the files."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None


class Hub:
    """The channels of one process. All methods belong to one event loop."""

    def __init__(self) -> None:
        self._channels: dict[Name, _Channel] = {}

    def publish(
        self, run_key: str, pod_name: str, container: str, lines: Sequence[StoredLine]
    ) -> None:
        """Hand stored lines to the viewers, if there are any."""
        channel = self._channels.get((run_key, pod_name, container))
        if channel is not None:
            channel.publish(lines)

    @asynccontextmanager
    async def subscribe(
        self, run_key: str, pod_name: str, container: str, *, after: int | None = None
    ) -> AsyncIterator[Feed]:
        """Follow a container's log after line `after` (None: from now on). Raises ValueError for a name that is none."""
        name = (run_key, pod_name, container)
        logs.folder(*name)
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = _Channel(name)
        channel.viewers += 1
        event = asyncio.Event()
        channel.feeds.add(event)
        try:
            if channel.poll is None:
                channel.last = max(channel.last, await in_thread(logs.last_number, *name))
                if channel.poll is None:
                    channel.poll = asyncio.create_task(
                        channel.follow_store(), name=f"logs {pod_name} {container}"
                    )
            feed = Feed(channel, event, channel.last if after is None else max(after, 0))
            try:
                yield feed
            finally:
                feed.close()
        finally:
            channel.feeds.discard(event)
            channel.viewers -= 1
            if not channel.viewers:
                self._close(channel)

    def _close(self, channel: _Channel) -> None:
        self._channels.pop(channel.name, None)
        if channel.poll is not None:
            channel.poll.cancel()
        if channel.flush_at is not None:
            channel.flush_at.cancel()


async def in_thread(fn: Callable[..., T], *args: Any) -> T:
    """Run a blocking reading of logs in a thread of the readers' pool, which is theirs alone."""
    return await asyncio.get_running_loop().run_in_executor(_readers, fn, *args)


hub = Hub()
subscribe = hub.subscribe
publish = hub.publish
