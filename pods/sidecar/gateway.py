"""Where the gateway is, as this pod reaches it; read at each dial, since a relay that was made anew has another address."""

from __future__ import annotations

import os
from pathlib import Path

from pods.spec import GATEWAY_DIR, SOCKET_DIR

#: In GATEWAY_DIR, where the backend mounts such a folder.
URL_FILE = "url"
MAX_URL_BYTES = 500


def url() -> str:
    """The gateway's base URL; empty where its Unix socket is mounted.

    The file that the control plane keeps up to date comes before DEVAIPOD_GATEWAY, which a pod has for its whole life.
    """
    place = Path(os.environ.get("DEVAIPOD_GATEWAY_DIR", GATEWAY_DIR)) / URL_FILE
    try:
        with place.open("rb") as file:
            said = file.read(MAX_URL_BYTES).decode("ascii").strip()
    except (OSError, ValueError):
        said = ""
    if said.startswith(("http://", "https://")):
        return said.rstrip("/")
    return os.environ.get("DEVAIPOD_GATEWAY", "").rstrip("/")


def socket_path() -> str:
    """The gateway's Unix socket in this pod."""
    return f"{os.environ.get('DEVAIPOD_SOCKET_DIR', SOCKET_DIR)}/gateway.sock"
