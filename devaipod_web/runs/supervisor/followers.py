"""One follower a container: its log goes from the backend into the store and from there to the viewers.

A follower starts where the store ends, whoever wrote it. A full disk stops nothing else: the follower keeps its batch, says
so on the run, and tries again until there is room.
"""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

import structlog

from devaipod_web import db
from devaipod_web.runs import logs, logs_hub
from devaipod_web.runs.services.notes import note
from pods.backend import ContainerBackend
from pods.errors import BackendUnavailable, PodNotFound
from pods.spec import LogLine, Phase, PodState

log = structlog.get_logger("devaipod.supervisor.logs")

#: Lines that wait for the disk; beyond that the backend's stream is not read on.
QUEUE_LINES = 2_000
BATCH_LINES = 1_000
RETRY_SECONDS = 5.0
DRAIN_SECONDS = 4.0

_writers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="log-writer")


class Followers:
    """The followers of this process, by (pod, container). `no_room`: id of a run whose logs can't be kept now → why."""

    def __init__(self, backend: ContainerBackend) -> None:
        self.backend = backend
        self.no_room: dict[int, str] = {}
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}

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

    async def drained(self, pod_name: str) -> None:
        """Wait (a few seconds at most) until the followers of a stopped pod have read everything, then forget them."""
        keys = [key for key in self._tasks if key[0] == pod_name]
        tasks = [self._tasks[key] for key in keys]
        if tasks:
            await asyncio.wait(tasks, timeout=DRAIN_SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for key in keys:
            self._tasks.pop(key, None)

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
        writer = await _in_thread(logs.Writer, run_key, pod, container)
        queue: asyncio.Queue[LogLine | None] = asyncio.Queue(QUEUE_LINES)
        pump = asyncio.create_task(self._pump(pod, container, writer.cursor, queue))
        finished = False
        try:
            while (lines := await _next_batch(queue)) is not None:
                stored = await self._store(writer, run_id, lines)
                logs_hub.publish(run_key, pod, container, stored)
            await pump
            finished = True
        except logs.LogFull:
            finished = True
            await _say(
                run_id, f"The log of {container} is longer than is kept; the rest is left out."
            )
        finally:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)
            with contextlib.suppress(OSError):
                await _in_thread(writer.close, finished=finished)

    async def _pump(
        self, pod: str, container: str, cursor: str, queue: asyncio.Queue[LogLine | None]
    ) -> None:
        try:
            stream = self.backend.logs(pod, container, follow=True, since=cursor)
            async with aclosing(stream) as lines:  # type: ignore[type-var]
                async for line in lines:
                    await queue.put(line)
        finally:
            # The bound counts lines; the end must always find a place, or the reader would wait for ever.
            queue._maxsize = 0  # type: ignore[attr-defined]
            queue.put_nowait(None)

    async def _store(
        self, writer: logs.Writer, run_id: int, lines: list[LogLine]
    ) -> list[logs.StoredLine]:
        while True:
            try:
                stored: list[logs.StoredLine] = await _in_thread(writer.append, lines)
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


async def _next_batch(queue: asyncio.Queue[LogLine | None]) -> list[LogLine] | None:
    """All lines that are there (waits for the first); None at the end."""
    first = await queue.get()
    if first is None:
        return None
    batch = [first]
    while len(batch) < BATCH_LINES and not queue.empty():
        line = queue.get_nowait()
        if line is None:
            queue.put_nowait(None)
            break
        batch.append(line)
    return batch


async def _say(run_id: int, text: str) -> None:
    # The database may lie on the same full disk: then there is nowhere to say it.
    with contextlib.suppress(Exception):
        await db.write(note, run_id, "warning", text)


async def _in_thread(fn: Any, *args: Any, **kwargs: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(_writers, lambda: fn(*args, **kwargs))
