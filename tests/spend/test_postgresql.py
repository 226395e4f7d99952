"""Both databases tell the same of the same calls, to the last digit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import servers

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


def told(home: Path, address: str) -> dict[str, Any]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DEVAIPOD")}
    env = {**clean, "DEVAIPOD_HOME": str(home), "DATABASE_URL": address}
    done = subprocess.run(
        [sys.executable, "-m", "tests.spend.told"],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_sqlite_and_postgresql_tell_the_same(tmp_path):
    here = told(tmp_path / "here", "")
    with servers.postgresql() as address:
        there = told(tmp_path / "there", address)
    assert here.keys() == there.keys()
    for name, value in here.items():
        assert there[name] == value, name
    assert here["total"]["calls"] > 500
    assert {here[name] for name in here if name.startswith("/")} == {200}
