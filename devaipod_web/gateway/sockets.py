"""Each pod's folder with a hard link of the gateway's one socket (docs/decisions/0002).

The folder, not the socket, is mounted into the sidecar: after a restart the new socket is linked into it by rename,
and a sidecar that dials again finds it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

from devaipod_web import home

SOCKET_NAME = "gateway.sock"


class SocketPathTooLong(OSError):
    """A Unix socket's path holds 107 bytes; the message names the setting that shortens it."""


def check_length(path: Path) -> Path:
    """Return the path when it fits into a Unix address, else raise `SocketPathTooLong` with what to do."""
    length = len(os.fsencode(path))
    if length > home.MAX_SOCKET_PATH:
        raise SocketPathTooLong(
            f"The socket's path {path} has {length} bytes, and a Unix socket holds {home.MAX_SOCKET_PATH}. "
            "Set XDG_RUNTIME_DIR to a shorter folder, for instance /run/user/<your id>."
        )
    return path


def link_pod(pod_key: str) -> Path:
    """Make the pod's folder with the gateway's socket in it, or renew the link, and return the folder.

    Safe to repeat. When the gateway does not listen yet the folder stays empty until it does (`relink_all`).
    """
    folder = home.pod_socket_dir(pod_key)
    check_length(folder / SOCKET_NAME)
    folder.mkdir(exist_ok=True)
    # The sidecar is whatever uid the image says; only the parent folder (0700) keeps other users of the host out.
    folder.chmod(0o755)
    draft = home.runtime_dir() / f".link-{pod_key}-{secrets.token_hex(4)}"
    with contextlib.suppress(FileNotFoundError):
        os.link(home.gateway_socket(), draft)
        # rename(2) of two names of one file does nothing and leaves both: the draft goes in any case.
        draft.rename(folder / SOCKET_NAME)
    draft.unlink(missing_ok=True)
    return folder


def unlink_pod(pod_key: str) -> None:
    """Take the pod's folder away. Safe to repeat."""
    shutil.rmtree(home.pod_socket_dir(pod_key), ignore_errors=True)


def relink_all(pod_keys: Iterable[str]) -> None:
    """Link the gateway's new socket into the folder of each of these pods; called when the gateway has begun to listen."""
    for key in pod_keys:
        link_pod(key)
