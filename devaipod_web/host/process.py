"""Running other programs: bounded in time, their output shown as progress and kept for the error."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from devaipod_web.host.errors import CommandFailed
from devaipod_web.host.terminal import Step

#: Lines of a failing program that its error carries.
KEPT_LINES = 25
#: And of each line so many characters, from its end: that is where runtimes say the cause.
LINE_CHARACTERS = 1000
#: Printed by our own recipes around what they download, so that its time is counted apart.
DOWNLOAD_BEGINS, DOWNLOAD_ENDS = "@devaipod-download", "@devaipod-build"


def quick(argv: Sequence[str], *, timeout: float = 20, env: Mapping[str, str] | None = None) -> str:
    """Standard output of a short command. Raises CommandFailed with its own words."""
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            timeout=timeout,
            env=dict(env) if env is not None else None,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except FileNotFoundError:
        raise CommandFailed(f"{argv[0]} is not installed or not on PATH") from None
    except subprocess.TimeoutExpired:
        raise CommandFailed(f"`{shlex.join(argv)}` did not answer within {timeout:g} s") from None
    except OSError as error:
        raise CommandFailed(f"`{shlex.join(argv)}` could not be run: {error.strerror}") from error
    if done.returncode:
        output = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise CommandFailed(
            f"`{shlex.join(argv)}` ended with status {done.returncode}: {output[-600:]}",
            output=output,
        )
    return done.stdout.decode(errors="replace")


def follow(
    argv: Sequence[str],
    *,
    step: Step,
    timeout: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    downloads: Mapping[str, bool] | None = None,
) -> str:
    """Run a long command, its last line shown beside `step`; returns its last lines.

    `downloads` maps the beginnings of output lines to whether a download begins there (True) or ends (False); our own
    recipes' marks are known. The whole process group ends with us or after `timeout` seconds. Raises CommandFailed.
    """
    marks = {DOWNLOAD_BEGINS: True, DOWNLOAD_ENDS: False, **(downloads or {})}
    try:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(env) if env is not None else None,
            cwd=cwd,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise CommandFailed(f"{argv[0]} is not installed or not on PATH") from None
    late = threading.Event()

    def too_late() -> None:
        late.set()
        _end(child)

    alarm = threading.Timer(timeout, too_late)
    alarm.daemon = True
    alarm.start()
    lines: deque[str] = deque(maxlen=KEPT_LINES)
    try:
        assert child.stdout is not None
        for raw in child.stdout:
            text = raw.decode(errors="replace").strip()
            for beginning, downloading in marks.items():
                if text.startswith(beginning):
                    step.downloading(downloading)
            if text and not text.startswith("@devaipod-"):
                lines.append(text[-LINE_CHARACTERS:])
                step.tail = text
        status = child.wait()
    except BaseException:
        _end(child)
        raise
    finally:
        alarm.cancel()
        step.downloading(False)
        step.tail = ""
    output = "\n".join(lines)
    if late.is_set():
        raise CommandFailed(
            f"`{shlex.join(argv)[:200]}` was ended after {timeout:g} s\n{output}", output=output
        )
    if status:
        raise CommandFailed(
            f"`{shlex.join(argv)[:200]}` ended with status {status}. Its last lines:\n{output}",
            output=output,
        )
    return output


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the command's whole process group, politely and then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            return
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            continue
        return


def alive(pid: int) -> bool:
    """Whether a process with this id runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (OSError, IndexError):
        return False
    return state not in ("Z", "X")
