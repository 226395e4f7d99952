"""The server in the background: started, found again and ended by its card (`serve.json`)."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from devaipod_web import home
from devaipod_web.host import podman_config
from devaipod_web.host.errors import ServiceFailed
from devaipod_web.host.images import ROOT, Images
from devaipod_web.host.process import alive

START_SECONDS = 60.0
#: `serve` drains the supervisor and the event writer before it ends.
STOP_SECONDS = 40.0
#: Of a log this much is read for its last lines, and of a line this much shown.
TAIL_BYTES = 256 * 1024
LINE_CHARACTERS = 600
#: Folders whose files a running server has read: newer ones mean that it runs old code.
CODE = ("devaipod_web", "pods", "templates", "static")


@dataclass(frozen=True)
class Card:
    """A serving process, as it says itself."""

    pid: int
    url: str
    started_at: str


def serving(folder: Path | None = None) -> Card | None:
    """The server of an installation while it runs, else None."""
    path = (folder or home.home()) / home.serve_card().name
    try:
        data = json.loads(path.read_text())
        card = Card(int(data["pid"]), str(data["url"]), str(data.get("started_at", "")))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return card if alive(card.pid) and _is_ours(card.pid) else None


def answers(url: str, *, timeout: float = 2.0) -> bool:
    """Whether the server at an address says that it is well."""
    parts = urlsplit(url)
    line = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=timeout)
    try:
        line.request("GET", "/healthz")
        return line.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        line.close()


def start(images: Images, *, arguments: tuple[str, ...] = ()) -> Card:
    """Start `devaipod serve` in the background and wait until it answers. Raises ServiceFailed with its last lines."""
    log = home.serve_log()
    log.parent.mkdir(parents=True, exist_ok=True)
    env = podman_config.environment()
    env.setdefault("DEVAIPOD_AGENT_IMAGE", images.agent)
    env.setdefault("DEVAIPOD_SIDECAR_IMAGE", images.sidecar)
    # What a person has named for an agent wins over ours, and ours stay for the others.
    ours = [f"{key}={reference}" for key, reference in images.agents.items()]
    env["DEVAIPOD_AGENT_IMAGES"] = " ".join([*ours, env.get("DEVAIPOD_AGENT_IMAGES", "")]).strip()
    env["DEVAIPOD_HOME"] = str(home.home())
    with log.open("ab") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", "devaipod_web.serve", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=env,
            cwd=ROOT,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        card = serving()
        if card and card.pid == child.pid and answers(card.url):
            return card
        if child.poll() is not None:
            raise ServiceFailed(
                f"The server ended at once with status {child.returncode}. Its last lines ({log}):\n{tail(log)}"
            )
        time.sleep(0.1)
    child.terminate()
    raise ServiceFailed(
        f"The server did not answer within {START_SECONDS:g} s. Its last lines ({log}):\n{tail(log)}"
    )


def stop() -> Card | None:
    """End the server politely, wait until it has drained, and return which one it was; None when none ran."""
    card = serving()
    if card is None:
        return None
    os.kill(card.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while alive(card.pid):
        if time.monotonic() > deadline:
            os.kill(card.pid, signal.SIGKILL)
            raise ServiceFailed(
                f"The server (process {card.pid}) had not drained after {STOP_SECONDS:g} s and was killed; "
                "runs go on and are picked up at the next start"
            )
        time.sleep(0.1)
    return card


def outdated(card: Card) -> bool:
    """Whether a file of the program is newer than the server that runs it."""
    try:
        started = datetime.fromisoformat(card.started_at).timestamp()
    except ValueError:
        return False
    return any(
        file.stat().st_mtime > started
        for part in CODE
        for file in (ROOT / part).rglob("*")
        if file.suffix in (".py", ".html", ".css", ".js")
    )


def tail(path: Path, *, lines: int = 20) -> str:
    """The last lines of a log, each cut to what a terminal can show of a structured record."""
    try:
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - TAIL_BYTES, 0))
            text = file.read().decode(errors="replace")
    except OSError:
        return "(no log)"
    return "\n".join(
        line if len(line) <= LINE_CHARACTERS else f"{line[:LINE_CHARACTERS]}…"
        for line in text.splitlines()[-lines:]
    )


def _is_ours(pid: int) -> bool:
    """The process id may be another program's since the server was killed."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"devaipod" in command or b"serve" in command
