"""A served installation on real podman, with a project and nothing else, for programs that drive it from outside."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.installation import Installation, installed, make_upstream

PROJECT = "shop"


@pytest.fixture(scope="module")
def place() -> Iterator[Installation]:
    folder = Path(tempfile.mkdtemp(prefix="devaipod-orch-"))
    with installed(folder / "home", DEVAIPOD_MAX_RUNS="8") as made:
        upstream = make_upstream(folder / "shop")
        body = {"name": PROJECT, "upstream_url": str(upstream), "permission_policy": "allow"}
        made.api("POST", "/projects", body)
        yield made
    shutil.rmtree(folder, ignore_errors=True)
