"""An installation of a test's own, apart from the session's."""

from __future__ import annotations

import shutil
import tempfile

import pytest

from devaipod_web import home


@pytest.fixture
def own_home(tmp_path, monkeypatch):
    """A fresh DEVAIPOD_HOME and a short runtime folder; both are gone after the test."""
    runtime = tempfile.mkdtemp(prefix="dvp-", dir="/tmp")
    monkeypatch.setenv("DEVAIPOD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    for name in ("CONTAINERS_CONF", "DEVAIPOD_PODMAN_SOCKET", "DEVAIPOD_PORT"):
        monkeypatch.delenv(name, raising=False)
    home.ensure_home()
    yield tmp_path / "home"
    shutil.rmtree(runtime, ignore_errors=True)


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A PATH that holds only what a test puts there: `programs("podman", "echo podman version 3.4.4")`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def add(name, script=""):
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return add
