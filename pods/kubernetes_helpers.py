"""Pods of our own that belong to no run: one that has an image pulled, two that try whether the network is closed."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from pods.errors import BackendError, ImageError, StartFailed
from pods.kubernetes_client import KubeClient
from pods.kubernetes_documents import HELPER, LABEL_HELPER, helper_document
from pods.kubernetes_end import Ender
from pods.kubernetes_start import PULL_SECONDS, Starter, Tell
from pods.kubernetes_state import moment, pod_state, statuses
from pods.kubernetes_watch import Document, Watch
from pods.spec import LABEL_INSTALLATION, Phase

PROBE_PORT = 8399
PROBE_SECONDS = 60
REACHED, CLOSED = 7, 8
_LISTEN = f"import socket\ns = socket.create_server(('', {PROBE_PORT}))\nwhile True: s.accept()[0].close()"
_DIAL = (
    f"import socket, sys\ntry: socket.create_connection((sys.argv[1], {PROBE_PORT}), 4)\n"
    f"except OSError: sys.exit({CLOSED})\nsys.exit({REACHED})"
)


class Helpers:
    """Short-lived pods of one cluster."""

    def __init__(self, client: KubeClient, watch: Watch, starter: Starter, ender: Ender) -> None:
        self._client, self._watch = client, watch
        self._starter, self._ender = starter, ender

    async def pull(self, reference: str, tell: Tell | None) -> None:
        """Have an image on the node that a small pod of it comes to. Raises ImageMissing, PullRefused, QuotaExceeded."""
        async with self._pod("pull", reference, ["true"], seconds=int(PULL_SECONDS)) as name:
            try:
                await self._starter.wait(name, HELPER, tell)
            except ImageError:
                raise
            except StartFailed:
                # An image without a program `true` is there all the same.
                document = await self._watch.pod(name)
                if document is None or not (statuses(document).get(HELPER) or {}).get("imageID"):
                    raise

    async def is_closed(self, image: str) -> bool | None:
        """Whether one pod of ours is kept from another's port; None when the two could not be tried. `image` has Python."""
        listener = self._pod("probe", image, ["python3", "-c", _LISTEN], seconds=PROBE_SECONDS)
        async with listener as name:
            there = await self._starter.wait(name, HELPER)
            if not there.address:
                return None
            argv = ["python3", "-c", _DIAL, there.address]
            async with self._pod("probe", image, argv, seconds=PROBE_SECONDS) as dialer:
                document = await self._watch.until(
                    dialer, lambda found: found is None or _code(found) is not None, seconds=60
                )
                code = _code(document) if document is not None else None
        return {REACHED: False, CLOSED: True}.get(code) if code is not None else None

    async def tidy(self) -> None:
        """Remove those that a killed process left behind."""
        for document in await self._watch.all():
            made = moment(document["metadata"].get("creationTimestamp"))
            old = timedelta(seconds=PULL_SECONDS)
            if is_helper(document) and made is not None and datetime.now(UTC) - made > old:
                await self._ender.destroy(document["metadata"]["name"])

    @asynccontextmanager
    async def _pod(
        self, what: str, image: str, argv: Sequence[str], *, seconds: int
    ) -> AsyncIterator[str]:
        labels = {LABEL_INSTALLATION: self._client.cluster.installation}
        name = f"devaipod-{what}-{secrets.token_hex(5)}"
        document = helper_document(name, image=image, argv=argv, labels=labels, seconds=seconds)
        self._watch.put(await self._client.json("POST", self._client.pods, body=document))
        try:
            yield name
        finally:
            with contextlib.suppress(BackendError):
                await self._ender.destroy(name)


def is_helper(document: Document) -> bool:
    """Whether a pod belongs to no run."""
    return LABEL_HELPER in ((document.get("metadata") or {}).get("labels") or {})


def _code(document: Document) -> int | None:
    found = pod_state(document).containers[HELPER]
    return found.exit_code if found.phase is Phase.EXITED else None
