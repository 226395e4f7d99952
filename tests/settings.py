"""The product's settings with an installation of the test session's own.

`DEVAIPOD_HOME` must be set before the settings are read, and pytest-django reads them before any conftest: hence a module.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

# Children (a server that a test starts) inherit the names and share this installation; each worker of xdist, which
# inherits them from the session too, gets one of its own.
worker = os.environ.get("PYTEST_XDIST_WORKER", "")
if not os.environ.get("DEVAIPOD_TEST_HOME") or worker != os.environ["DEVAIPOD_TEST_HOME_WORKER"]:
    os.environ["DEVAIPOD_TEST_HOME"] = tempfile.mkdtemp(prefix="devaipod-test-")
    os.environ["DEVAIPOD_TEST_HOME_OWNER"] = str(os.getpid())
    os.environ["DEVAIPOD_TEST_HOME_WORKER"] = worker
os.environ["DEVAIPOD_HOME"] = os.environ["DEVAIPOD_TEST_HOME"]
for name in ("DATABASE_URL", "REDIS_URL", "DEVAIPOD_TOKEN", "DEVAIPOD_URL"):
    os.environ.pop(name, None)
# Of the session that tests/runs/test_pause_postgresql.py starts: the same tests on another database.
if os.environ.get("DEVAIPOD_TEST_DATABASE_URL"):
    os.environ["DATABASE_URL"] = os.environ["DEVAIPOD_TEST_DATABASE_URL"]

from devaipod_web.settings import *  # noqa: E402, F403


def _remove() -> None:
    if os.environ.get("DEVAIPOD_TEST_HOME_OWNER") != str(os.getpid()):
        return
    from devaipod_web import home

    shutil.rmtree(home.runtime_dir(), ignore_errors=True)
    shutil.rmtree(Path(os.environ["DEVAIPOD_TEST_HOME"]), ignore_errors=True)


atexit.register(_remove)

#: Quick hashes: the tests sign in hundreds of times, and none of their passwords is anybody's.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
