"""Rootless podman keeps the contract, and says on each pod what it cannot give."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from devaipod_web.host.facts import look
from pods.podman import PodmanBackend
from tests.pods import services
from tests.pods.conformance import Conformance
from tests.pods.kit import ROOTLESS, Kit

pytestmark = [pytest.mark.podman, pytest.mark.slow]


@pytest.fixture(scope="module")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The service of this module."""
    with services.rootless(tmp_path_factory.mktemp("rootless")) as path:
        yield path


@pytest.fixture
async def kit(socket: Path, tmp_path: Path) -> AsyncIterator[Kit]:
    """A backend whose pods and volumes are gone afterwards."""
    backend = PodmanBackend(socket, installation="test", volumes_dir=tmp_path / "volumes")
    files = socket.parent / f"files-{tmp_path.name}"
    files.mkdir()
    kit = Kit(backend, files, replace(ROOTLESS, cgroup_limits=look().cgroups == "v2"))
    yield kit
    await kit.clear()
    await backend.close()


class TestRootless(Conformance):
    """The contract."""
