"""A container's log over podman's API, for where its file can't be read (another user's podman, behind a shared socket).

Podman 4.3 stamps whole seconds here and its `since` includes the whole second. The cursor is `s<second>:<lines>`: so many lines of that
second were passed on already. Part marks are not there: a long line comes as one.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import aiohttp

from pods.errors import BackendUnavailable, PodNotFound
from pods.podman_client import NEXT_STEP
from pods.spec import LogLine

HEADER_BYTES = 8
STDERR = 2
MAX_FRAME_BYTES = 16 * 1024 * 1024
CURSOR = re.compile(r"s([0-9]{1,12}):([0-9]{1,12})")


def readable(path: Path) -> bool:
    """Whether the log's file can be read, or could be once it is there. Blocking."""
    try:
        with path.open("rb"):
            return True
    except FileNotFoundError:
        return True
    except PermissionError:
        return False


async def follow(
    socket: Path, container: str, *, since: str, tail: int | None, on: bool
) -> AsyncIterator[LogLine]:
    """Lines after `since`, or the last `tail`; with `on` until the container ends. Raises PodNotFound, BackendUnavailable."""
    if tail is not None and not since:
        # The API's own tail begins in the middle of a second, which no cursor could count from.
        last: deque[LogLine] = deque(maxlen=tail)
        async for line in follow(socket, container, since="", tail=None, on=False):
            last.append(line)
            since = line.cursor
        for line in last:
            yield line
        if not on:
            return
    found = CURSOR.fullmatch(since)
    second, passed = (int(found[1]), int(found[2])) if found else (0, 0)
    params = {"stdout": "true", "stderr": "true", "timestamps": "true", "follow": str(on).lower()}
    if found:
        params["since"] = str(second)
    count, skip = 0, passed
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
    try:
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(socket)), timeout=timeout
            ) as session,
            session.get(
                f"http://d/v4.0.0/libpod/containers/{container}/logs", params=params
            ) as answer,
        ):
            if answer.status == 404:
                raise PodNotFound(f"podman: there is no container {container}.")
            async for stream, at, text in _lines(answer.content):
                now = int(at.timestamp())
                if now != second:
                    second, count, skip = now, 0, 0
                count += 1
                if count > skip:
                    yield LogLine(stream, at, text, f"s{second}:{count}")
    except aiohttp.ClientError as error:
        raise BackendUnavailable(
            f"podman's API service at {socket} does not answer ({type(error).__name__}).",
            next_step=NEXT_STEP,
        ) from error


async def _lines(
    content: aiohttp.StreamReader,
) -> AsyncIterator[tuple[Literal["stdout", "stderr"], datetime, bytes]]:
    while True:
        try:
            header = await content.readexactly(HEADER_BYTES)
            length = int.from_bytes(header[4:], "big")
            if length > MAX_FRAME_BYTES:
                return
            data = await content.readexactly(length)
        except asyncio.IncompleteReadError:
            return
        stamp, _, text = data.removesuffix(b"\n").partition(b" ")
        try:
            at = datetime.fromisoformat(stamp.decode()).astimezone(UTC)
        except ValueError:
            at, text = datetime.now(UTC), data.removesuffix(b"\n")
        yield ("stderr" if header[0] == STDERR else "stdout"), at, text
