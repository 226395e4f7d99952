"""What this host is: read from /proc, /sys and the programs themselves, decided nowhere else."""

from __future__ import annotations

import os
import pwd
import re
import resource
import shutil
from dataclasses import dataclass
from pathlib import Path

from devaipod_web.host.errors import CommandFailed
from devaipod_web.host.process import quick

#: Bit of CAP_SYS_RESOURCE in the capability masks of /proc (capability.h).
CAP_SYS_RESOURCE = 24
CAP_SYS_ADMIN = 21


@dataclass(frozen=True)
class Facts:
    """One look at the host. Programs that are missing have an empty path."""

    uid: int
    user: str
    capabilities: int
    cgroups: str  # v1 | v2 | hybrid | none
    systemd: bool
    journald: bool
    nofile_hard: int
    nproc_hard: int
    pid_max: int
    podman: str
    crun: str
    runc: str
    conmon: str
    fuse_overlayfs: str
    mmdebstrap: str
    mkfs_ext4: str
    git: str
    chromium: str
    subuids: int
    subgids: int
    newuidmap: str
    runtime_dir: str
    initdb: str
    redis_server: str

    @property
    def root(self) -> bool:
        """Whether podman runs rootful."""
        return self.uid == 0

    def may(self, capability: int) -> bool:
        """Whether this process holds a capability."""
        return bool(self.capabilities >> capability & 1)


def look() -> Facts:
    """Read the host as it is now."""
    uid = os.geteuid()
    user = _user_name(uid)
    return Facts(
        uid=uid,
        user=user,
        capabilities=_capabilities(),
        cgroups=cgroups(),
        systemd=Path("/run/systemd/system").is_dir(),
        journald=Path("/run/systemd/journal/socket").exists(),
        nofile_hard=_hard_limit(resource.RLIMIT_NOFILE),
        nproc_hard=_hard_limit(resource.RLIMIT_NPROC),
        pid_max=int(Path("/proc/sys/kernel/pid_max").read_text()),
        podman=_which("podman"),
        crun=_which("crun"),
        runc=_which("runc"),
        conmon=_which("conmon") or _first("/usr/libexec/podman/conmon", "/usr/lib/podman/conmon"),
        fuse_overlayfs=_which("fuse-overlayfs"),
        mmdebstrap=_which("mmdebstrap"),
        # An ordinary user's PATH on Debian lacks the sbin folders.
        mkfs_ext4=_which("mkfs.ext4") or _first("/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4"),
        git=_which("git"),
        chromium=_which("chromium") or _which("chromium-browser") or _which("google-chrome"),
        subuids=sub_ids(Path("/etc/subuid"), user=user, uid=uid),
        subgids=sub_ids(Path("/etc/subgid"), user=user, uid=uid),
        newuidmap=_which("newuidmap"),
        runtime_dir=os.environ.get("XDG_RUNTIME_DIR", ""),
        # Debian keeps the server's programs of each version in a folder of its own.
        initdb=_which("initdb")
        or _first(
            *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), reverse=True)
        ),
        redis_server=_which("redis-server"),
    )


def uses_podman() -> bool:
    """Whether this host's podman is a target; `DEVAIPOD_PODMAN=off` says that all runs go to clusters."""
    return os.environ.get("DEVAIPOD_PODMAN", "on").lower() in ("1", "true", "yes", "on")


def cgroups(mounts: Path = Path("/proc/self/mounts")) -> str:
    """Which cgroups are mounted: `v2` alone, `v1`, `hybrid` (v1 with the v2 tree beside it), or `none`."""
    kinds: set[str] = set()
    for line in mounts.read_text().splitlines():
        fields = line.split(" ")
        if len(fields) > 2 and fields[1].startswith("/sys/fs/cgroup"):
            kinds.add(fields[2])
    if "cgroup" in kinds:
        return "hybrid" if "cgroup2" in kinds else "v1"
    return "v2" if "cgroup2" in kinds else "none"


def sub_ids(table: Path, *, user: str, uid: int) -> int:
    """How many subordinate ids `/etc/subuid` or `/etc/subgid` gives a user (subuid(5): by name or number)."""
    try:
        lines = table.read_text().splitlines()
    except OSError:
        return 0
    count = 0
    for line in lines:
        fields = line.strip().split(":")
        if len(fields) == 3 and fields[0] in (user, str(uid)) and fields[2].isdigit():
            count += int(fields[2])
    return count


def podman_version(podman: str) -> tuple[int, ...]:
    """Podman's version as numbers, or () when it does not say one."""
    return version_of([podman, "--version"])


def version_of(argv: list[str]) -> tuple[int, ...]:
    """The first dotted number that a program prints, or ()."""
    try:
        text = quick(argv)
    except CommandFailed:
        return ()
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part) for part in found.groups() if part) if found else ()


def _capabilities() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _hard_limit(which: int) -> int:
    hard = resource.getrlimit(which)[1]
    return 1_048_576 if hard == resource.RLIM_INFINITY else hard


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _which(program: str) -> str:
    return shutil.which(program) or ""


def _first(*paths: str) -> str:
    return next((path for path in paths if Path(path).exists()), "")
