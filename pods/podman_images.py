"""What is asked of an image before a container is made from it: is the reference one we pull, and who is its user."""

from __future__ import annotations

import base64
import io
import json
import re
import tarfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import requests

from pods.errors import (
    BackendError,
    ImageMissing,
    PodNotFound,
    PodRefused,
    PullRefused,
    QuotaExceeded,
)
from pods.podman_client import PodmanClient
from pods.podman_state import moment

#: On the containers from which a file of an image is read; none is ever started.
LABEL_LOOK = "io.devaipod.look"
#: Such a container lives for milliseconds; one that is older has lost its maker.
LOOK_AGE = timedelta(minutes=1)
#: A registry reference without transport: host[:port]/path[:tag][@digest] (distribution's reference grammar, simplified).
REFERENCE = re.compile(
    r"(?:(?:localhost|[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)+|[a-zA-Z0-9.-]+(?=:))"
    r"(?::[0-9]{1,5})?/)?"
    r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
TRANSPORTS = (
    "docker",
    "docker-archive",
    "docker-daemon",
    "oci",
    "oci-archive",
    "dir",
    "containers-storage",
    "sif",
    "ostree",
)
MAX_REFERENCE = 300
#: A table of credentials that names no registry: given one, podman does not look into the host's own (~/.docker, auth.json).
NO_CREDENTIALS = base64.urlsafe_b64encode(
    json.dumps({"none.invalid": {"username": "none", "password": "none"}}).encode()
).decode()
#: A pull without any progress for this long is given up.
PULL_IDLE_SECONDS = 60
DIGITS = re.compile(r"[0-9]+")
#: Above this numbers wrap around in the kernel's or a runtime's hands.
MAX_ID = 2**31 - 1
MAX_USERS = 200
MAX_PASSWD_BYTES = 1024 * 1024


def check_reference(reference: str) -> None:
    """Raise PullRefused unless this is a plain registry reference (`oci:/etc` would read this host's files)."""
    head = reference.partition(":")[0]
    if head in TRANSPORTS or len(reference) > MAX_REFERENCE or not REFERENCE.fullmatch(reference):
        raise PullRefused(
            f"{reference[:100]!r} is not the name of an image at a registry.",
            next_step="Write it as registry/owner/name:tag, without a transport prefix.",
        )


class Tables:
    """The user and group tables of an image, each read once, from a container that is made and never started. Blocking."""

    def __init__(self, client: PodmanClient, image: str) -> None:
        self._client, self._image = client, image
        self._read: dict[str, list[list[str]]] = {}

    def rows(self, path: str) -> list[list[str]]:
        """Rows of `/etc/passwd` or `/etc/group`; none when the image has no such file."""
        if path not in self._read:
            self._read[path] = _table(self._client, self._image, path)
        return self._read[path]


def numeric_user(tables: Tables, user: str) -> str:
    """uid:gid of a user of an image, given as name, uid, name:group or uid:gid.

    Raises PodRefused when the image has no user or group of that name.
    """
    name, _, group = user.partition(":")
    name, group = _plain(name or "0"), _plain(group)
    if DIGITS.fullmatch(name) and DIGITS.fullmatch(group):
        return f"{name}:{group}"
    passwd = tables.rows("/etc/passwd")
    row = next((r for r in passwd if len(r) > 3 and name in (r[0], r[2])), None)
    if row is None and not DIGITS.fullmatch(name):
        raise PodRefused(
            f"The image has no user {name[:40]!r}.",
            next_step="Name another user, or another image.",
        )
    uid, gid = (row[2], row[3]) if row else (name, "0")
    if group and not DIGITS.fullmatch(group):
        groups = tables.rows("/etc/group")
        found = next((r[2] for r in groups if len(r) > 2 and r[0] == group), None)
        if found is None:
            raise PodRefused(
                f"The image has no group {group[:40]!r}.",
                next_step="Name another group, or another image.",
            )
        gid = found
    elif group:
        gid = group
    # The image's own table is no more trusted than what was asked for.
    if not (DIGITS.fullmatch(uid) and DIGITS.fullmatch(gid)):
        raise PodRefused(f"The image's /etc/passwd has no number for the user {name[:40]!r}.")
    return f"{_plain(uid)}:{_plain(gid)}"


def users_of(tables: Tables) -> dict[str, tuple[str, str]]:
    """Name → (uid:gid, home) of the image's users, at most MAX_USERS."""
    found = {}
    for row in tables.rows("/etc/passwd")[:MAX_USERS]:
        if len(row) > 5 and DIGITS.fullmatch(row[2]) and DIGITS.fullmatch(row[3]):
            found[row[0]] = (f"{row[2]}:{row[3]}", row[5])
    return found


def _plain(name: str) -> str:
    """A number without leading zeros (`00` is root as well); a name as it is. Raises PodRefused beyond 32 bits."""
    if not DIGITS.fullmatch(name):
        return name
    if int(name) > MAX_ID:
        raise PodRefused(f"{name[:20]} is no user or group number.")
    return str(int(name))


def home_of(tables: Tables, user: str, env: Mapping[str, str]) -> str:
    """The home folder of a numeric user: from the image's passwd, else its HOME, else `/home/agent`."""
    uid = user.partition(":")[0]
    rows = tables.rows("/etc/passwd")
    home = next((row[5] for row in rows if len(row) > 5 and row[2] == uid), "")
    home = home or env.get("HOME", "")
    return home if home.startswith("/") and home != "/" else "/home/agent"


def pull(client: PodmanClient, reference: str, tell: Callable[[str], None]) -> None:
    """Pull an image unless it is there; `tell` gets a line now and then. Blocking. Raises ImageMissing, PullRefused, QuotaExceeded."""
    # `policy=missing` and `quiet=false`: one JSON object a line, `stream` for progress, `error` at the end.
    answer = client.open(
        "POST",
        "/images/pull",
        params={"reference": reference, "policy": "missing", "quiet": "false"},
        timeout=PULL_IDLE_SECONDS,
        stream=True,
        headers={"X-Registry-Config": NO_CREDENTIALS},
    )
    try:
        for line in answer.iter_lines():
            said = _said(line)
            if said.get("error"):
                raise _pull_error(reference, str(said["error"]))
            if said.get("stream"):
                tell(str(said["stream"]).strip()[:300])
    except requests.RequestException as error:
        raise ImageMissing(
            f"The image {reference} is not on this host, and its registry was silent for {PULL_IDLE_SECONDS} s.",
            next_step="Check that this host reaches the registry, or build the image here.",
        ) from error
    finally:
        answer.close()


def _said(line: bytes) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _pull_error(reference: str, said: str) -> BackendError:
    """Why a pull failed, from podman's words."""
    low = said.lower()
    short = " ".join(said.split())[-400:]
    if any(words in low for words in ("unauthorized", "authentication required", "denied")):
        return PullRefused(
            f"The registry refused the image {reference}: {short}",
            next_step="Check the image's name and the project's credential for its registry.",
        )
    if "no space left" in low:
        return QuotaExceeded(
            f"There is no room on this host for the image {reference}.",
            next_step="Free disk space, then prompt the run again.",
        )
    if any(words in low for words in ("manifest unknown", "not found", "name unknown")):
        return ImageMissing(
            f"The image {reference} is not at its registry: {short}",
            next_step="Check its name and tag in the project's settings.",
        )
    return ImageMissing(
        f"The image {reference} is not on this host and could not be pulled: {short}",
        next_step="Check its name and that this host reaches the registry, or build the image here.",
    )


def _table(client: PodmanClient, image: str, path: str) -> list[list[str]]:
    """Rows of a file of an image, read from a container that is made and never started."""
    document: dict[str, Any] = {
        "image": image,
        "command": ["none"],
        "labels": {LABEL_LOOK: "1"},
    }
    created = client.call("POST", "/containers/create", body=document)["Id"]
    try:
        answer = client.open("GET", f"/containers/{created}/archive", params={"path": path})
        with tarfile.open(fileobj=io.BytesIO(answer.content)) as tar:
            member = tar.next()
            file = tar.extractfile(member) if member is not None and member.isfile() else None
            text = file.read(MAX_PASSWD_BYTES).decode("utf-8", "replace") if file else ""
    except PodNotFound:
        text = ""
    finally:
        client.call("DELETE", f"/containers/{created}", params={"force": "true"})
    return [line.split(":") for line in text.splitlines() if line and not line.startswith("#")]


def remove_leftover_looks(client: PodmanClient) -> None:
    """Remove the containers that a killed process made to read a file of an image. Each lives for milliseconds otherwise."""
    found = client.call(
        "GET",
        "/containers/json",
        params={"all": "true", "filters": json.dumps({"label": [f"{LABEL_LOOK}=1"]})},
    )
    for container in found or []:
        made = moment(container["Created"])
        if made is not None and datetime.now(UTC) - made > LOOK_AGE:
            client.call("DELETE", f"/containers/{container['Id']}", params={"force": "true"})
