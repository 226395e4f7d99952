"""The services of pausing on PostgreSQL: the same tests, in a session of their own on a real server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import servers

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("tests/runs/test_pause.py", "tests/budgets/test_pause.py")


def test_pausing_and_going_on_hold_on_postgresql_too():
    with servers.postgresql() as address:
        words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *MODULES]
        hidden = ("DEVAIPOD_TEST_HOME", "PYTEST_XDIST_WORKER", "PYTEST_ADDOPTS")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
        done = subprocess.run(
            words,
            cwd=ROOT,
            env={**environment, "DEVAIPOD_TEST_DATABASE_URL": address},
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "passed" in done.stdout
