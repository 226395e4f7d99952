"""Where everything of an installation lies: one function a path, so that no other module spells one.

All state is under `DEVAIPOD_HOME`; sockets alone live elsewhere, since a Unix path holds 107 bytes.
Imports nothing of Django: the host set-up uses it before anything is installed.
"""

from __future__ import annotations

import json
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path

#: Longest path of a Unix socket on Linux, in bytes (unix(7): sun_path less the final zero).
MAX_SOCKET_PATH = 107
KEY_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
KEY_LENGTH = 10


def new_key() -> str:
    """A public key of a row: 10 random lower-case base32 characters (RFC 4648 §6), 50 bits."""
    # 32 letters: the low five bits of a random byte choose one evenly.
    return "".join(KEY_ALPHABET[byte & 31] for byte in secrets.token_bytes(KEY_LENGTH))


#: What holds the packages `devaipod_web` and `pods`: a checkout's top, or the site-packages of an installed wheel.
ROOT = Path(__file__).resolve().parent.parent


def in_checkout() -> bool:
    """Whether this program runs from a checkout rather than from an installed wheel."""
    # site-packages may hold anybody's `templates`; a checkout of ours has both of these.
    return (ROOT / "manage.py").is_file() and (ROOT / "devaipod_web" / "home.py").is_file()


def assets() -> Path:
    """The folder of `templates`, `static` and `images`: a checkout's top, in a wheel the package itself."""
    return ROOT if in_checkout() else ROOT / "devaipod_web"


def set_up() -> str:
    """The command that brings everything up, as people type it here: in messages."""
    return "`make up`" if in_checkout() else "`devaipod setup`"


def build_images(names: str) -> str:
    """The command that builds the images of these agents, as people type it here: in messages."""
    return (
        f"`make images AGENTS={names}`" if in_checkout() else f"`devaipod setup --agents {names}`"
    )


def home() -> Path:
    """The installation's folder: `DEVAIPOD_HOME`, else `./var` in a checkout, else the user's data folder."""
    named = os.environ.get("DEVAIPOD_HOME")
    if named:
        return Path(named).expanduser().resolve()
    if in_checkout():
        return ROOT / "var"
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data).expanduser() / "devaipod"


def ensure_home() -> Path:
    """Make the installation's folder (mode 0700) and its id when they are not there, and return it."""
    folder = home()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    card = folder / "installation.json"
    if not card.exists():
        text = json.dumps({"id": new_key(), "created_at": datetime.now(UTC).isoformat()})
        _create_once(card, text)
    return folder


def installation_id() -> str:
    """The id that labels this installation's pods; made on the first call."""
    value: str = json.loads((ensure_home() / "installation.json").read_text())["id"]
    return value


def secret_file(name: str) -> bytes:
    """A random secret of 48 bytes (text) in a file of mode 0600 below the home, made on the first call."""
    path = ensure_home() / name
    if not path.exists():
        _create_once(path, secrets.token_urlsafe(48))
    return path.read_bytes().strip()


def _create_once(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all; when another process was first, its file stays."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(text)
    try:
        os.link(draft, path)
    except FileExistsError:
        return
    finally:
        draft.unlink()


def runtime_dir() -> Path:
    """The folder (mode 0700) of this installation's sockets, made when it is not there.

    `$XDG_RUNTIME_DIR/devaipod-<id>`, or `/run/devaipod-<id>` for root, or a folder below the temporary one for a user
    without a session. Raises OSError when it belongs to somebody else.
    """
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and os.access(base, os.W_OK):
        parent = Path(base)
    elif os.geteuid() == 0:
        parent = Path("/run")
    else:
        parent = Path("/run/user") / str(os.geteuid())
        if not os.access(parent, os.W_OK):
            parent = Path("/tmp")  # noqa: S108 - the owner and mode are checked below
    folder = parent / f"devaipod-{installation_id()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    state = folder.lstat()
    if state.st_uid != os.geteuid() or state.st_mode & 0o077:
        raise PermissionError(
            f"{folder} must belong to this user alone (mode 0700): remove it and start again"
        )
    return folder


def gateway_socket() -> Path:
    """The Unix socket that the gateway listens on."""
    return runtime_dir() / "gateway.sock"


def pod_socket_dir(pod_key: str) -> Path:
    """The folder that a pod's sidecar mounts; it holds alone a hard link of the gateway's socket."""
    return runtime_dir() / pod_key


def podman_socket() -> Path:
    """The socket of the podman API service that setup starts, unless DEVAIPOD_PODMAN_SOCKET names another."""
    named = os.environ.get("DEVAIPOD_PODMAN_SOCKET")
    return Path(named) if named else runtime_dir() / "podman.sock"


def database() -> Path:
    """The SQLite database."""
    return home() / "db.sqlite3"


def serve_lock() -> Path:
    """The file whose flock a serving process holds."""
    return home() / "serve.lock"


def serve_card() -> Path:
    """JSON of the serving process: {pid, url, started_at}."""
    return home() / "serve.json"


def serve_log() -> Path:
    """The log of a server in the background."""
    return home() / "log" / "serve.log"


def podman_dir() -> Path:
    """containers.conf, the podman service's log and its pid."""
    return home() / "podman"


def volumes_dir() -> Path:
    """Loop images that bound volumes."""
    return home() / "volumes"


def staging_dir(project_key: str) -> Path:
    """A project's staging repositories: `mirror.git` and `runs/<run key>.git`."""
    return home() / "staging" / project_key


def mirror_repository(project_key: str) -> Path:
    """The bare mirror of a project's upstream."""
    return staging_dir(project_key) / "mirror.git"


def run_repository(project_key: str, run_key: str) -> Path:
    """The bare repository that one run pushes to, with the mirror as its alternate."""
    return staging_dir(project_key) / "runs" / f"{run_key}.git"


def run_logs_dir(run_key: str) -> Path:
    """Container logs of a run, below it `<pod name>/<container>/`."""
    return home() / "logs" / run_key


def event_payload(run_key: str, seq: int) -> Path:
    """The file of an event's payload that is too large for its row."""
    return home() / "events" / run_key / f"{seq}.json"


def pod_token_dir(pod_name: str) -> Path:
    """The folder of a pod's two tokens, mounted read-only into its sidecar alone."""
    return home() / "pods" / pod_name / "token"


def sample_dir() -> Path:
    """The demo's own upstream and production repositories."""
    return home() / "sample"


def budgets_dir() -> Path:
    """Journals of the processes that hold leases on budgets, a folder a process."""
    return home() / "budgets"
