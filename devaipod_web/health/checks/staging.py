"""The staging forge: room on its disk, git itself, and a repository of its own that is asked for as a sidecar asks."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from devaipod_web import home
from devaipod_web.forges.errors import ForgeError
from devaipod_web.forges.git import git
from devaipod_web.health.contract import Health, Kind, Named, Report, Service
from devaipod_web.parts import Part

EVERY_SECONDS = 2.0
#: How often the self-check runs while all is well, and while it is not.
SELF_CHECK_SECONDS, RETRY_SECONDS = 60.0, 6.0
#: A push of an agent is a few MiB; below the first pushes fail, below the second they may (as in the doctor).
FULL_BYTES = 64 * 1024**2
LOW_BYTES = 2 * 1024**3
FULL_INODES = 1000
GIT_SECONDS = 5.0
#: Beside the projects' folders, whose names are keys.
SELF_CHECK = "self-check.git"


class SelfCheckFailed(Exception):
    """The forge could not serve its own repository; the message says why."""


class Forge:
    """`git http-backend` over the repositories below DEVAIPOD_HOME/staging."""

    name = "staging"
    title = "Staging forge"
    kind = Kind.FORGE
    every = EVERY_SECONDS
    restart_does = "It has no process of its own: its self-check runs again now (write, make a repository, serve it by git)."
    no_restart = ""

    def __init__(self) -> None:
        self._version = ""
        self._failure = ""
        self._checked_at: float | None = None

    async def check(self) -> Report:
        """Room on the disk every time, the self-check now and then."""
        now = time.monotonic()
        pause = RETRY_SECONDS if self._failure else SELF_CHECK_SECONDS
        if self._checked_at is None or now - self._checked_at > pause:
            await self._check_itself()
        free, inodes, repositories = await asyncio.to_thread(_room)
        facts = {"repositories": str(repositories), "free": f"{free / 1024**3:.1f} GiB"}
        health, says, step = self._judge(free, inodes)
        return Report(health, says, next_step=step, version=self._version, facts=facts)

    def _judge(self, free: int, inodes: int) -> tuple[Health, str, str]:
        make_room = "Make room: `devaipod prune`, or a larger disk for DEVAIPOD_HOME."
        if free < FULL_BYTES:
            return (
                Health.DOWN,
                f"Its disk is full: {free / 1024**2:.0f} MiB are free. Pushes fail.",
                make_room,
            )
        if inodes < FULL_INODES:
            return (
                Health.DOWN,
                f"Its disk is full: {inodes} more files fit. Pushes fail.",
                make_room,
            )
        if self._failure:
            return Health.DOWN, self._failure, "Mend what it says, then restart it to try again."
        if free < LOW_BYTES:
            return (
                Health.DEGRADED,
                f"Its disk is nearly full: {free / 1024**2:.0f} MiB are free.",
                make_room,
            )
        return Health.OK, "It serves its own repository.", ""

    async def _check_itself(self) -> None:
        try:
            self._version = await asyncio.to_thread(self_check)
            self._failure = ""
        except SelfCheckFailed as error:
            self._failure = str(error)
        self._checked_at = time.monotonic()

    async def restart(self) -> None:
        """Run the self-check now. Raises SelfCheckFailed."""
        await self._check_itself()
        if self._failure:
            raise SelfCheckFailed(self._failure)


def self_check() -> str:
    """Write, make the forge's own repository when it is not there, and serve it by `git http-backend`; returns git's version.

    Blocking, some 20 ms. Raises SelfCheckFailed with the cause.
    """
    folder = home.staging_dir(SELF_CHECK)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write_probe(folder.parent)
        version = git(["--version"], repository=None, timeout=GIT_SECONDS).decode().split()[2]
        if not (folder / "HEAD").is_file():
            git(
                ["init", "--bare", "--quiet", "--end-of-options", str(folder)],
                repository=None,
                timeout=GIT_SECONDS,
            )
        answer = git(
            ["http-backend"],
            repository=None,
            timeout=GIT_SECONDS,
            env={
                "GIT_PROJECT_ROOT": str(folder.parent),
                "GIT_HTTP_EXPORT_ALL": "1",
                "REQUEST_METHOD": "GET",
                "PATH_INFO": f"/{SELF_CHECK}/info/refs",
                "QUERY_STRING": "service=git-upload-pack",
            },
        )
    except OSError as error:
        raise SelfCheckFailed(
            f"{folder.parent} can't be written: {error.strerror or error}."
        ) from error
    except ForgeError as error:
        raise SelfCheckFailed(f"git can't serve a repository: {error.message}") from error
    if b"# service=git-upload-pack" not in answer:
        words = answer.partition(b"\r\n")[0][:200].decode(errors="replace")
        raise SelfCheckFailed(
            f"`git http-backend` does not serve the forge's own repository: {words}"
        )
    return f"git {version}"


def _write_probe(folder: Path) -> None:
    probe = folder / f".probe-{os.getpid()}"
    try:
        with probe.open("wb") as file:
            file.write(b"x" * 65_536)
            file.flush()
            os.fsync(file.fileno())
    finally:
        with suppress(OSError):
            probe.unlink()


def _room() -> tuple[int, int, int]:
    """Free bytes, free inodes (a file system that counts none has many), and how many projects have repositories."""
    folder = home.staging_dir(SELF_CHECK).parent
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    room = os.statvfs(folder)
    inodes = room.f_favail if room.f_files else 1 << 40
    mirrors = sum(1 for one in os.scandir(folder) if one.is_dir() and one.name != SELF_CHECK)
    return room.f_bavail * room.f_frsize, inodes, mirrors


def forge(parts: Mapping[str, Part]) -> Named:
    """The staging forge, which the gateway's process serves."""
    found = Forge()

    async def named() -> Sequence[Service]:
        return (found,)

    return named
