"""A pod and the last lines of its containers in one go: what a diagnosis asks, in few calls and all at once.

Asked for one by one, each with its own way into a thread and back, the same took three times as long.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pods import podman_api_logs, podman_logs
from pods.errors import PodNotFound
from pods.podman_client import PodmanClient
from pods.podman_documents import container_name
from pods.spec import AGENT, SIDECAR, LogLine

#: Pods that are remembered at once.
MAX_KNOWN = 500


@dataclass(frozen=True)
class Seen:
    """A container's inspect document and its last lines; None where its file can't be read."""

    document: dict[str, Any]
    lines: list[LogLine] | None


class Looker:
    """Looks at pods. What cannot change of a pod that is complete (its id, labels, when it was made, which containers it has) is asked once."""

    def __init__(self, client: PodmanClient) -> None:
        self._client = client
        self._known: dict[str, Any] = {}

    async def look(self, name: str, tail: int) -> tuple[Any, list[Seen]] | None:
        """(pod document, its containers) without the infra container; None when it is not there."""
        known = self._known.get(name)
        if known is not None:
            seen = await self._containers(_ids(known), tail)
            # Gone, or made anew under the same name: what is known of it is of no use.
            if len(seen) == len(_ids(known)):
                return known, seen
            self._known.pop(name, None)
        pod = await self._client.run(_pod, self._client, name)
        if pod is None:
            return None
        seen = await self._containers(_ids(pod), tail)
        if {AGENT, SIDECAR} <= {_part(one, name) for one in seen}:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[name] = pod
        return pod, seen

    async def _containers(self, ids: list[str], tail: int) -> list[Seen]:
        run, client = self._client.run, self._client
        found = await asyncio.gather(*(run(_container, client, one, tail) for one in ids))
        return [one for one in found if one is not None]


def _ids(pod: dict[str, Any]) -> list[str]:
    infra = pod.get("InfraContainerID")
    return [one["Id"] for one in pod.get("Containers") or [] if one["Id"] != infra]


def _part(one: Seen, pod: str) -> str:
    return str(one.document.get("Name", "")).removeprefix(container_name(pod, ""))


def _pod(client: PodmanClient, name: str) -> Any:
    try:
        return client.call("GET", f"/pods/{name}/json")
    except PodNotFound:
        return None


def _container(client: PodmanClient, name: str, tail: int) -> Seen | None:
    try:
        document = client.call("GET", f"/containers/{name}/json")
    except PodNotFound:
        return None
    return Seen(document, _last(document, tail))


def _last(container: dict[str, Any], tail: int) -> list[LogLine] | None:
    path = Path(container["HostConfig"]["LogConfig"]["Path"])
    if not podman_api_logs.readable(path):
        return None
    try:
        reader = podman_logs.Reader(path, podman_logs.tail_cursor(path, tail))
    except FileNotFoundError:
        return []
    try:
        lines: list[LogLine] = []
        while more := reader.read():
            lines += more
            if len(lines) > 2 * tail:
                break  # it writes faster than it is read
        return lines[-tail:]
    finally:
        reader.close()
