"""The checkout's own Python environment, `.venv`, from the pinned lock file."""

from __future__ import annotations

import hashlib
import os
import sys
import tomllib
from pathlib import Path

from devaipod_web import __version__
from devaipod_web.home import ROOT
from devaipod_web.host.errors import CommandFailed, HostError, PackagesMissing
from devaipod_web.host.process import follow
from devaipod_web.host.terminal import Terminal

VENV = ROOT / ".venv"
LOCK, DEV_LOCK = ROOT / "requirements.lock", ROOT / "requirements-dev.lock"
INSTALL_SECONDS = 900.0


def program() -> Path:
    """The environment's Python."""
    return VENV / "bin" / "python"


def ensure_venv(*, say: Terminal, dev: bool = False) -> Path:
    """Make `.venv` and install exactly what the lock file pins; nothing when it is so already.

    `dev` adds what tests and checks need. Returns the environment's Python. Raises HostError with pip's last lines.
    """
    lock = DEV_LOCK if dev else LOCK
    if not program().exists():
        _make(say)
    if _stamped(lock) or (not dev and _stamped(DEV_LOCK)):
        return program()
    with say.step(f"installing Python packages ({lock.name})") as step:
        pip = [str(program()), "-m", "pip", "install", "--disable-pip-version-check"]
        # pip fetches and installs in one go; nearly all of it is the fetching.
        step.downloading(True)
        follow(
            [*pip, "--progress-bar=off", "--requirement", str(lock)],
            step=step,
            timeout=INSTALL_SECONDS,
        )
        step.downloading(False)
        follow(
            [*pip, "--quiet", "--no-deps", "--editable", str(ROOT)],
            step=step,
            timeout=INSTALL_SECONDS,
        )
    _stamp(lock).write_text(_fingerprint(lock))
    return program()


def enter(arguments: list[str]) -> None:
    """Go on as the environment's Python, with the same arguments; returns when this is that one already."""
    if Path(sys.prefix).resolve() == VENV.resolve():
        return
    sys.stdout.flush()
    os.chdir(ROOT)
    os.execv(program(), [str(program()), "-m", "devaipod_web.host", *arguments])  # noqa: S606 - our own interpreter


def _make(say: Terminal) -> None:
    try:
        import ensurepip  # noqa: F401 - Debian splits it off into python3-venv
    except ImportError:
        _add_venv_package(say)
    with say.step("making .venv") as step:
        follow([sys.executable, "-m", "venv", str(VENV)], step=step, timeout=120)


def _add_venv_package(say: Terminal) -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    package = f"python{version}-venv"
    if os.geteuid() != 0:
        raise PackagesMissing(
            f"Python {version} here has no venv. Run this once, then start again:\n"
            f"  Debian, Ubuntu:  sudo apt-get install -y {package}\n"
            "  Fedora:          sudo dnf install -y python3"
        )
    with say.step(f"installing {package}") as step:
        step.downloading(True)
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        try:
            follow(["apt-get", "-q", "update"], step=step, timeout=300, env=env)
            follow(["apt-get", "-q", "install", "-y", package], step=step, timeout=300, env=env)
        except CommandFailed as error:
            raise HostError(f"{package} could not be installed: {error}") from error


def _stamp(lock: Path) -> Path:
    return VENV / f".devaipod-{lock.stem}"


def _stamped(lock: Path) -> bool:
    try:
        return _stamp(lock).read_text() == _fingerprint(lock)
    except OSError:
        return False


def _fingerprint(lock: Path) -> str:
    """What the environment was made from: the lock, the project's entry points, and which Python it is."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = hashlib.sha256(lock.read_bytes())
    found.update(repr((__version__, project.get("scripts"))).encode())
    found.update((VENV / "pyvenv.cfg").read_bytes())
    return found.hexdigest()
