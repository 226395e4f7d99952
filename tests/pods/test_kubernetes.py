"""A cluster keeps the contract. The cluster is the one that KUBECONFIG names."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pods.kubernetes import KubernetesBackend
from tests.pods import cluster
from tests.pods.conformance import Conformance
from tests.pods.kit import KUBERNETES, Kit

pytestmark = [pytest.mark.kube, pytest.mark.slow]


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    """The namespace of this module and process."""
    cluster.load()
    with cluster.namespace(f"devaipod-kube-{os.getpid()}") as name:
        yield name


@pytest.fixture
async def kit(namespace: str, tmp_path: Path) -> AsyncIterator[Kit]:
    """A backend whose pods are gone afterwards."""
    kit = Kit(None, tmp_path, KUBERNETES, is_cluster=True)
    kit.backend = KubernetesBackend(cluster.cluster(namespace, installation=kit.installation))
    yield kit
    await kit.clear()
    await kit.backend.close()


class TestKubernetes(Conformance):
    """The contract."""
