"""An ordinary user's podman service; root makes that user for the test and removes it again."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = [pytest.mark.podman]

#: What `up` and `down` do with the service, three times, without anything else of theirs.
SCRIPT = """
from devaipod_web import home
from devaipod_web.host import podman_config, podman_service
from devaipod_web.host.facts import look

home.ensure_home()
podman_config.write(look())
print(podman_config.choose_storage(look()) or "podman's own choice")
for _ in range(3):
    print(podman_service.ensure(), podman_service.answers(home.podman_socket()), podman_service.stop())
"""


@pytest.fixture
def ordinary_user():
    assert os.geteuid() == 0, "this test makes a user: run the suite as root"
    name = f"devaipod-host-{os.getpid()}"
    subprocess.run(["useradd", "--create-home", name], check=True, capture_output=True)
    user = pwd.getpwnam(name)
    runtime = Path("/run") / name
    runtime.mkdir(mode=0o700)
    shutil.chown(runtime, user.pw_uid, user.pw_gid)
    try:
        yield user, runtime
    finally:
        for process in processes(user.pw_uid):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.2)
        subprocess.run(["userdel", "--remove", "--force", name], check=False, capture_output=True)
        shutil.rmtree(runtime, ignore_errors=True)


def processes(uid, word=b""):
    """Ids of a user's processes that have `word` in their command line (a zombie has none)."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid == uid:
                command = (entry / "cmdline").read_bytes()
                if command and word in command:
                    found.append(int(entry.name))
    return found


def test_the_service_of_an_ordinary_user_ends_with_everything_that_it_started(ordinary_user):
    user, runtime = ordinary_user
    env = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": user.pw_dir,
        "XDG_RUNTIME_DIR": str(runtime),
        "DEVAIPOD_HOME": f"{user.pw_dir}/var",
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    python = shutil.which("python3", path="/usr/bin:/bin")
    assert python, "a Python that another user may run is needed: apt-get install python3"
    done = subprocess.run(
        [python, "-c", SCRIPT],
        env=env,
        cwd="/",
        user=user.pw_uid,
        group=user.pw_gid,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:] == ["True True True"] * 3
    # Rootless podman runs twice, and the second process outlived a stop that knew of the first alone.
    assert processes(user.pw_uid, b"service") == []
