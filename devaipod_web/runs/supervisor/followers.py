"""One follower a container: its log goes from the backend into the store and from there to the viewers.

A follower starts where the store ends, whoever wrote it. A full disk stops nothing else: the follower keeps its batch, says
so on the run, and tries again until there is room. What waits between the two has a bound in bytes: a line may be as long as it likes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

import structlog

from devaipod_web import db
from devaipod_web.runs import log_writer, logs, logs_hub
from devaipod_web.runs.log_records import StoredLine
from devaipod_web.runs.services.notes import note
from pods.backend import ContainerBackend
from pods.errors import BackendUnavailable, PodNotFound
from pods.spec import LogLine, Phase, PodState

log = structlog.get_logger("devaipod.supervisor.logs")

#: Bytes of lines that wait for the disk (each counted with `LINE_COST` for itself); beyond that the backend's stream is not read on.
QUEUE_BYTES = 2 * 1024 * 1024
BATCH_BYTES = 512 * 1024
LINE_COST = 200
RETRY_SECONDS = 5.0
#: The followers of a stopped pod have this long, and as long again as they get on, but no longer than the second.
DRAIN_SECONDS = 4.0
DRAIN_MOST_SECONDS = 300.0

_TOO_LONG = "The log of {} is longer than is kept: its beginning and its end stay, and lines between them are discarded."
_writers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="log-writer")


class Followers:
    """The followers of this process, by (pod, container). `no_room`: id of a run whose logs can't be kept now → why."""

    def __init__(self, backend: ContainerBackend) -> None:
        self.backend = backend
        self.no_room: dict[int, str] = {}
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        #: Lines stored so far, by the same.
        self._stored: Counter[tuple[str, str]] = Counter()

    def ensure(self, run_key: str, run_id: int, pod: PodState) -> None:
        """Follow every container of the pod that has started and is not followed yet."""
        for name, state in pod.containers.items():
            if state.phase not in (Phase.RUNNING, Phase.EXITED):
                continue
            key = (pod.name, name)
            if key not in self._tasks:
                self._tasks[key] = asyncio.create_task(
                    self._follow(run_key, run_id, pod.name, name), name=f"follow {pod.name} {name}"
                )

    async def finish(self, run_key: str, run_id: int, pod: PodState) -> None:
        """Read what a stopped pod's containers have still to say, then compress and forget: after this the pod may be removed.

        It waits as long as lines come. Says so on the run when the end could not be read.
        """
        # After a restart nobody may have followed it yet, and its logs go with it.
        self.ensure(run_key, run_id, pod)
        keys = [key for key in self._tasks if key[0] == pod.name]
        late = await self._wait([self._tasks[key] for key in keys], keys)
        for key in keys:
            task = self._tasks.pop(key)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._stored.pop(key, None)
            if task in late:
                log.warning("logs.end_lost", pod=key[0], container=key[1])
                await _say(run_id, f"The end of the log of {key[1]} could not be read in time.")
        await _in_thread(logs.archive, run_key, pod.name)

    async def _wait(
        self, tasks: list[asyncio.Task[None]], keys: list[tuple[str, str]]
    ) -> set[asyncio.Task[None]]:
        """Wait for the tasks while they get on; returns those that did not end."""
        late = set(tasks)
        loop = asyncio.get_running_loop()
        most = loop.time() + DRAIN_MOST_SECONDS
        while late and loop.time() < most:
            before = [self._stored[key] for key in keys]
            done, late = await asyncio.wait(late, timeout=DRAIN_SECONDS)
            if not done and before == [self._stored[key] for key in keys]:
                break
        return late

    def forget(self, run_id: int) -> None:
        """Nothing of this run is followed any more."""
        self.no_room.pop(run_id, None)

    async def close(self) -> None:
        """End all followers; what they stored stays, and the next process goes on from there."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()

    async def _follow(self, run_key: str, run_id: int, pod: str, container: str) -> None:
        while True:
            try:
                await self._follow_once(run_key, run_id, pod, container)
                return
            except PodNotFound:
                return
            except BackendUnavailable:
                await asyncio.sleep(RETRY_SECONDS / 5)
            except OSError as error:
                await self._no_room(run_id, error)
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:
                log.exception("logs.follow_failed", pod=pod, container=container)
                await asyncio.sleep(RETRY_SECONDS)

    async def _follow_once(self, run_key: str, run_id: int, pod: str, container: str) -> None:
        writer: log_writer.Writer = await _in_thread(log_writer.Writer, run_key, pod, container)
        queue = Waiting()
        pump = asyncio.create_task(self._pump(pod, container, writer.cursor, queue))
        finished = has_said = False
        try:
            while lines := await queue.take():
                stored = await self._store(writer, run_id, lines)
                self._stored[pod, container] += len(stored)
                logs_hub.publish(run_key, pod, container, stored)
                if writer.has_discarded and not has_said:
                    has_said = True
                    await _say(run_id, _TOO_LONG.format(container))
            await pump
            finished = True
        finally:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)
            with contextlib.suppress(OSError):
                await _in_thread(writer.close, finished=finished)

    async def _pump(self, pod: str, container: str, cursor: str, queue: Waiting) -> None:
        try:
            stream = self.backend.logs(pod, container, follow=True, since=cursor)
            async with aclosing(stream) as lines:  # type: ignore[type-var]
                async for line in lines:
                    await queue.put(line)
        finally:
            queue.end()

    async def _store(
        self, writer: log_writer.Writer, run_id: int, lines: list[LogLine]
    ) -> list[StoredLine]:
        while True:
            try:
                stored: list[StoredLine] = await _in_thread(writer.append, lines)
                self.no_room.pop(run_id, None)
                return stored
            except OSError as error:
                await self._no_room(run_id, error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _no_room(self, run_id: int, error: OSError) -> None:
        log.warning("logs.not_stored", reason=error.strerror)
        words = f"Container logs are not kept at the moment: {error.strerror or error}."
        self.no_room[run_id] = words
        await _say(
            run_id, f"{words} The run goes on, and they are kept again as soon as there is room."
        )


class Waiting:
    """Lines between a backend's stream and the disk, bounded in bytes; one puts, one takes."""

    def __init__(self) -> None:
        self._lines: deque[LogLine] = deque()
        self._bytes = 0
        self._has_ended = False
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    async def put(self, line: LogLine) -> None:
        """Add a line; waits for room, but a line that is longer than the whole bound gets in alone."""
        while self._bytes > QUEUE_BYTES:
            self._room.clear()
            await self._room.wait()
        self._lines.append(line)
        self._bytes += len(line.text) + LINE_COST
        self._news.set()

    def end(self) -> None:
        """Nothing more comes."""
        self._has_ended = True
        self._news.set()

    async def take(self) -> list[LogLine]:
        """The next lines, some `BATCH_BYTES` of them; waits for the first. Empty at the end."""
        while not self._lines:
            if self._has_ended:
                return []
            self._news.clear()
            await self._news.wait()
        batch: list[LogLine] = []
        taken = 0
        while self._lines and taken < BATCH_BYTES:
            batch.append(self._lines.popleft())
            taken += len(batch[-1].text) + LINE_COST
        self._bytes -= taken
        self._room.set()
        return batch


async def _say(run_id: int, text: str) -> None:
    # The database may lie on the same full disk: then there is nowhere to say it.
    with contextlib.suppress(Exception):
        await db.write(note, run_id, "warning", text)


async def _in_thread(fn: Any, *args: Any, **kwargs: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(_writers, lambda: fn(*args, **kwargs))
