"""The one place that runs git in the control plane.

Every call has a fixed environment (nothing of the server's own), a deadline after which the whole process group is killed,
and bounded output. Repositories are bare and ours; what lies in them was written by agents and upstreams, so no replace ref,
external diff, text conversion, hook, pager or helper is ever honoured.
"""

from __future__ import annotations

import os
import resource
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from devaipod_web.forges.errors import GitFailed, TimedOut, TooLarge, from_git

#: Seconds for something that touches the local disk alone.
LOCAL_SECONDS = 60.0
#: Seconds for something that speaks with another host.
REMOTE_SECONDS = 600.0
#: Bytes of standard output that a caller who asks for no other limit accepts.
OUTPUT_BYTES = 32 * 1024 * 1024
_STDERR_BYTES = 64 * 1024
_CHUNK = 64 * 1024

#: Diffs never run a program that attributes name, and show binary files as the bytes that they are.
DIFF_FLAGS = ("--no-ext-diff", "--no-textconv", "--no-renames", "--full-index", "--no-color")

_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    # A list of one name that no transport has: nothing is reached unless the caller names a scheme.
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_ASKPASS": "/bin/false",
    "SSH_ASKPASS": "/bin/false",
    "GIT_PAGER": "cat",
    # A folder that is never there: no .gitconfig, .netrc or .config of whoever runs the server is read.
    "HOME": "/nonexistent",
    "XDG_CONFIG_HOME": "/nonexistent",
    "LC_ALL": "C",
}
_CONFIG = (
    ("core.hooksPath", os.devnull),
    ("core.fsmonitor", "false"),
    ("core.attributesFile", os.devnull),
    ("credential.helper", ""),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("http.followRedirects", "false"),
    ("http.lowSpeedLimit", "1000"),
    ("http.lowSpeedTime", "60"),
    ("submodule.recurse", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("diff.noprefix", "false"),
    ("diff.mnemonicPrefix", "false"),
    ("core.quotePath", "true"),
)


def environment(
    config: Sequence[tuple[str, str]] = (), extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The whole environment of a git process: fixed names, our configuration and the caller's after it."""
    pairs = [*_CONFIG, *config]
    env = {"PATH": os.environ.get("PATH", os.defpath), **_ENVIRONMENT, **(extra or {})}
    env["GIT_CONFIG_COUNT"] = str(len(pairs))
    for index, (key, value) in enumerate(pairs):
        env[f"GIT_CONFIG_KEY_{index}"] = key
        env[f"GIT_CONFIG_VALUE_{index}"] = value
    return env


def git(
    args: Sequence[str],
    *,
    repository: Path | None,
    timeout: float = LOCAL_SECONDS,
    config: Sequence[tuple[str, str]] = (),
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    limit: int = OUTPUT_BYTES,
    sink: Callable[[bytes], None] | None = None,
    file_bytes: int = 0,
    ok: frozenset[int] = frozenset({0}),
    what: str = "",
) -> bytes:
    """Run git and return its standard output.

    `repository` is a bare repository (GIT_DIR) or None for `init` and `ls-remote`; `timeout` in seconds; `config` are pairs that
    count for this call alone; `env` adds variables (GIT_ALLOW_PROTOCOL, GIT_SSH_COMMAND); `sink` gets the output piece by
    piece instead (then b"" is returned); output above `limit` bytes raises TooLarge; `file_bytes` bounds each file that git
    writes; `ok` are the exit codes that count as success; `what` names the repository in messages.

    Raises the errors of `forges.errors`, by git's own words.
    """
    extra = dict(env or {})
    if repository is not None:
        extra["GIT_DIR"] = str(repository)
    name = what or (repository.name if repository is not None else "the repository")
    try:
        process = subprocess.Popen(
            ["git", *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=environment(config, extra),
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise GitFailed(
            "The program `git` is not installed on this host.",
            next_step="Install it (`apt install git` or `dnf install git`); `devaipod doctor` checks for it.",
        ) from error
    if file_bytes:
        # Git has no limit of its own for what a fetch writes; the pack is one file, and its writer starts after the talk.
        with suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    try:
        out, words, late, large = _talk(process, stdin, time.monotonic() + timeout, limit, sink)
    finally:
        _end(process)
    if large:
        raise TooLarge(
            f"What git shows of {name} is larger than {limit // 1024} KiB.",
            next_step="Split the change into smaller ones.",
        )
    if late:
        raise TimedOut(
            f"Git did not finish with {name} within {timeout:.0f} seconds.",
            next_step="Try again; check that the other side answers.",
        )
    if process.returncode not in ok:
        raise from_git(words.decode("utf-8", "replace"), what=name)
    return out


def _talk(
    process: subprocess.Popen[bytes],
    stdin: bytes,
    deadline: float,
    limit: int,
    sink: Callable[[bytes], None] | None,
) -> tuple[bytes, bytes, bool, bool]:
    """Feed and read a process: (output, standard error, deadline passed, output above the limit)."""
    assert process.stdin and process.stdout and process.stderr
    out, words, seen, rest = bytearray(), bytearray(), 0, memoryview(stdin)
    for pipe in (process.stdin, process.stdout, process.stderr):
        os.set_blocking(pipe.fileno(), False)
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, "out")
        selector.register(process.stderr, selectors.EVENT_READ, "err")
        if rest:
            selector.register(process.stdin, selectors.EVENT_WRITE, "in")
        else:
            process.stdin.close()
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                return bytes(out), bytes(words), True, False
            for key, _ in selector.select(min(left, 1.0)):
                if key.data == "in":
                    with suppress(BlockingIOError, BrokenPipeError):
                        rest = rest[os.write(process.stdin.fileno(), rest[:_CHUNK]) :]
                    if not rest or process.poll() is not None:
                        selector.unregister(process.stdin)
                        with suppress(BrokenPipeError):
                            process.stdin.close()
                    continue
                piece = os.read(key.fd, _CHUNK)
                if not piece:
                    selector.unregister(key.fileobj)
                elif key.data == "err":
                    words += piece
                    del words[:-_STDERR_BYTES]
                else:
                    seen += len(piece)
                    if seen > limit:
                        return bytes(out), bytes(words), False, True
                    if sink is not None:
                        sink(piece)
                    else:
                        out += piece
    try:
        process.wait(max(deadline - time.monotonic(), 0.1))
    except subprocess.TimeoutExpired:
        return bytes(out), bytes(words), True, False
    return bytes(out), bytes(words), False, False


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the process group (helpers outlive a killed git) and close the pipes."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


def commit_at(repository: Path, ref: str) -> str | None:
    """The commit that a full ref name (or an object id) stands for, or None when it is not there."""
    try:
        text = git(
            ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}"],
            repository=repository,
        )
    except GitFailed:
        return None
    return text.decode().strip() or None
