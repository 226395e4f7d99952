"""What bounds a volume: an ext4 image of a fixed size and number of inodes, mounted as a loop device.

`podman volume create -o size=` is refused on ext4 hosts, and a later run then makes an unlimited volume in silence. A file
system of its own bounds both. The file is sparse: it takes what is used. Mounting one needs root, so a rootless
podman has no hard bound; the supervisor measures there.
"""

from __future__ import annotations

import os
import pwd
import shutil
import struct
import subprocess
from pathlib import Path

from pods.errors import BackendError, BackendUnavailable, QuotaExceeded
from pods.spec import VolumeSpec

MKFS_SECONDS = 60
#: More files than can be counted in this time are too many.
COUNT_SECONDS = 60
#: ext4 needs this much for itself before a file fits.
LEAST_BYTES = 4 * 1024 * 1024
SUPERBLOCK_OFFSET = 1024


def image_path(folder: Path, name: str) -> Path:
    """Where the image of a volume lies."""
    return folder / f"{name}.ext4"


def make_image(folder: Path, volume: VolumeSpec, *, user: str) -> Path:
    """Make the image of a volume, its root owned by `user` (uid:gid), unless it is there. Takes about 20 ms.

    Raises QuotaExceeded when the disk is full and BackendError when mkfs.ext4 is missing or fails.
    """
    path = image_path(folder, volume.name)
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_suffix(".draft")
    try:
        with draft.open("wb") as file:
            os.truncate(file.fileno(), max(volume.size_bytes, LEAST_BYTES))
        done = subprocess.run(
            [
                *("mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-m", "0"),
                *("-N", str(max(volume.inodes, 16))),
                *("-E", f"lazy_itable_init=1,nodiscard,root_owner={user}", str(draft)),
            ],
            capture_output=True,
            text=True,
            timeout=MKFS_SECONDS,
            env=_environment(),
        )
    except FileNotFoundError as error:
        raise BackendError(
            "mkfs.ext4 is not on this host, so a run's disk use cannot be bounded.",
            next_step="Install e2fsprogs.",
        ) from error
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise QuotaExceeded(
            f"The volume {volume.name} could not be made in {folder}: {error.strerror}.",
            next_step="Free disk space, then prompt the run again.",
        ) from error
    if done.returncode:
        draft.unlink(missing_ok=True)
        raise BackendError(f"mkfs.ext4 failed for {volume.name}: {done.stderr.strip()[:300]}")
    _remove_lost_and_found(draft)
    _mark(folder, volume.name).touch()
    draft.rename(path)
    return path


def _mark(folder: Path, name: str) -> Path:
    return folder / f"{name}.new"


def not_handed_over(folder: Path) -> set[str]:
    """Names of the volumes whose first mount has not happened yet."""
    return {path.stem for path in folder.glob("*.new")}


def hand_over(folder: Path, name: str, *, mountpoint: Path, user: str) -> None:
    """Give the root of a volume that was just mounted for the first time to `user` (numeric uid:gid), once.

    podman's own first mount gives it to whoever owns that path in the image: root for the sidecar's state. Nothing has
    run in the container yet, so the folder is empty and no link of an agent's can be followed.
    """
    uid, _, gid = user.partition(":")
    if not mountpoint.is_mount():
        raise BackendError(f"The volume {name} is not mounted where podman says ({mountpoint}).")
    os.chown(mountpoint, int(uid), int(gid), follow_symlinks=False)
    mountpoint.chmod(0o755)
    _mark(folder, name).unlink(missing_ok=True)


def _remove_lost_and_found(image: Path) -> None:
    """Leave the root empty: a clone wants an empty folder, and an agent would see one that it cannot read."""
    subprocess.run(
        ["debugfs", "-w", "-R", "rmdir lost+found", str(image)],
        capture_output=True,
        timeout=MKFS_SECONDS,
        env=_environment(),
    )


def _environment() -> dict[str, str]:
    # Debian keeps mkfs and debugfs where an ordinary user's PATH does not look.
    return {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}


def remove_image(folder: Path, name: str) -> None:
    """Remove a volume's image. Nothing happens when there is none."""
    image_path(folder, name).unlink(missing_ok=True)
    _mark(folder, name).unlink(missing_ok=True)


def usage(mountpoint: Path) -> tuple[int, int]:
    """Bytes and inodes that the files below a folder take. Follows no link; what vanishes meanwhile is not counted."""
    total, count = 0, 0
    stack = [mountpoint]
    while stack:
        try:
            with os.scandir(stack.pop()) as entries:
                for entry in entries:
                    count += 1
                    try:
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
                    except OSError:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(Path(entry.path))
        except OSError:
            continue
    return total, count


def mounted_usage(mountpoint: Path, size_bytes: int) -> tuple[int, int]:
    """Bytes and inodes used in a mounted file system of this size, as the kernel counts them: no walk through an agent's folders.

    What the file system keeps for itself counts as used: of a full one all bytes are.
    """
    state = os.statvfs(mountpoint)
    return size_bytes - state.f_bavail * state.f_frsize, state.f_files - state.f_ffree


def image_usage(path: Path) -> tuple[int, int]:
    """Bytes and inodes used in an image that is not mounted, from its superblock (kernel: ext4/super.rst)."""
    with path.open("rb") as file:
        file.seek(SUPERBLOCK_OFFSET)
        inodes, blocks, _, free_blocks, free_inodes, _, shift = struct.unpack(
            "<7I", file.read(7 * 4)
        )
    return (blocks - free_blocks) * (1024 << shift), inodes - free_inodes


def mapped_usage(mountpoint: Path, *, owner: int) -> tuple[int, int]:
    """Bytes and inodes below a volume of the rootless podman of user `owner`, counted as root of that user's namespace.

    The files are those of mapped uids, and an agent can close its folders to everybody but that root. Raises QuotaExceeded
    when there are too many files to be counted in `COUNT_SECONDS`.
    """
    count = 'du -sx --block-size=1 -- "$1"; du -sx --inodes -- "$1"'
    user = pwd.getpwuid(owner)
    ours = owner == os.geteuid()
    env = _environment()
    if not ours:
        # Root's own folders and containers.conf are closed to that user.
        env = {"PATH": env["PATH"], "HOME": user.pw_dir, "USER": user.pw_name}
    try:
        done = subprocess.run(
            ["podman", "unshare", "sh", "-c", count, "sh", str(mountpoint)],
            capture_output=True,
            text=True,
            timeout=COUNT_SECONDS,
            env=env,
            cwd="/",
            # None leaves us who we are.
            user=None if ours else owner,
            group=None if ours else user.pw_gid,
            extra_groups=None if ours else [],
        )
    except subprocess.TimeoutExpired as error:
        raise QuotaExceeded(
            f"The files of the volume {mountpoint.parent.name} could not be counted within {COUNT_SECONDS} seconds: "
            "there are too many.",
            next_step="Give the agent a smaller task.",
        ) from error
    # What vanishes while it is counted makes du complain; the sums stand all the same.
    sums = [int(line.split()[0]) for line in done.stdout.splitlines()]
    if len(sums) != 2:
        raise BackendUnavailable(
            f"The files of a volume could not be counted: {done.stderr.strip()[:300]}",
            next_step="Does `podman unshare true` work for this user? `devaipod doctor` says more.",
        )
    return sums[0], sums[1]


def has_mkfs() -> bool:
    """Whether mkfs.ext4 is on this host."""
    return shutil.which("mkfs.ext4", path=_environment()["PATH"]) is not None
