"""The one place in the sidecar that runs git: argument lists, an empty home, no configuration of anyone's, a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path

OUTPUT_BYTES = 16 * 1024 * 1024
ERROR_BYTES = 16 * 1024
SECONDS = 120
#: Every setting by which a repository, a global or a system file could run a program or look elsewhere.
SAFE = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.untrackedCache": "false",
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    "core.autocrlf": "false",
    "core.symlinks": "true",
    "core.protectHFS": "true",
    "core.protectNTFS": "true",
    "core.sshCommand": "false",
    "core.alternateRefsCommand": "true",
    "credential.helper": "",
    "diff.external": "",
    # Larger files are streamed; the sidecar's memory is small.
    "core.bigFileThreshold": "16m",
    "core.packedGitLimit": "128m",
    "pack.threads": "1",
    "pack.windowMemory": "32m",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
    "push.recurseSubmodules": "no",
    "protocol.allow": "never",
    "http.followRedirects": "false",
    "commit.gpgSign": "false",
    "uploadpack.packObjectsHook": "",
    "safe.directory": "*",
}


class GitFailed(RuntimeError):
    """git ended with an error or took too long. `output` is what it said, bounded."""

    def __init__(self, command: str, output: str, *, code: int = 0) -> None:
        super().__init__(f"git {command} failed")
        self.code = code
        self.command = command
        self.output = output


def environment(
    extra: Mapping[str, str] | None = None, config: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The whole environment of a git call; nothing of our own is passed on but PATH."""
    settings = {**SAFE, **(config or {})}
    found = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_CEILING_DIRECTORIES": "/",
        # A repository can name a "promisor" whose program git would run to fetch what is missing.
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_CONFIG_COUNT": str(len(settings)),
        **(extra or {}),
    }
    for index, (key, value) in enumerate(settings.items()):
        found[f"GIT_CONFIG_KEY_{index}"] = key
        found[f"GIT_CONFIG_VALUE_{index}"] = value
    return found


async def git(
    *words: str,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    config: Mapping[str, str] | None = None,
    data: bytes | None = None,
    seconds: float = SECONDS,
) -> bytes:
    """Run git and return its standard output. Raises GitFailed; the whole process group dies at the deadline."""
    process = await asyncio.create_subprocess_exec(
        "git",
        *words,
        cwd=cwd,
        env=environment(env, config),
        stdin=asyncio.subprocess.PIPE if data is not None else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        limit=OUTPUT_BYTES,
    )
    try:
        out, said = await asyncio.wait_for(process.communicate(data), seconds)
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        if isinstance(error, TimeoutError):
            raise GitFailed(words[0], f"no end within {seconds:.0f} s") from error
        raise
    if process.returncode:
        raise GitFailed(
            words[0],
            said[-ERROR_BYTES:].decode("utf-8", "replace").strip(),
            code=process.returncode,
        )
    return out
