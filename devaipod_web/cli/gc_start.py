"""The start of a Gas City session: its configuration becomes a run, and is waited for."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import Any

from devaipod_web.cli.client import Client, CliError, segment
from devaipod_web.cli.gc_session import DONE, SESSION, STOPPED, find, patch, project, runs_now
from devaipod_web.cli.output import note
from pods.agents import ACP_PROFILES
from pods.command import is_ours, looks_secret

#: EX_TEMPFAIL of sysexits.h: Gas City tries such a start again.
TRY_AGAIN = 75
#: Gas City gives a start 120 seconds, and 2 more to roll back.
START_SECONDS = 105.0
LOOK_SECONDS = 0.25
MAX_SCRIPT_BYTES = 32 * 1024
BEGINNING = frozenset({"queued", "preparing", "starting"})
#: Variables of the host that Gas City runs on: in a pod they would name what is not there.
HOST_VARIABLES = frozenset(
    {
        *("PATH", "HOME", "SHELL", "USER", "LOGNAME", "PWD", "OLDPWD", "TMPDIR", "SHLVL", "_"),
        *("SSH_AUTH_SOCK", "SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY", "DISPLAY", "EDITOR"),
        *("TERM", "TERM_PROGRAM", "TMUX", "TMUX_PANE", "VIRTUAL_ENV", "HOSTNAME", "MAIL"),
    }
)
HOST_PREFIXES = ("XDG_", "DBUS_", "DEVAIPOD_", "LC_")
NOT_COPIED = ("copy_files", "overlay_dir", "pack_overlay_dirs")
WORKSPACES = "/workspaces/"


def start(client: Client, name: str, text: str) -> int:
    """Make the session's run and wait until it is at work; returns the exit code. Raises CliError.

    A run that finds no place in time is taken back, and Gas City told to try again; so is one when Gas City gives up (SIGTERM).
    """
    config = json.loads(text or "{}")
    if not isinstance(config, dict):
        raise ValueError("the configuration is no JSON object")
    if not name.isprintable() or len(name) > 200:
        raise CliError("A session's name has at most 200 printable characters.")
    if runs_now(find(client, name)):
        raise CliError(f"The session {name!r} already exists.")
    body = body_of(name, config)
    # Not in the middle of the call: a run that was made and is not known here could not be taken back.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    made = client.send("POST", "/runs", body)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_roll_back(client, made, 143)))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    return _wait(client, made)


def _wait(client: Client, made: dict[str, Any]) -> int:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        run = client.get(f"/runs/{segment(made['key'])}")
        if run["state"] == "failed":
            raise CliError(f"The session died during its start: {run['reason']}")
        if run["state"] not in BEGINNING:
            return DONE
        time.sleep(LOOK_SECONDS)
    note(f"The session did not start within {START_SECONDS:.0f} s: it is {run['state']}.")
    return _roll_back(client, made, TRY_AGAIN)


def _roll_back(client: Client, made: dict[str, Any], code: int) -> int:
    try:
        client.send("POST", f"/runs/{segment(made['key'])}/stop", {"reason": "Gas City gave up."})
        patch(client, made, **{STOPPED: "yes"})
    except CliError as error:
        note(error.message)
    return code


def body_of(name: str, config: dict[str, Any]) -> dict[str, Any]:
    """The run that a session's configuration asks for: an agent of ours where the command names one, else the command.

    What has no meaning in a pod is left out and said on standard error.
    """
    command = str(config.get("command") or "")
    body: dict[str, Any] = {
        "project": project(),
        "title": name,
        "labels": {SESSION: name},
        "unique_label": SESSION,
    }
    wall = os.environ.get("DEVAIPOD_GC_WALL_SECONDS", "")
    if wall:
        body["wall_seconds"] = int(wall)
    for field in NOT_COPIED:
        if config.get(field):
            note(f"warning: {field} is not copied: a pod's files come by git alone")
    agent, prompt = agent_of(command)
    if agent:
        words = prompt or f"You are {name}. Say that you are ready, and wait for what you are told."
        return {**body, "agent": agent, "task": words}
    return {
        **body,
        "agent": "command",
        "argv": ["sh", "-c", script_of(config, command)],
        "image": os.environ.get("DEVAIPOD_GC_IMAGE", ""),
        "env": _env(config.get("env") or {}),
        "workdir": _workdir(str(config.get("work_dir") or "")),
        "interactive": True,
    }


def agent_of(command: str) -> tuple[str, str]:
    """(profile, prompt) when a command's first word names one of our agents, else two empty strings."""
    try:
        words = shlex.split(command)
    except ValueError:
        return "", ""
    if not words or words[0] not in ACP_PROFILES:
        return "", ""
    return words[0], " ".join(word for word in words[1:] if word != "acp")


def script_of(config: dict[str, Any], command: str) -> str:
    """The session's commands as one script. Those before its own may fail: Gas City's rule is to warn and go on."""
    lines = []
    for field in ("pre_start", "session_setup"):
        lines += [_may_fail(str(line), field) for line in config.get(field) or []]
    path = str(config.get("session_setup_script") or "")
    if path:
        lines.append(_may_fail(_read(path), "session_setup_script"))
    # Without a command a terminal would have a shell; this one reads what it is nudged.
    return "\n".join([*lines, command or "exec sh"])


def _may_fail(line: str, what: str) -> str:
    quoted = shlex.quote(line)
    return f'sh -c {quoted} </dev/null || echo "gc-session: a {what} ended with $?" >&2'


def _read(path: str) -> str:
    text = Path(path).read_bytes()
    if len(text) > MAX_SCRIPT_BYTES:
        raise CliError(f"session_setup_script has more than {MAX_SCRIPT_BYTES} bytes.")
    return text.decode("utf-8", "replace")


def _env(given: dict[str, Any]) -> dict[str, str]:
    env = {}
    for name, value in given.items():
        if name in HOST_VARIABLES or name.startswith(HOST_PREFIXES) or is_ours(name):
            continue
        if looks_secret(name, str(value)):
            note(f"warning: {name} looks like a credential and is left out: no pod holds one")
            continue
        env[name] = str(value)
    return env


def _workdir(given: str) -> str:
    if not given or not given.startswith("/") or given.startswith(WORKSPACES):
        return given
    note(f"warning: work_dir {given} is this host's: the session begins in its own clone")
    return ""
