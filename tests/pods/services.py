"""Real podman services for the tests: one as this user, and one as an ordinary user that is made when the tests run as root."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from devaipod_web.host import podman_config
from devaipod_web.host.facts import look

AGENT_IMAGE = os.environ.get("DEVAIPOD_TEST_AGENT_IMAGE", "localhost/devaipod-agent:dev")
SIDECAR_IMAGE = os.environ.get("DEVAIPOD_TEST_SIDECAR_IMAGE", "localhost/devaipod-sidecar:dev")
TEST_USER = "devaipod-test"
START_SECONDS = 20
COPY_SECONDS = 180


def need(condition: object, what: str) -> None:
    """Fail (never skip) with what is missing."""
    if not condition:
        pytest.fail(what, pytrace=False)


@contextmanager
def rootful(folder: Path) -> Iterator[Path]:
    """A podman service as root; gives its socket."""
    need(os.geteuid() == 0, "These tests need root: run the suite as root, as `.ci/run` does.")
    socket = folder / "podman.sock"
    env = {**os.environ, **_conf(folder, uid=0)}
    # What the host has in its environment must not reach a container.
    env["HTTPS_PROXY"] = "http://user:secret-of-the-host@proxy.invalid:1"
    need_images(["podman"], env)
    with _served(["podman"], socket, env):
        yield socket


@contextmanager
def rootless(folder: Path) -> Iterator[Path]:
    """A podman service as an ordinary user; gives its socket. Root makes the user `devaipod-test` for it."""
    if os.geteuid() != 0:
        env = {**os.environ, **_conf(folder, uid=os.geteuid())}
        need_images(["podman"], env)
        with _served(["podman"], folder / "podman.sock", env):
            yield folder / "podman.sock"
        return
    user = _test_user()
    # Always the same: podman writes it into its database with the first image that it gets.
    runtime = Path("/run") / TEST_USER
    runtime.mkdir(exist_ok=True)
    # pytest closes its own folders to other users, and another session of it would close them again.
    folder = Path(tempfile.mkdtemp(dir=runtime))
    for inside in (folder, runtime):
        os.chown(inside, user.pw_uid, user.pw_gid)
    env = {
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": user.pw_dir,
        "USER": user.pw_name,
        "LANG": "C.UTF-8",
        "XDG_RUNTIME_DIR": str(runtime),
        # Left alone podman takes vfs here, which copies the whole image for each container.
        "STORAGE_DRIVER": "overlay",
        **_conf(folder, uid=user.pw_uid),
    }
    argv = [
        *("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--init-groups"),
        *("--bounding-set=+all", "--inh-caps=-all", "podman"),
    ]
    _copy_images(argv, env)
    socket = folder / "podman.sock"
    with _served(argv, socket, env):
        yield socket
    _end_pause(runtime, user)
    shutil.rmtree(folder, ignore_errors=True)


def _end_pause(runtime: Path, user: pwd.struct_passwd) -> None:
    """End the process that holds this user's namespaces (every rootless podman leaves one), if it is still theirs."""
    try:
        pid = int((runtime / "libpod" / "tmp" / "pause.pid").read_text())
        if Path(f"/proc/{pid}").stat().st_uid == user.pw_uid:
            os.kill(pid, signal.SIGTERM)
    except (OSError, ValueError):
        return


def _conf(folder: Path, *, uid: int) -> dict[str, str]:
    text = podman_config.document(replace(look(), uid=uid))
    if not text:
        return {}
    path = folder / "containers.conf"
    path.write_text(text)
    path.chmod(0o644)
    return {"CONTAINERS_CONF": str(path)}


@contextmanager
def _served(argv: list[str], socket: Path, env: dict[str, str]) -> Iterator[None]:
    log = socket.with_suffix(".log")
    with log.open("wb") as out:
        service = subprocess.Popen(
            [*argv, "system", "service", "--time=0", f"unix://{socket}"],
            env=env,
            cwd="/",
            stdout=out,
            stderr=out,
        )
    try:
        end = time.monotonic() + START_SECONDS
        while not socket.exists():
            died = service.poll() is not None
            need(
                not died and time.monotonic() < end,
                f"podman's service did not start: {log.read_text()}",
            )
            time.sleep(0.02)
        yield
    finally:
        service.terminate()
        service.wait(20)


def need_images(argv: list[str], env: dict[str, str]) -> None:
    """Fail when the images of this checkout are not in this podman's store."""
    for image in (AGENT_IMAGE, SIDECAR_IMAGE):
        found = subprocess.run(
            [*argv, "image", "exists", image], env=env, capture_output=True, cwd="/"
        )
        need(found.returncode == 0, f"The image {image} is not here: run `make images` first.")


def _test_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(TEST_USER)
    except KeyError:
        subprocess.run(["useradd", "--create-home", TEST_USER], check=True, capture_output=True)
    found = pwd.getpwnam(TEST_USER)
    if TEST_USER not in Path("/etc/subuid").read_text():
        first = 2_000_000
        ranges = [
            f"--add-subuids={first}-{first + 65535}",
            f"--add-subgids={first}-{first + 65535}",
        ]
        subprocess.run(["usermod", *ranges, TEST_USER], check=True, capture_output=True)
    return found


def _copy_images(argv: list[str], env: dict[str, str]) -> None:
    """Load this checkout's images into the other user's store, unless the same are there already."""
    missing = [image for image in (AGENT_IMAGE, SIDECAR_IMAGE) if not _same(argv, env, image)]
    if not missing:
        return
    need(shutil.which("podman"), "podman is not installed: run `make setup`.")
    need_images(["podman"], dict(os.environ))
    save = subprocess.Popen(["podman", "save", "-q", "-m", *missing], stdout=subprocess.PIPE)
    try:
        done = subprocess.run(
            [*argv, "load", "-q"],
            env=env,
            cwd="/",
            stdin=save.stdout,
            capture_output=True,
            text=True,
            timeout=COPY_SECONDS,
        )
        need(done.returncode == 0, f"{TEST_USER} could not load the images: {done.stderr}")
    finally:
        save.kill()
        save.wait()


def _same(argv: list[str], env: dict[str, str], image: str) -> bool:
    ask = ["image", "inspect", "--format", "{{.Id}}", image]
    theirs = subprocess.run([*argv, *ask], env=env, cwd="/", capture_output=True)
    ours = subprocess.run(["podman", *ask], capture_output=True)
    return theirs.returncode == 0 and theirs.stdout == ours.stdout
