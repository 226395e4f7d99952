"""podman's API through podman-py's client, in threads of its own, with its errors turned into ours."""

from __future__ import annotations

import asyncio
import functools
import http.client
import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import requests
from podman.api.client import APIClient
from podman.errors import APIError

from pods.errors import (
    BackendError,
    BackendUnavailable,
    ImageMissing,
    PodNotFound,
    PullRefused,
    QuotaExceeded,
    StartFailed,
)
from pods.podman_http import UnixConnection

T = TypeVar("T")

#: What each answer to a ping names podman's version in (https://docs.podman.io/en/latest/_static/api.html, SystemPing).
VERSION_HEADER = "Libpod-API-Version"

THREADS = 16
CONNECT_SECONDS = 5
CALL_SECONDS = 60
NEXT_STEP = "Start podman's API service: `devaipod restart podman`, or `podman system service --time=0 unix://PATH`."
#: What says that podman did not answer in time.
SLOW = (requests.ReadTimeout, TimeoutError)


class PodmanClient:
    """Calls to one podman service. Every call runs in a thread of this client's own and never blocks the event loop."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="podman")
        self._local = threading.local()

    async def run(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run blocking work in one of the threads."""
        call = functools.partial(fn, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def version(self) -> str:
        """podman's version, from a ping: `/version` starts several programs to tell theirs too: 0.4 s of processor time."""
        answer = await self.run(self.open, "GET", "/_ping")
        return str(answer.headers.get(VERSION_HEADER, ""))

    async def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """GET below /libpod and return the JSON. Raises the errors of `pods.errors`."""
        return await self.run(self.call, "GET", path, params=params)

    async def post(
        self,
        path: str,
        body: Any = None,
        params: Mapping[str, Any] | None = None,
        timeout: float = CALL_SECONDS,
    ) -> Any:
        """POST below /libpod and return the JSON, or None for an empty answer."""
        return await self.run(self.call, "POST", path, body=body, params=params, timeout=timeout)

    async def delete(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """DELETE below /libpod."""
        return await self.run(self.call, "DELETE", path, params=params)

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, Any] | None = None,
        timeout: float = CALL_SECONDS,
    ) -> Any:
        """One call, in the present thread; see `get`."""
        if method == "GET" and body is None:
            return self._ask(path, params, timeout=timeout)
        answer = self.open(method, path, body=body, params=params, timeout=timeout)
        text = answer.content
        return json.loads(text) if text else None

    def _ask(self, path: str, params: Mapping[str, Any] | None, *, timeout: float) -> Any:
        try:
            status, text = self._line().ask(path, params, seconds=timeout)
        except (OSError, http.client.HTTPException) as error:
            raise self.gone(error) from error
        if status >= 400:
            raise to_error(status, text)
        return json.loads(text) if text else None

    def _line(self) -> UnixConnection:
        if not hasattr(self._local, "line"):
            self._local.line = UnixConnection(self.socket, connect_seconds=CONNECT_SECONDS)
        line: UnixConnection = self._local.line
        return line

    def open(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, Any] | None = None,
        timeout: float | None = CALL_SECONDS,
        stream: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """One call whose answer is read by the caller. Raises the errors of `pods.errors`."""
        options: dict[str, Any] = {
            "params": params,
            "timeout": (CONNECT_SECONDS, timeout),
            "stream": stream,
            "headers": dict(headers or {}),
        }
        if body is not None:
            options["data"] = json.dumps(body)
            options["headers"]["Content-Type"] = "application/json"
        try:
            answer = getattr(self._api(), method.lower())(path, **options)
        except (requests.ConnectionError, requests.Timeout, APIError, OSError) as error:
            raise self.gone(error) from error
        if answer.status_code >= 400:
            raise to_error(answer.status_code, answer.content)
        return answer

    def _api(self) -> Any:
        # requests' sessions are not safe across threads.
        if not hasattr(self._local, "api"):
            self._local.api = APIClient(base_url=f"unix://{self.socket}", timeout=CALL_SECONDS)
        return self._local.api

    def gone(self, error: BaseException) -> BackendUnavailable:
        """What to say when the service does not answer."""
        slow = isinstance(error, SLOW)
        what = "did not answer in time" if slow else "does not answer"
        return BackendUnavailable(
            f"podman's API service at {self.socket} {what} ({type(error).__name__}).",
            next_step=NEXT_STEP,
        )

    async def close(self) -> None:
        """Let the threads go."""
        self._threads.shutdown(wait=False, cancel_futures=True)


#: Words in podman's messages → the error they mean, first match wins.
WORDS: list[tuple[str, type[BackendError], str]] = [
    ("no space left", QuotaExceeded, "Free disk space, then prompt the run again."),
    ("disk quota exceeded", QuotaExceeded, "Free disk space, then prompt the run again."),
    ("cannot allocate memory", QuotaExceeded, "Free memory, or lower the project's memory limit."),
    (
        "resource temporarily unavailable",
        QuotaExceeded,
        "Too many processes: raise nproc in containers.conf.",
    ),
    (
        "failed to setup loop device",
        QuotaExceeded,
        "All of this host's loop devices are taken: end a run, or load the kernel's loop module with more of them.",
    ),
    ("oci runtime", StartFailed, "`devaipod doctor` says what this host lacks."),
    ("runc", StartFailed, "`devaipod doctor` says what this host lacks."),
    ("crun", StartFailed, "`devaipod doctor` says what this host lacks."),
    ("state improper", StartFailed, "Its container does not run."),
    ("unauthorized", PullRefused, "Give the project a credential for this registry."),
    ("authentication required", PullRefused, "Give the project a credential for this registry."),
    (
        "denied",
        PullRefused,
        "Check the image's name and the project's credential for its registry.",
    ),
    ("no such image", ImageMissing, "Check the image's name, or build it on this host."),
    ("image not known", ImageMissing, "Check the image's name, or build it on this host."),
    ("manifest unknown", ImageMissing, "Check the image's name and tag."),
    ("no such pod", PodNotFound, ""),
    ("no such container", PodNotFound, ""),
    ("no container with name", PodNotFound, ""),
    ("no such volume", PodNotFound, ""),
]


def to_error(status: int, body: bytes) -> BackendError:
    """The error of our tree for an answer of podman's, with podman's own words (at most 600 characters)."""
    try:
        answer = json.loads(body)
        said = str(answer.get("message") or answer.get("cause") or answer)
    except (ValueError, AttributeError):
        said = body.decode("utf-8", "replace")
    said = " ".join(said.split())[:600]
    low = said.lower()
    for words, kind, next_step in WORDS:
        if words in low:
            return kind(f"podman: {said}", next_step=next_step)
    if status == 404:
        return PodNotFound(f"podman: {said}")
    return BackendError(
        f"podman answered {status}: {said}", next_step="`devaipod doctor` checks this host."
    )
