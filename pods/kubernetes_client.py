"""The API server of one cluster: raw JSON over the official client, and its refusals as our errors.

Typed models refuse what older servers leave out, so nothing here is one. Every request is counted: what a run costs the API server is
a figure that we keep to.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp

from pods.errors import (
    BackendError,
    BackendUnavailable,
    PodNotFound,
    PodRefused,
    QuotaExceeded,
)
from pods.kubernetes_cluster import Cluster, read_kubeconfig

if TYPE_CHECKING:
    from kubernetes.aio.client.api_client import ApiClient

#: A plain question's answer is awaited for this long.
SECONDS = 20.0
CONNECT_SECONDS = 5.0
MAX_SAID = 1000
#: What an API server answers while it, or what it asks, is not well.
PASSING = frozenset({408, 429, 500, 502, 503, 504})
NEXT_STEP = "Does the cluster run, and is its address reached from here? `devaipod doctor` asks it."
CHANNELS = "v4.channel.k8s.io"


class Conflict(BackendError):
    """An object of that name is there already (409)."""

    code = "conflict"


class Expired(BackendError):
    """The resource version is too old to go on from (410): list again."""

    code = "expired"


class NotReady(BackendError):
    """What was asked for can't be had yet (400): a container that waits has no log."""

    code = "not-ready"


class KubeClient:
    """One cluster's API server. Connects on the first call; for one event loop."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        #: Requests so far, by verb and resource ("get pods", "create pods/exec").
        self.calls: dict[str, int] = {}
        self._api: ApiClient | None = None
        self._lock = asyncio.Lock()

    @property
    def pods(self) -> str:
        """The path of the pods of our namespace."""
        return self.of("pods")

    def of(self, kind: str) -> str:
        """The path of the objects of a kind (plural) in our namespace."""
        return f"/api/v1/namespaces/{self.cluster.namespace}/{kind}"

    async def json(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        seconds: float = SECONDS,
    ) -> Any:
        """One question and its answer. Raises what `to_error` makes of a refusal."""
        async with self._ask(
            method, path, body=body, params=params, content_type=content_type, total=seconds
        ) as answer:
            return json.loads(await answer.read())

    @asynccontextmanager
    async def stream(
        self, path: str, *, params: Mapping[str, Any], silence: float | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A GET whose answer goes on; `silence` is the most seconds between two pieces of it."""
        async with self._ask("GET", path, params=params, silence=silence) as answer:
            yield answer

    async def websocket(
        self, path: str, params: list[tuple[str, str]]
    ) -> aiohttp.ClientWebSocketResponse:
        """A websocket of the API server's, for programs in containers. The caller closes it."""
        api = await self._connected()
        method, url, headers, *_ = await api.param_serialize(
            "GET", path, query_params=params, auth_settings=["BearerToken"]
        )
        self._count(method, path)
        session = self._session(api)
        extra: dict[str, Any] = {}
        if api.configuration.tls_server_name:
            extra["server_hostname"] = api.configuration.tls_server_name
        try:
            async with asyncio.timeout(SECONDS):
                socket: aiohttp.ClientWebSocketResponse = await session.ws_connect(
                    url.replace("http", "ws", 1),
                    headers=headers,
                    protocols=(CHANNELS,),
                    proxy=api.configuration.proxy or None,
                    max_msg_size=0,
                    compress=0,
                    autoclose=False,
                    **extra,
                )
                return socket
        except aiohttp.WSServerHandshakeError as error:
            raise to_error(error.status, error.message.encode(), path=path) from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._away(error) from error

    async def close(self) -> None:
        """Let go of the connections; safe to repeat."""
        api, self._api = self._api, None
        if api is not None:
            await api.close()

    # --- one request --------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _ask(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        total: float | None = None,
        silence: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        api = await self._connected()
        verb, url, headers, sent, _ = await api.param_serialize(
            method,
            path,
            query_params=[(key, value) for key, value in (params or {}).items()],
            header_params={"Accept": "application/json", "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        self._count(method, path)
        timeout = aiohttp.ClientTimeout(
            total=total, sock_connect=CONNECT_SECONDS, sock_read=silence
        )
        try:
            found = await api.call_api(
                verb, url, headers, sent, _request_timeout=timeout, _preload_content=False
            )
            answer: aiohttp.ClientResponse = found.response
            try:
                if answer.status >= 400:
                    raise to_error(answer.status, await answer.read(), path=path)
                yield answer
            finally:
                answer.close()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._away(error) from error

    def _away(self, error: Exception) -> BackendUnavailable:
        said = str(error) or type(error).__name__
        return BackendUnavailable(
            f"The cluster {self.cluster.name} does not answer: {said[:300]}", next_step=NEXT_STEP
        )

    def _count(self, method: str, path: str) -> None:
        parts = path.partition("/namespaces/")[2].split("/")[1:]
        what = "/".join([*parts[:1], *parts[2:]]) or path.strip("/")
        name = f"{method.lower()} {what}"
        self.calls[name] = self.calls.get(name, 0) + 1

    def _session(self, api: ApiClient) -> aiohttp.ClientSession:
        rest = api.rest_client
        if rest.pool_manager is None:
            rest.pool_manager = rest._create_pool_manager()
        return rest.pool_manager

    async def _connected(self) -> ApiClient:
        async with self._lock:
            if self._api is None:
                self._api = await _connect(self.cluster)
            return self._api


async def _connect(cluster: Cluster) -> ApiClient:
    # Half a second of imports, which installations without a cluster need not spend.
    from kubernetes.aio import config
    from kubernetes.aio.client.api_client import ApiClient
    from kubernetes.aio.client.configuration import Configuration

    configuration = Configuration()
    try:
        if cluster.kubeconfig:
            document = read_kubeconfig(cluster.kubeconfig)
            await config.load_kube_config_from_dict(
                document, context=cluster.context or None, client_configuration=configuration
            )
        else:
            config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException as error:
        raise BackendUnavailable(
            f"The cluster {cluster.name} can't be reached with what is known of it: {error}",
            next_step="Give it a kubeconfig whose context names a cluster and a user.",
        ) from error
    # One connection for each log that is followed; a limit would stop them all in silence.
    configuration.connection_pool_maxsize = 0
    return ApiClient(configuration)


def to_error(status: int, body: bytes, *, path: str = "") -> BackendError:
    """What an API server's refusal is to us. `body` is a Status object, or any text."""
    said, reason = _said(body)
    low = said.lower()
    if status == 404:
        return PodNotFound(said or f"{path} is not there.")
    if status == 409 and reason == "AlreadyExists":
        return Conflict(said)
    if status == 410:
        return Expired(said)
    if status == 400:
        return NotReady(said)
    if status == 403 and ("exceeded quota" in low or "forbidden: maximum" in low):
        return QuotaExceeded(
            f"The cluster's quota is used up: {said}",
            next_step="End other runs, or have the namespace's ResourceQuota raised.",
        )
    if status == 403 and ("podsecurity" in low or "admission" in low):
        return PodRefused(
            said, next_step="The namespace must admit pods of the `restricted` level."
        )
    if status in (401, 403):
        return BackendUnavailable(
            f"The cluster refused us: {said or status}",
            next_step="Check the target's kubeconfig and the rights of its user (deploy/kubernetes names them).",
        )
    if status in PASSING or status == 409:
        return BackendUnavailable(f"The cluster answered {status}: {said}", next_step=NEXT_STEP)
    return PodRefused(f"The cluster refused the pod: {said or status}")


def _said(body: bytes) -> tuple[str, str]:
    """(message, reason) of a Status object, or of whatever else a server or a proxy before it says."""
    try:
        status = json.loads(body)
        return str(status.get("message", ""))[:MAX_SAID], str(status.get("reason", ""))
    except (ValueError, AttributeError):
        return body.decode("utf-8", "replace").strip()[:MAX_SAID], ""
