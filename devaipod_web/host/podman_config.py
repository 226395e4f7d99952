"""The containers.conf that podman needs on this host, when it needs one (DESIGN §8), and podman's environment."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from devaipod_web import home
from devaipod_web.host.errors import CommandFailed
from devaipod_web.host.facts import CAP_SYS_RESOURCE, Facts
from devaipod_web.host.process import quick

#: What rootful podman asks for by itself; without CAP_SYS_RESOURCE it may not ask for more than the host's own.
PODMAN_NOFILE = 1_048_576

HEADER = f"""\
# Written by devaipod for its own podman service; each line says what on this host asked for it.
# Delete the file and run {home.set_up()} again after the host has changed.
"""


def path() -> Path:
    """The installation's own containers.conf; it need not exist."""
    return home.podman_dir() / "containers.conf"


def document(facts: Facts) -> str:
    """The text of containers.conf for a host, empty when podman's defaults hold there."""
    containers: list[str] = []
    engine: list[str] = []
    if facts.root and not facts.may(CAP_SYS_RESOURCE):
        nofile = min(facts.nofile_hard, PODMAN_NOFILE)
        # podman lowers its own process limit to pid_max at start, and what is below it may not ask for more.
        nproc = min(facts.nproc_hard, facts.pid_max)
        limits = f'["nofile={nofile}:{nofile}", "nproc={nproc}:{nproc}"]'
        containers += [
            "# no CAP_SYS_RESOURCE: limits may not be raised above the host's own",
            f"default_ulimits = {limits}",
        ]
    if facts.cgroups in ("hybrid", "v1") and facts.runc:
        engine += ["# cgroups v1 or mixed: crun refuses the mixed form", 'runtime = "runc"']
    elif not facts.crun and facts.runc:
        engine += ["# crun is not installed", 'runtime = "runc"']
    if not facts.systemd or (not facts.root and facts.cgroups != "v2"):
        engine += ["# no systemd that would manage cgroups", 'cgroup_manager = "cgroupfs"']
    if not facts.journald:
        containers += ["# no journald", 'log_driver = "k8s-file"']
        engine += ["# no journald", 'events_logger = "file"']
    if not containers and not engine:
        return ""
    parts = [HEADER]
    if containers:
        parts += ["[containers]", *containers]
    if engine:
        parts += ["[engine]", *engine]
    return "\n".join(parts) + "\n"


def write(facts: Facts) -> Path | None:
    """Write the file when this host needs one, remove it when not. Returns its path, or None without one."""
    target = path()
    text = document(facts)
    if not text:
        target.unlink(missing_ok=True)
        return None
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists() or target.read_text() != text:
        draft = target.with_suffix(".new")
        draft.write_text(text)
        draft.replace(target)
    return target


def choose_storage(facts: Facts) -> str:
    """Decide which storage driver an ordinary user's podman is told to use, and keep it; empty means podman's own choice.

    Without a usable /dev/fuse podman 4.3 takes vfs, which copies an image whole for every container (measured: 100 s to
    build the sidecar's image instead of 30 s), though the kernel's overlay works for users since 5.13. It is tried in a
    folder of its own. A store that is vfs already stays so: podman would not find its images again.
    """
    target = _storage_path()
    if target.is_file():
        return target.read_text().strip()
    driver = ""
    if not facts.root and not _fuse_works(facts) and not _configured() and not has_vfs_store():
        driver = "overlay" if _overlay_works(facts) else ""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(driver + "\n")
    return driver


def has_vfs_store() -> bool:
    """Whether this user's podman has kept images the slow way already."""
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return (Path(data).expanduser() / "containers/storage/vfs-images").is_dir()


def _storage_path() -> Path:
    return home.podman_dir() / "storage-driver"


def _fuse_works(facts: Facts) -> bool:
    return bool(facts.fuse_overlayfs) and os.access("/dev/fuse", os.R_OK | os.W_OK)


def _configured() -> bool:
    """Whether somebody has chosen already."""
    if os.environ.get("STORAGE_DRIVER") or os.environ.get("CONTAINERS_STORAGE_CONF"):
        return True
    config = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    user = Path(config).expanduser() / "containers/storage.conf"
    return user.is_file() or Path("/etc/containers/storage.conf").is_file()


def _overlay_works(facts: Facts) -> bool:
    with (
        tempfile.TemporaryDirectory(
            prefix="storage-", dir=home.podman_dir(), ignore_cleanup_errors=True
        ) as folder,
        # podman refuses a runroot of more than 50 characters.
        tempfile.TemporaryDirectory(
            prefix="st", dir=home.runtime_dir(), ignore_cleanup_errors=True
        ) as short,
    ):
        places = [f"--root={folder}", f"--runroot={short}"]
        try:
            quick(
                [facts.podman, *places, "--storage-driver=overlay", "info"],
                timeout=30,
                env=environment(),
            )
        except CommandFailed:
            return False
    return True


def environment() -> dict[str, str]:
    """The environment that every podman of ours runs with.

    CONTAINERS_CONF names our own file when there is one, STORAGE_DRIVER what `choose_storage` found.
    An XDG_RUNTIME_DIR that is another user's (as `su` leaves it) is taken out, since podman would fail in it.
    """
    env = dict(os.environ)
    if path().is_file() and "CONTAINERS_CONF" not in os.environ:
        env["CONTAINERS_CONF"] = str(path())
    if _storage_path().is_file() and "STORAGE_DRIVER" not in os.environ:
        driver = _storage_path().read_text().strip()
        if driver:
            env["STORAGE_DRIVER"] = driver
    runtime = env.get("XDG_RUNTIME_DIR")
    if runtime and not os.access(runtime, os.W_OK):
        del env["XDG_RUNTIME_DIR"]
    return env
