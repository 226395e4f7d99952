"""The system's packages: installed through apt when we are root, else named in the one command to run."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from devaipod_web.host.errors import PackagesMissing
from devaipod_web.host.facts import Facts, look
from devaipod_web.host.process import follow
from devaipod_web.host.terminal import Terminal

APT_SECONDS = 900.0


@dataclass(frozen=True)
class Need:
    """A thing that must be on the host, and the packages that bring it."""

    what: str
    debian: str
    fedora: str
    there: bool


def needs(facts: Facts, *, tests: bool = False) -> list[Need]:
    """What a host needs for runs, and with `tests` for the test suite as well."""
    wanted = [
        Need("podman", "podman", "podman", bool(facts.podman)),
        Need("conmon", "conmon", "conmon", bool(facts.conmon)),
        Need("git", "git", "git", bool(facts.git)),
        Need("git http-backend", "git", "git", _has_http_backend(facts)),
        Need("mmdebstrap", "mmdebstrap", "mmdebstrap", bool(facts.mmdebstrap)),
        Need(
            "Debian's archive keys",
            "debian-archive-keyring",
            "debian-keyring",
            Path("/usr/share/keyrings/debian-archive-keyring.gpg").exists(),
        ),
        Need(
            "certificates",
            "ca-certificates",
            "ca-certificates",
            any(Path(p).exists() for p in ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls")),
        ),
    ]
    if facts.cgroups in ("v1", "hybrid"):
        # crun, which Debian's podman brings, refuses cgroups v1 with v2 beside it.
        wanted.append(Need("runc", "runc", "runc", bool(facts.runc)))
    elif not facts.runc:
        wanted.append(Need("an OCI runtime", "crun", "crun", bool(facts.crun)))
    if facts.root:
        wanted.append(Need("mkfs.ext4", "e2fsprogs", "e2fsprogs", bool(facts.mkfs_ext4)))
    else:
        wanted.append(Need("newuidmap", "uidmap", "shadow-utils", bool(facts.newuidmap)))
        wanted.append(
            Need("fuse-overlayfs", "fuse-overlayfs", "fuse-overlayfs", bool(facts.fuse_overlayfs))
        )
    if tests:
        wanted += [
            Need("Chromium", "chromium", "chromium", bool(facts.chromium)),
            Need("PostgreSQL", "postgresql", "postgresql-server", bool(facts.initdb)),
            Need("Redis", "redis-server", "valkey", bool(facts.redis_server)),
        ]
        if facts.root:
            # Root's suite makes an ordinary user and runs podman as that one too.
            wanted.append(Need("newuidmap", "uidmap", "shadow-utils", bool(facts.newuidmap)))
            wanted.append(
                Need(
                    "fuse-overlayfs", "fuse-overlayfs", "fuse-overlayfs", bool(facts.fuse_overlayfs)
                )
            )
    return wanted


def commands(missing: list[Need]) -> tuple[str, str]:
    """The one command for Debian and Ubuntu, and the one for Fedora."""
    debian = " ".join(sorted({need.debian for need in missing}))
    fedora = " ".join(sorted({need.fedora for need in missing}))
    return (
        f"sudo apt-get install --no-install-recommends -y {debian}",
        f"sudo dnf install -y {fedora}",
    )


def ensure_packages(*, say: Terminal, tests: bool = False) -> Facts:
    """Install what is missing when we may, and return what the host is then.

    Raises PackagesMissing with the one command when we are not root, or this is not a Debian.
    """
    facts = look()
    missing = [need for need in needs(facts, tests=tests) if not need.there]
    if not missing:
        return facts
    names = ", ".join(need.what for need in missing)
    debian, fedora = commands(missing)
    if not facts.root or not shutil.which("apt-get"):
        raise PackagesMissing(
            f"This host lacks: {names}. Run this once, then start again:\n"
            f"  Debian, Ubuntu:  {debian}\n"
            f"  Fedora:          {fedora}"
        )
    packages = sorted({need.debian for need in missing})
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with say.step(f"installing {' '.join(packages)}") as step:
        step.downloading(True)
        follow(["apt-get", "-q", "update"], step=step, timeout=APT_SECONDS, env=env)
        install = ["apt-get", "-q", "install", "--no-install-recommends", "-y"]
        follow([*install, "--download-only", *packages], step=step, timeout=APT_SECONDS, env=env)
        step.downloading(False)
        follow([*install, *packages], step=step, timeout=APT_SECONDS, env=env)
    facts = look()
    still = [need.what for need in needs(facts, tests=tests) if not need.there]
    if still:
        raise PackagesMissing(
            f"apt-get installed {' '.join(packages)}, and yet this host lacks: {', '.join(still)}"
        )
    return facts


def _has_http_backend(facts: Facts) -> bool:
    if not facts.git:
        return False
    return any(
        (Path(folder) / "git-http-backend").exists()
        for folder in ("/usr/lib/git-core", "/usr/libexec/git-core", "/usr/local/libexec/git-core")
    )
