"""Rootful podman keeps the contract, and what only it can give: hard bounds on disks."""

from __future__ import annotations

import asyncio
import contextlib
import socket as line
import struct
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from devaipod_web.host.facts import podman_version
from pods import podman_api_logs, podman_images
from pods.errors import BackendUnavailable, PodNotFound, PodRefused
from pods.podman import PodmanBackend
from pods.spec import AGENT, SIDECAR
from tests.pods import services
from tests.pods.conformance import Conformance
from tests.pods.kit import PODMAN, Kit

pytestmark = [pytest.mark.podman, pytest.mark.slow]


@pytest.fixture(scope="module")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The service of this module."""
    with services.rootful(tmp_path_factory.mktemp("rootful")) as path:
        yield path


@pytest.fixture
async def kit(socket: Path, tmp_path: Path) -> AsyncIterator[Kit]:
    """A backend whose pods and volumes are gone afterwards."""
    backend = PodmanBackend(socket, installation="test", volumes_dir=tmp_path / "volumes")
    kit = Kit(backend, tmp_path / "files", PODMAN)
    kit.folder.mkdir()
    yield kit
    await kit.clear()
    await backend.close()


class TestRootful(Conformance):
    """The contract."""


@pytest.mark.parametrize("user", ["0", "root", "00", "0:0", "000:1000"])
async def test_root_is_refused_for_the_agent_under_every_spelling(kit: Kit, user: str) -> None:
    with pytest.raises(PodRefused, match="root"):
        await kit.backend.create_pod(kit.spec(user=user))
    assert await kit.backend.pods(kit.labels()) == []


class Killed(Exception):
    """Stands for the end of the process in the middle of a call."""


@pytest.mark.parametrize("calls", range(1, 12))
async def test_a_creation_killed_after_any_call_is_completed_by_the_next(
    kit: Kit, calls: int
) -> None:
    spec = kit.spec("stat -c %u /home/agent; touch /home/agent/mine; sleep 60")
    backend = kit.backend
    assert isinstance(backend, PodmanBackend)
    await backend.image(spec.agent.image)
    await backend.image(spec.sidecar.image)
    post, left = backend._client.post, calls

    async def some(*args: Any, **kwargs: Any) -> Any:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        return await post(*args, **kwargs)

    backend._client.post = some  # type: ignore[method-assign]
    with contextlib.suppress(Killed):
        await kit.up(spec)
    backend._client.post = post  # type: ignore[method-assign]
    state = await kit.up(spec)
    assert set(state.containers) == {AGENT, SIDECAR}
    assert state.running
    assert await kit.first(spec, 1) == [b"1000"]
    assert set(await backend.volumes(kit.labels())) == {volume.name for volume in spec.volumes}


async def test_a_log_whose_file_is_closed_to_us_comes_over_the_api(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root reads every file: only the answer to "may we read it" is another here.
    monkeypatch.setattr(podman_api_logs, "readable", lambda path: False)
    spec = kit.spec("seq 1 500; echo wrong >&2; sleep 1.2; seq 501 600")
    await kit.up(spec)
    lines = await asyncio.wait_for(kit.said(spec, follow=True), 30)
    numbers = [line.text for line in lines if line.stream == "stdout"]
    assert numbers == [b"%d" % n for n in range(1, 601)]
    assert [line.text for line in lines if line.stream == "stderr"] == [b"wrong"]
    for place in (0, 300, 500, 550, 600):
        assert await kit.said(spec, since=lines[place].cursor) == lines[place + 1 :]
    assert await kit.said(spec, tail=5) == lines[-5:]
    with pytest.raises(PodNotFound):
        await kit.said(kit.spec(), follow=True)


async def test_no_call_holds_up_the_event_loop(kit: Kit) -> None:
    worst, stop = 0.0, False

    async def beat() -> None:
        nonlocal worst
        while not stop:
            began = time.perf_counter()
            await asyncio.sleep(0.005)
            worst = max(worst, time.perf_counter() - began - 0.005)

    beating = asyncio.create_task(beat())
    spec = kit.spec("seq 1 5000; sleep 60")
    await kit.up(spec)
    await kit.said(spec)
    await kit.backend.stop(spec.name, grace_seconds=1)
    await kit.backend.destroy(spec.name)
    stop = True
    await beating
    assert worst < 0.15


async def test_a_pod_with_its_agent_is_there_within_a_second_or_so(kit: Kit) -> None:
    await kit.up(kit.spec())
    took = []
    for _ in range(3):
        spec = kit.spec()
        began = time.monotonic()
        await kit.up(spec)
        took.append(time.monotonic() - began)
        await kit.backend.destroy(spec.name)
    assert min(took) < 2.5, took


async def test_more_volumes_than_the_host_had_loop_devices_can_be_mounted(kit: Kit) -> None:
    specs = [kit.spec() for _ in range(4)]
    for spec in specs:
        await kit.up(spec)
    for spec in specs:
        _, said = await kit.sh(spec, "grep -c loop /proc/mounts")
        assert int(said) == 2


async def test_a_look_at_its_health_starts_no_process_on_its_side(kit: Kit, socket: Path) -> None:
    """It is looked at every few seconds for as long as a server runs."""
    with line.socket(line.AF_UNIX) as asked:
        asked.connect(str(socket))
        peer = asked.getsockopt(line.SOL_SOCKET, line.SO_PEERCRED, struct.calcsize("3i"))
    service = psutil.Process(struct.unpack("3i", peer)[0])
    before = service.cpu_times()
    versions = {await kit.backend.health() for _ in range(5)}
    after = service.cpu_times()
    assert after.children_user + after.children_system == pytest.approx(
        before.children_user + before.children_system, abs=0.05
    )
    assert versions == {".".join(map(str, podman_version("podman")))}


async def test_a_silent_service_is_named_with_what_to_do(tmp_path: Path) -> None:
    backend = PodmanBackend(tmp_path / "none.sock", installation="test", volumes_dir=tmp_path)
    for call in (backend.health(), backend.pods({}), backend.pod("x"), backend.destroy("x")):
        with pytest.raises(BackendUnavailable, match=r"none\.sock does not answer") as error:
            await call
        assert "podman system service" in error.value.next_step
    await backend.close()
    await backend.close()


async def test_what_a_killed_look_into_an_image_left_behind_is_removed(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = kit.backend
    assert isinstance(backend, PodmanBackend)
    document = {
        "image": services.AGENT_IMAGE,
        "command": ["none"],
        "labels": {podman_images.LABEL_LOOK: "1"},
    }
    made = (await backend._client.post("/containers/create", document))["Id"]
    await backend.tidy()
    assert await backend._client.get(f"/containers/{made}/json")  # its maker may be at work
    monkeypatch.setattr(podman_images, "LOOK_AGE", timedelta())
    await backend.tidy()
    with pytest.raises(PodNotFound):
        await backend._client.get(f"/containers/{made}/json")
