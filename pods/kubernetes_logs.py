"""Container logs over the API server: cursors, following, the sidecar's two parts, what a rotation took.

The API knows a line by its time alone, with nanoseconds, and resumes at whole seconds. So a cursor is (part, stamp, lines already read
with that stamp): what comes again is passed over. A kubelet keeps rotated files and shows the newest alone: a cursor whose line
does not come any more is answered with a gap.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pods.errors import BackendUnavailable, PodNotFound
from pods.kubernetes_client import KubeClient, NotReady
from pods.kubernetes_documents import PREPARE
from pods.kubernetes_state import OVER, moment, statuses
from pods.kubernetes_watch import Document, Watch
from pods.spec import SIDECAR, LogLine

#: A line longer than this is passed on in pieces.
PIECE_BYTES = 64 * 1024
#: containerd writes longer lines in pieces of this size, and kubelets before 1.25 put a stamp before each piece.
RUNTIME_PIECE_BYTES = 16 * 1024
RETRY_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
#: A node that refused to follow a log is called short of followers for so long.
REFUSED_SECONDS = 120.0
#: What a kubelet writes in place of a log's lines when its user has as many inotify instances as one may have.
REFUSED = b"failed to create fsnotify watcher"
#: The end of a log comes before the API server knows of its container's end.
END_SECONDS = 3.0
_STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d) ")


@dataclass(frozen=True)
class Cursor:
    """After which line: the container that wrote it, its stamp as the API writes it, and its number among those of that stamp."""

    part: str
    stamp: str
    count: int

    def __str__(self) -> str:
        return f"{self.part}/{self.stamp}/{self.count}"


def in_utc(stamp: str) -> str:
    """A stamp of the API's with nine digits in UTC, so that stamps compare as texts. Empty stays empty."""
    if not stamp:
        return ""
    head, rest = stamp[:19], stamp[19:]
    digits = rest[1:].split("Z")[0].split("+")[0].split("-")[0] if rest.startswith(".") else ""
    zone = rest[1 + len(digits) :] if digits else rest
    if zone != "Z":
        head = datetime.fromisoformat(head + zone).astimezone(UTC).isoformat()[:19]
    return f"{head}.{digits:0<9}Z"


def read_cursor(text: str) -> Cursor | None:
    """A cursor of ours; None for anything else."""
    part, _, rest = text.partition("/")
    stamp, _, count = rest.partition("/")
    if not part or not _STAMP.fullmatch(f"{stamp} ".encode()) or not count.isdecimal():
        return None
    return Cursor(part, stamp, int(count))


class Splitter:
    """From the API's bytes to log lines: cuts at newlines, takes the stamps off, counts, and passes over what was read before."""

    def __init__(self, part: str, after: Cursor | None) -> None:
        self.part = part
        self.last = after
        self._after = after
        self._met = after is None
        self._rest = b""
        self._gap = False
        #: Whether the node said that it does not follow this log.
        self.refused = False

    def feed(self, data: bytes) -> list[LogLine]:
        """The lines that are whole now."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [one for line in lines for one in self._line(line)]

    def end(self) -> list[LogLine]:
        """What is left when the log has ended without a newline."""
        rest, self._rest = self._rest, b""
        if rest.startswith(REFUSED):
            self.refused = True
            return []
        return self._line(rest) if rest else []

    def again(self) -> None:
        """The connection is made anew from `last` on."""
        self._after, self._met, self._rest, self._gap = self.last, self.last is None, b"", False
        self._count, self.refused = 0, False

    _count = 0
    _stamp = ""

    def _line(self, line: bytes) -> list[LogLine]:
        pieces = list(_pieces(line))
        found = []
        for number, (stamp, text) in enumerate(pieces):
            # Without any stamp it is not of the log: a kubelet's own words about a file that it does not have.
            if not (stamp := in_utc(stamp) or self._stamp):
                continue
            one = self._one(stamp, text, partial=number < len(pieces) - 1)
            if one is not None:
                found.append(one)
        return found

    def _one(self, stamp: str, text: bytes, *, partial: bool) -> LogLine | None:
        self._count = self._count + 1 if stamp == self._stamp else 1
        self._stamp = stamp
        if not self._met and self._after is not None:
            if stamp < self._after.stamp:
                return None
            if stamp == self._after.stamp and self._count <= self._after.count:
                self._met = self._count == self._after.count
                return None
            # The cursor's own line did not come: what was between is not to be had any more.
            self._met = self._gap = True
        gap, self._gap = self._gap, False
        cursor = Cursor(self.part, stamp, self._count)
        self.last = cursor
        at = moment(stamp) or datetime.now(UTC)
        return LogLine("stdout", at, text, str(cursor), partial=partial, gap=gap)


def _pieces(line: bytes) -> list[tuple[str, bytes]]:
    """(stamp or empty, text) of each piece of a line of the API's."""
    stamp, text = _unstamp(line)
    pieces: list[tuple[str, bytes]] = []
    while len(text) > RUNTIME_PIECE_BYTES:
        next_stamp, rest = _unstamp(text[RUNTIME_PIECE_BYTES:])
        if not next_stamp:
            break
        pieces.append((stamp, text[:RUNTIME_PIECE_BYTES]))
        stamp, text = next_stamp, rest
    for at in range(0, max(len(text), 1), PIECE_BYTES):
        pieces.append((stamp, text[at : at + PIECE_BYTES]))
    return pieces


def _unstamp(text: bytes) -> tuple[str, bytes]:
    found = _STAMP.match(text)
    return (found[0][:-1].decode(), text[found.end() :]) if found else ("", text)


class Logs:
    """The logs of one cluster's containers."""

    def __init__(self, client: KubeClient, watch: Watch) -> None:
        self._client, self._watch = client, watch
        self._refused_at = float("-inf")

    def warning(self) -> tuple[str, str]:
        """(sentence, next step) while a node refuses to follow logs: they are read every few seconds instead, none is lost."""
        if time.monotonic() - self._refused_at > REFUSED_SECONDS:
            return "", ""
        return (
            f"A node follows no more logs than it does: the others are read every {RETRY_SECONDS[-1]:.0f} s, at a request each.",
            "Raise fs.inotify.max_user_instances on the nodes: two for each run beside what they use, 1024 say.",
        )

    async def read(
        self, pod: str, container: str, *, follow: bool, tail: int | None, since: str
    ) -> AsyncGenerator[LogLine]:
        """A container's log; the sidecar's begins with that of its init container. Raises PodNotFound."""
        document = await self._watch.pod(pod)
        if document is None or container not in _containers(document):
            raise PodNotFound(f"There is no container {container} of a pod {pod}.")
        cursor = read_cursor(since)
        parts = [PREPARE, SIDECAR] if container == SIDECAR else [container]
        if cursor is not None and cursor.part in parts:
            parts = parts[parts.index(cursor.part) :]
        if tail is not None and cursor is None:
            for line in await self._tail(pod, parts, tail):
                yield line
                cursor = read_cursor(line.cursor)
            if not follow:
                return
            parts = parts[parts.index(cursor.part) :] if cursor else parts
        for part in parts:
            after = cursor if cursor is not None and cursor.part == part else None
            async with aclosing(self._part(pod, part, after=after, follow=follow)) as lines:
                async for line in lines:
                    yield line

    async def _tail(self, pod: str, parts: list[str], tail: int) -> list[LogLine]:
        lines: list[LogLine] = []
        for part in reversed(parts):
            wanted = tail - len(lines)
            if wanted <= 0:
                break
            splitter = Splitter(part, None)
            params = {"container": part, "timestamps": "true", "tailLines": wanted}
            try:
                found = [one async for one in self._once(pod, splitter, params)]
            except NotReady:
                continue
            # The API counts from the end; ours count from the first line of a stamp, which may not be among these.
            lines = [*found[-wanted:], *lines]
        return lines

    async def _part(
        self, pod: str, part: str, *, after: Cursor | None, follow: bool
    ) -> AsyncGenerator[LogLine]:
        splitter, tries = Splitter(part, after), 0
        while True:
            if follow and not await self._started(pod, part):
                return
            params: dict[str, Any] = {"container": part, "timestamps": "true"}
            if splitter.last is not None:
                params["sinceTime"] = splitter.last.stamp
            if follow:
                params["follow"] = "true"
            whole = False
            try:
                async with aclosing(self._once(pod, splitter, params)) as lines:
                    async for line in lines:
                        tries = 0
                        yield line
                whole = True
            except NotReady:
                if not follow:
                    return
            except PodNotFound:
                return
            except BackendUnavailable:
                document = await self._watch.pod(pod)
                if document is None or _is_over(document):
                    return  # evicted, say: its logs went with it
                if not follow:
                    raise
            if splitter.refused and follow:
                self._refused_at = time.monotonic()
                tries = len(RETRY_SECONDS)  # asking soon again is what the node has no room for
            if not follow or (whole and await self._ended(pod, part)):
                return
            splitter.again()
            await asyncio.sleep(RETRY_SECONDS[min(tries, len(RETRY_SECONDS) - 1)])
            tries += 1

    async def _once(
        self, pod: str, splitter: Splitter, params: dict[str, Any]
    ) -> AsyncGenerator[LogLine]:
        path = f"{self._client.pods}/{pod}/log"
        async with self._client.stream(path, params=params) as answer:
            async for data in answer.content.iter_any():
                for line in splitter.feed(data):
                    yield line
        for line in splitter.end():
            yield line

    async def _started(self, pod: str, part: str) -> bool:
        """Wait until the container has begun; False when it never will."""
        while True:
            try:
                document = await self._watch.until(
                    pod, lambda found: found is None or _has_begun(found, part), seconds=60
                )
            except TimeoutError:
                continue
            return document is not None and bool(_state(document, part))

    async def _ended(self, pod: str, part: str) -> bool:
        """Whether a container whose log has ended has ended itself."""
        try:
            await self._watch.until(
                pod,
                lambda found: (
                    found is None or _is_over(found) or "terminated" in _state(found, part)
                ),
                seconds=END_SECONDS,
            )
        except TimeoutError:
            return False
        return True


def _containers(document: Document) -> set[str]:
    return {str(one.get("name")) for one in (document.get("spec") or {}).get("containers") or ()}


def _state(document: Document, part: str) -> dict[str, Any]:
    """What the container is, other than waiting."""
    state = (statuses(document).get(part) or {}).get("state") or {}
    return {key: value for key, value in state.items() if key != "waiting"}


def _has_begun(document: Document, part: str) -> bool:
    return bool(_state(document, part)) or _is_over(document)


def _is_over(document: Document) -> bool:
    return (document.get("status") or {}).get("phase") in OVER
