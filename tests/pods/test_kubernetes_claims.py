"""Workspaces on claims outlive their pods. DEVAIPOD_TEST_KUBE_STORAGE_CLASS names a class that makes volumes; without one they are folders of
the node, which is this host then."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pods.errors import PodNotFound
from pods.kubernetes import KubernetesBackend
from pods.spec import Placement, VolumeKind
from tests.pods import cluster
from tests.pods.conformance_pods import PodTests
from tests.pods.kit import KUBERNETES, Kit

pytestmark = [pytest.mark.kube, pytest.mark.slow]

VOLUMES = 24
ON_CLAIMS = replace(
    KUBERNETES, kept=frozenset({VolumeKind.WORKSPACE, VolumeKind.HOME, VolumeKind.STATE})
)


@pytest.fixture(scope="module")
def storage() -> Iterator[str]:
    """A storage class of which claims are had."""
    named = os.environ.get("DEVAIPOD_TEST_KUBE_STORAGE_CLASS", "")
    if named:
        yield named
        return
    name = f"devaipod-test-{os.getpid()}"
    folder = Path(tempfile.mkdtemp(prefix="devaipod-kube-volumes-"))
    folder.chmod(0o755)
    for number in range(VOLUMES):
        place = folder / str(number)
        place.mkdir()
        # A folder of a host is handed to nobody.
        place.chmod(0o777)
        document = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"{name}-{number}"},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": name,
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": str(place)},
            },
        }
        cluster.api("POST", "/api/v1/persistentvolumes", document)
    yield name
    for number in range(VOLUMES):
        with contextlib.suppress(PodNotFound):
            cluster.api("DELETE", f"/api/v1/persistentvolumes/{name}-{number}")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    """The namespace of this module and process."""
    cluster.load()
    with cluster.namespace(f"devaipod-kube-claims-{os.getpid()}") as name:
        yield name


@pytest.fixture
async def kit(namespace: str, storage: str, tmp_path: Path) -> AsyncIterator[Kit]:
    """A backend whose pods and claims are gone afterwards."""
    placement = Placement(workspace="pvc", storage_class=storage)
    kit = Kit(None, tmp_path, ON_CLAIMS, is_cluster=True, placement=placement)
    kit.backend = KubernetesBackend(cluster.cluster(namespace, installation=kit.installation))
    yield kit
    await kit.clear()
    await kit.backend.close()


class TestClaims:
    """What of the contract is about volumes."""

    test_kept = PodTests.test_a_workspace_keeps_its_files_and_owners_over_pods
    test_destroyed = PodTests.test_destroy_takes_the_fifos_and_leaves_the_runs_volumes
    test_listed = PodTests.test_volumes_are_found_only_when_every_label_is_theirs
    test_owners = PodTests.test_volumes_belong_to_the_agents_user_from_the_first_moment
