"""What goes wrong on a cluster, done to a real one: a watch that is cut, a version too old, pods that others end, no room, no image."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pods.errors import BackendUnavailable, ImageMissing, PodRefused, QuotaExceeded, StartFailed
from pods.kubernetes import KubernetesBackend
from pods.kubernetes_client import KubeClient
from pods.kubernetes_documents import helper_document
from pods.spec import AGENT, LABEL_INSTALLATION, SIDECAR, Phase, Placement, PodSpec, PodState
from tests.pods import cluster
from tests.pods.kit import KUBERNETES, Kit
from tests.pods.services import SIDECAR_IMAGE

pytestmark = [pytest.mark.kube, pytest.mark.slow]


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    """The namespace of this module and process."""
    cluster.load()
    with cluster.namespace(f"devaipod-kube-faults-{os.getpid()}") as name:
        yield name


@pytest.fixture
async def kit(namespace: str, tmp_path: Path) -> AsyncIterator[Kit]:
    """A backend whose pods are gone afterwards."""
    kit = make(namespace, tmp_path)
    yield kit
    await kit.clear()
    await kit.backend.close()


def make(namespace: str, folder: Path, **more: Any) -> Kit:
    """A kit with a backend of its own."""
    kit = Kit(None, folder, KUBERNETES, is_cluster=True)
    kit.backend = KubernetesBackend(
        replace(cluster.cluster(namespace, installation=kit.installation), **more)
    )
    return kit


def backend(kit: Kit) -> KubernetesBackend:
    """The kit's backend as what it is."""
    assert isinstance(kit.backend, KubernetesBackend)
    return kit.backend


@contextlib.asynccontextmanager
async def outside(kit: Kit) -> AsyncIterator[KubeClient]:
    """Somebody else's client of the same namespace."""
    client = KubeClient(backend(kit).cluster)
    try:
        yield client
    finally:
        await client.close()


async def until(kit: Kit, spec: PodSpec, seconds: float, is_so: Any) -> PodState | None:
    """Wait until something is so of the pod."""
    async with asyncio.timeout(seconds):
        while not is_so(state := await kit.backend.pod(spec.name)):
            await asyncio.sleep(0.1)
    return state


class Wire:
    """A TCP connection to the API server that can be cut: everything passes through it as it is."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.is_up = True

    async def __aenter__(self) -> Wire:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        self._server.close()

    def cut(self) -> None:
        """End every connection at once."""
        for writer in self._open:
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.is_up:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection(*self._address)
        self._open |= {writer, back}
        await asyncio.gather(self._copy(reader, back), self._copy(there, writer))
        self._open -= {writer, back}

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


async def test_a_watch_that_is_cut_goes_on_where_it_was_and_nothing_is_missed(
    namespace: str, tmp_path: Path
) -> None:
    text = cluster.kubeconfig()
    async with Wire(cluster.address_of(text)) as wire:
        kit = make(namespace, tmp_path, kubeconfig=cluster.at_port(text, wire.port))
        try:
            spec = kit.spec()
            await kit.up(spec)
            lists = backend(kit).calls["get pods"]
            wire.is_up = False
            wire.cut()
            # While it is away the pod goes; who asks is told that nobody answers, as soon as the picture is stale.
            async with outside(kit) as client:
                client.cluster = cluster.cluster(namespace)
                await client.json(
                    "DELETE", f"{client.pods}/{spec.name}", params={"gracePeriodSeconds": 0}
                )
            await asyncio.sleep(3.5)
            with pytest.raises(BackendUnavailable, match="does not answer"):
                await kit.backend.pod(spec.name)
            wire.is_up = True
            await until(kit, spec, 20, lambda state: state is None)
            watch = backend(kit)._watch
            async with asyncio.timeout(15):
                while not watch.is_fresh:
                    await asyncio.sleep(0.1)
            assert spec.name not in watch.documents
            # It went on from the version that it had: no list beside the calls that waited for it.
            assert backend(kit).calls["get pods"] - lists < 40
        finally:
            wire.is_up = True
            await kit.clear()
            await kit.backend.close()


async def test_a_version_that_is_too_old_is_answered_by_a_list(kit: Kit) -> None:
    spec = kit.spec()
    await kit.up(spec)
    watch = backend(kit)._watch
    watch.documents.pop(spec.name)
    watch._version = "1"
    assert watch._task is not None
    await watch.close()
    async with asyncio.timeout(20):
        while (state := await kit.backend.pod(spec.name)) is None:
            await asyncio.sleep(0.1)
    assert state.running
    assert int(watch._version) > 1


async def test_the_picture_is_read_without_asking(kit: Kit) -> None:
    spec = kit.spec()
    await kit.up(spec)
    before = dict(backend(kit).calls)
    for _ in range(50):
        assert await kit.backend.pod(spec.name) is not None
        assert len(await kit.backend.pods(kit.labels())) == 1
    assert backend(kit).calls == before


async def test_a_pod_that_somebody_else_deletes_is_gone_within_a_moment(kit: Kit) -> None:
    spec = kit.spec()
    await kit.up(spec)
    async with outside(kit) as client:
        await client.json("DELETE", f"{client.pods}/{spec.name}", params={"gracePeriodSeconds": 0})
    await until(kit, spec, 5, lambda state: state is None)
    # Its secret goes with it.
    async with outside(kit) as client, asyncio.timeout(60):
        while (
            await client.json(
                "GET",
                client.of("secrets"),
                params={"labelSelector": f"{LABEL_INSTALLATION}={kit.installation}"},
            )
        )["items"]:
            await asyncio.sleep(0.5)


class Killed(Exception):
    """Stands for the end of the process in the middle of a call."""


@pytest.mark.parametrize("calls", range(3))
async def test_a_creation_killed_after_any_call_is_completed_by_the_next(
    kit: Kit, calls: int
) -> None:
    spec = kit.spec()
    ask, left = backend(kit)._client.json, calls

    async def some(method: str, *args: Any, **more: Any) -> Any:
        nonlocal left
        if method == "POST":
            if left == 0:
                raise Killed
            left -= 1
        return await ask(method, *args, **more)

    backend(kit)._client.json = some  # type: ignore[method-assign]
    with contextlib.suppress(Killed):
        await kit.backend.create_pod(spec)
    backend(kit)._client.json = ask  # type: ignore[method-assign]
    state = await kit.up(spec)
    assert state.containers[AGENT].phase is Phase.RUNNING
    _, token = await kit.sh(spec, "cat /run/devaipod-token/control", container=SIDECAR)
    assert token.startswith("token-of-")


async def test_a_pod_that_no_node_takes_is_told_with_the_schedulers_words_and_removed(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pods.kubernetes_start.UNSCHEDULABLE_SECONDS", 2.0)
    kit.placement = Placement(node_selector={"devaipod.test/no-such": "node"})
    spec = kit.spec()
    said: list[str] = []
    with pytest.raises(QuotaExceeded, match="node") as error:
        await kit.backend.create_pod(spec, lambda progress: said.append(progress.message))
    assert "No node of the cluster takes the pod" in error.value.message
    assert error.value.next_step
    assert any("nodes are available" in text for text in said)
    assert await kit.backend.pod(spec.name) is None


async def test_a_quota_is_told_and_is_the_clusters_capacity(kit: Kit, tmp_path: Path) -> None:
    assert await kit.backend.capacity() is None
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "few"},
        "spec": {"hard": {"pods": "1"}},
    }
    async with outside(kit) as client:
        await client.json("POST", client.of("resourcequotas"), body=quota)
        try:
            async with asyncio.timeout(20):
                while await kit.backend.capacity() != 1:
                    await asyncio.sleep(0.2)
            await kit.up(kit.spec())
            second = kit.spec()
            with pytest.raises(QuotaExceeded, match="exceeded quota: few"):
                await kit.backend.create_pod(second)
            assert await kit.backend.pod(second.name) is None
            assert await kit.backend.capacity() == 1
        finally:
            await client.json("DELETE", f"{client.of('resourcequotas')}/few")


async def test_a_volume_that_outgrows_its_size_ends_the_pod_and_says_so(kit: Kit) -> None:
    spec = kit.spec("head -c 90000000 /dev/zero > big; sleep 1000")
    await kit.up(spec)
    state = await until(kit, spec, 120, lambda found: found is None or found.troubles)
    assert state is not None
    assert [one.code for one in state.troubles] == ["disk-full"]
    assert not state.running
    found = await kit.backend.look(spec.name, tail=5)
    assert found is not None


async def test_the_second_reaper_ends_a_pod_at_its_deadline(kit: Kit) -> None:
    spec = replace(kit.spec(), deadline_seconds=6)
    await kit.up(spec)
    state = await until(kit, spec, 60, lambda found: found is None or found.troubles)
    assert state is not None
    assert [one.code for one in state.troubles] == ["timed-out"]
    assert not state.running


async def test_a_sidecar_whose_image_is_missing_is_told_before_the_agent_begins(kit: Kit) -> None:
    spec = kit.spec()
    spec = replace(spec, sidecar=replace(spec.sidecar, image="localhost/no-sidecar:1"))
    with pytest.raises(ImageMissing, match="localhost/no-sidecar:1"):
        await kit.backend.create_pod(spec)
    assert await kit.backend.pod(spec.name) is None


async def test_an_init_container_that_fails_is_the_sidecars_end(kit: Kit) -> None:
    spec = replace(kit.spec(), prepare=("sh", "-c", "echo no workspace; exit 3"))
    await kit.backend.create_pod(spec)
    state = await kit.until_exited(spec, SIDECAR)
    assert state.containers[SIDECAR].exit_code == 3
    assert [line.text for line in await kit.said(spec, SIDECAR, follow=True)] == [b"no workspace"]
    with pytest.raises(StartFailed):
        await asyncio.wait_for(kit.backend.start(spec.name, AGENT), 30)


async def test_a_log_that_was_rotated_away_is_answered_with_a_gap(kit: Kit) -> None:
    much = "python3 -c \"for n in range(45_000): print(n, 'x' * 999)\""
    spec = kit.spec(
        f"echo first; until [ -e /tmp/go ]; do sleep 0.1; done; {much}; sleep 25; echo last; sleep 1000"
    )
    await kit.up(spec)
    await kit.first(spec, 1)
    (first,) = await kit.said(spec)
    await kit.sh(spec, "touch /tmp/go")
    async with asyncio.timeout(90):
        while [one.text for one in await kit.said(spec, tail=1)] != [b"last"]:
            await asyncio.sleep(2)
    rest = await kit.said(spec, since=first.cursor)
    assert rest[0].gap
    assert not any(one.gap for one in rest[1:])
    assert rest[-1].text == b"last"


async def test_a_followed_log_survives_a_cut_connection(namespace: str, tmp_path: Path) -> None:
    text = cluster.kubeconfig()
    async with Wire(cluster.address_of(text)) as wire:
        kit = make(namespace, tmp_path, kubeconfig=cluster.at_port(text, wire.port))
        try:
            spec = kit.spec("for n in $(seq 60); do echo line $n; sleep 0.1; done")
            await kit.up(spec)
            reading = asyncio.create_task(kit.said(spec, follow=True))
            for _ in range(3):
                await asyncio.sleep(1.2)
                wire.cut()
            lines = await asyncio.wait_for(reading, 40)
            assert [one.text for one in lines] == [b"line %d" % n for n in range(1, 61)]
            assert not any(one.gap for one in lines)
        finally:
            await kit.clear()
            await kit.backend.close()


async def test_pods_see_no_account_of_the_cluster_and_ask_no_names(kit: Kit) -> None:
    spec = replace(kit.spec(), gateway="http://localhost:8080")
    await kit.up(spec)
    _, said = await kit.sh(spec, "ls /var/run/secrets /run/secrets 2>&1; env; cat /etc/resolv.conf")
    assert "serviceaccount" not in said
    assert "nameserver 127.0.0.1" in said
    _, hosts = await kit.sh(spec, "cat /etc/hosts; env", container=SIDECAR)
    assert "DEVAIPOD_GATEWAY=http://localhost:8080" in hosts
    assert "DEVAIPOD_GATEWAY" not in said


async def test_a_gateway_whose_name_has_no_address_is_refused(kit: Kit) -> None:
    with pytest.raises(PodRefused, match=r"gateway\.invalid"):
        await kit.backend.create_pod(replace(kit.spec(), gateway="http://gateway.invalid:1"))


async def test_whether_the_network_is_closed_is_tried(namespace: str, tmp_path: Path) -> None:
    kit = make(namespace, tmp_path, probe_image=SIDECAR_IMAGE)
    try:
        # The network of this suite's cluster enforces nothing; on another one the answer may be another.
        found = await kit.backend.enforces_policies()
        assert found is (os.environ.get("DEVAIPOD_TEST_KUBE_POLICIES") == "enforced")
        before = dict(backend(kit).calls)
        assert await kit.backend.enforces_policies() is found
        assert backend(kit).calls == before
        assert await kit.backend.pods(kit.labels()) == []
    finally:
        await kit.backend.close()


async def test_a_helper_pod_that_lost_its_maker_is_removed(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"devaipod-pull-{secrets.token_hex(5)}"
    document = helper_document(
        name,
        image=SIDECAR_IMAGE,
        argv=["sleep", "1000"],
        labels={LABEL_INSTALLATION: kit.installation},
        seconds=600,
    )
    async with outside(kit) as client:
        await client.json("POST", client.pods, body=document)
    assert await kit.backend.pods(kit.labels()) == []
    await kit.backend.tidy()
    assert await kit.backend.pod(name) is not None  # its maker may be at work
    monkeypatch.setattr("pods.kubernetes_helpers.PULL_SECONDS", -1.0)
    await kit.backend.tidy()
    assert await kit.backend.pod(name) is None


async def test_a_cluster_that_does_not_answer_is_named_with_what_to_do() -> None:
    text = cluster.at_port(cluster.kubeconfig(), 1)
    silent = KubernetesBackend(replace(cluster.cluster("x"), kubeconfig=text))
    for call in (silent.health(), silent.pods({}), silent.pod("x"), silent.volumes({})):
        with pytest.raises(BackendUnavailable, match="The cluster test does not answer") as error:
            await call
        assert error.value.next_step
    await silent.close()
    await silent.close()


async def test_the_version_is_told(kit: Kit) -> None:
    assert (await kit.backend.health()).startswith("v1.")
