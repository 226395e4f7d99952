"""podman's events of containers, over one connection that is made again when it breaks."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from pods.spec import PodEvent

BACKOFF_SECONDS = (0.5, 10.0)


async def watch(socket: Path, labels: Mapping[str, str]) -> AsyncIterator[PodEvent]:
    """Changes from now on. One connection, made again with back-off when podman goes away."""
    least, most = BACKOFF_SECONDS
    pause = least
    while True:
        try:
            async for event in _events(socket, labels):
                pause = least
                yield event
        except (OSError, asyncio.IncompleteReadError, ValueError):
            pass
        await asyncio.sleep(pause * (1 + random.random() / 2))  # noqa: S311 - jitter
        pause = min(pause * 2, most)


async def _events(socket: Path, labels: Mapping[str, str]) -> AsyncIterator[PodEvent]:
    filters = json.dumps(
        {"label": [f"{key}={value}" for key, value in labels.items()], "type": ["container"]}
    )
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
    connector = aiohttp.UnixConnector(str(socket))
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.get(
                "http://d/v4.0.0/libpod/events", params={"stream": "true", "filters": filters}
            ) as answer,
        ):
            async for line in answer.content:
                event = _event(line, labels)
                if event is not None:
                    yield event
    except aiohttp.ClientError as error:
        raise OSError(str(error)) from error


def _event(line: bytes, labels: Mapping[str, str]) -> PodEvent | None:
    """One line of podman's event stream, or None for what is no event of a container with all of these labels."""
    try:
        said = json.loads(line)
    except ValueError:
        return None
    attributes = (said.get("Actor") or {}).get("Attributes") or {}
    name = str(attributes.get("name", ""))
    pod, _, container = name.rpartition("-")
    if not pod or not labels.items() <= attributes.items():
        return None
    at = datetime.fromtimestamp(int(said.get("time", 0)), UTC)
    return PodEvent(pod, container, str(said.get("Action", said.get("status", ""))), at)
