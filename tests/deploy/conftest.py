"""The control plane on the cluster that KUBECONFIG names. No cluster: these tests fail, they are not skipped."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.chromium import launched
from tests.deploy import cluster
from tests.deploy.place import Place, installed


@pytest.fixture(scope="package")
def place() -> Iterator[Place]:
    """One for all tests of this folder: coming up takes half a minute."""
    cluster.check()
    with installed() as made:
        yield made


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium. Not there: the test fails, it is not skipped."""
    with launched() as browser:
        yield browser
