"""The control plane on a host that no pod can reach drives a real cluster: sidecars come through the forward that it keeps open."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pods.kubernetes_client import KubeClient
from pods.kubernetes_cluster import Cluster
from pods.sidecar.mux import SILENCE_SECONDS
from tests.e2e.installation import Installation, installed, make_upstream
from tests.pods.kube_relay_kit import account_kubeconfig, kubeconfig, load, namespace
from tests.pods.services import AGENT_IMAGE, SIDECAR_IMAGE

pytestmark = [pytest.mark.kube, pytest.mark.podman, pytest.mark.slow]

#: A kubelet brings a changed ConfigMap into its pods within about so long.
MOVED_SECONDS = 180


@pytest.fixture(scope="module")
def account() -> Iterator[tuple[str, str]]:
    """A namespace of the cluster, and the kubeconfig of deploy/hybrid's account, which has rights in it alone."""
    load(SIDECAR_IMAGE)
    load(AGENT_IMAGE)
    with asyncio.Runner() as runner:
        made = namespace("devaipod-hybrid-e2e")
        client = runner.run(made.__aenter__())
        yield client.cluster.namespace, runner.run(account_kubeconfig(client))
        runner.run(made.__aexit__(None, None, None))


@pytest.fixture(scope="module")
def agents(account: tuple[str, str]) -> str:
    """The namespace."""
    return account[0]


@pytest.fixture(scope="module")
def place(account: tuple[str, str]) -> Iterator[Installation]:
    """An installation without a port for pods, with the cluster as a target and a project whose runs go there."""
    agents, credential = account
    folder = Path(tempfile.mkdtemp(prefix="devaipod-hybrid-"))
    upstream = make_upstream(folder / "forge")
    with installed(
        folder / "home",
        DEVAIPOD_SIDECAR_IMAGE=SIDECAR_IMAGE,
        DEVAIPOD_AGENT_IMAGE=AGENT_IMAGE,
        DEVAIPOD_GATEWAY_LISTEN="",
        DEVAIPOD_KEEP_WARM_SECONDS="2",
    ) as made:
        target = {"name": "lab", "namespace": agents, "kubeconfig": credential}
        made.api("POST", "/targets", {**target, "gateway_mode": "relay"})
        project = {"slug": "sample", "name": "Sample", "upstream_url": str(upstream)}
        more = {"targets": ["lab"], "permission_policy": "allow"}
        made.api("POST", "/projects", {**project, **more})
        yield made
        assert ask(agents, "GET", "pods")["items"]  # the relay, which the installation's end leaves
    shutil.rmtree(folder, ignore_errors=True)


def ask(agents: str, method: str, path: str, body: Any = None) -> Any:
    """One question to the API server about the namespace."""

    async def asked() -> Any:
        client = KubeClient(Cluster("test", "test", agents, kubeconfig()))
        try:
            return await client.json(method, client.of(path), body=body)
        finally:
            await client.close()

    return asyncio.run(asked())


def launch(place: Installation, task: str) -> str:
    key: str = place.api("POST", "/runs", {"project": "sample", "task": task})["key"]
    return key


def whole(place: Installation, key: str) -> list[str]:
    """Every event once, in order, without a gap; returns their kinds."""
    events = place.events(key)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    return [event["kind"] for event in events]


def relay(place: Installation) -> dict[str, Any]:
    """The relay's service, as the page Services shows it."""
    rows = place.api("GET", "/services")
    rows = rows["results"] if isinstance(rows, dict) else rows
    found = [row for row in rows if row["name"].startswith("relay-")]
    return found[0] if found else {"health": "", "says": ""}


def test_a_run_on_the_cluster_comes_to_an_open_review(place: Installation, agents: str):
    key = launch(place, "Explain the retries.")
    run = place.wait_for_state(key, "succeeded", seconds=240)
    assert run["target"] == "lab"
    kinds = whole(place, key)
    assert kinds.count("work.staged") == 1
    assert place.api("GET", "/reviews?state=open")["results"]
    service = relay(place)
    assert service["health"] == "ok"
    assert "is open" in service["says"]
    # Nothing of it listens where a pod could dial.
    assert not any(row["name"] == "gateway-port" for row in place.api("GET", "/services"))


def test_the_server_is_killed_in_the_middle_and_the_run_goes_on(place: Installation):
    key = launch(place, "Explain the retries again.\ndemo: sleep 8")
    place.wait_for_event(key, "tool_call", seconds=120)
    place.kill9()
    time.sleep(4)
    place.start()
    run = place.wait_for_state(key, "succeeded", seconds=180)
    assert run["attempts"] == 1
    assert whole(place, key).count("turn.ended") == 1


def test_the_laptop_sleeps_in_the_middle_and_the_run_goes_on(place: Installation):
    key = launch(place, "Explain the back-off.\ndemo: sleep 8")
    place.wait_for_event(key, "tool_call", seconds=120)
    assert place.server is not None
    os.killpg(place.server.pid, signal.SIGSTOP)
    time.sleep(SILENCE_SECONDS + 10)  # the relay has given the forward up
    os.killpg(place.server.pid, signal.SIGCONT)
    run = place.wait_for_state(key, "succeeded", seconds=120)
    assert run["attempts"] == 1
    assert whole(place, key).count("turn.ended") == 1


def test_the_relay_is_lost_in_the_middle_and_the_run_finds_the_new_one(
    place: Installation, agents: str
):
    key = launch(place, "Explain the time-outs.\ndemo: sleep 8")
    place.wait_for_event(key, "tool_call", seconds=120)
    (name,) = (
        pod["metadata"]["name"]
        for pod in ask(agents, "GET", "pods")["items"]
        if pod["metadata"]["name"].startswith("devaipod-relay-")
    )
    ask(agents, "DELETE", f"pods/{name}", {"gracePeriodSeconds": 0})
    run = place.wait_for_state(key, "succeeded", seconds=MOVED_SECONDS + 60)
    assert run["attempts"] == 1
    assert whole(place, key).count("turn.ended") == 1
    assert relay(place)["health"] == "ok"


def test_a_target_that_needs_no_relay_any_more_has_none(place: Installation, agents: str):
    place.api(
        "PATCH", "/targets/lab", {"gateway_mode": "direct", "gateway_address": "http://10.0.0.9:80"}
    )
    place.wait(
        lambda: (
            not any(
                pod["metadata"]["name"].startswith("devaipod-relay-")
                for pod in ask(agents, "GET", "pods")["items"]
            )
        ),
        60,
        "the relay to be removed",
    )
    place.api("PATCH", "/targets/lab", {"gateway_mode": "relay", "gateway_address": ""})
    place.wait(lambda: relay(place)["health"] == "ok", 60, "the relay to be made again")
