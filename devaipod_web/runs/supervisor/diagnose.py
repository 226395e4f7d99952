"""Why a container ended, in a sentence, and what is kept of a pod when it goes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from contextlib import aclosing, suppress
from datetime import datetime
from typing import Any

from devaipod_web.runs import untrusted
from pods.backend import ContainerBackend
from pods.errors import BackendError
from pods.spec import AGENT, EXIT_AGENT_MISSING, ContainerState, Phase, PodState

KEPT_LINES = 50
KEPT_LINE_CHARACTERS = 500
#: Lines of the agent's log that a reason quotes.
QUOTED_LINES = 3
LOG_SECONDS = 5.0
EXIT_SIGKILL = 137
EXIT_SIGSEGV = 139


async def last_lines(backend: ContainerBackend, pod: str, container: str) -> list[str]:
    """The last lines of a container's log, empty when they can't be had in time."""
    lines: list[str] = []

    async def read() -> None:
        async with aclosing(backend.logs(pod, container, tail=KEPT_LINES)) as stream:  # type: ignore[type-var]
            async for line in stream:
                text = untrusted.text(line.text.decode("utf-8", "replace"), KEPT_LINE_CHARACTERS)
                lines.append(text)

    with suppress(TimeoutError, BackendError):
        async with asyncio.timeout(LOG_SECONDS):
            await read()
    return lines[-KEPT_LINES:]


async def keep(backend: ContainerBackend, pod: PodState) -> dict[str, Any]:
    """What is kept of a pod: its containers' states and their last lines, as JSON."""
    containers = []
    for name, state in pod.containers.items():
        containers.append({**as_json(state), "logs": await last_lines(backend, pod.name, name)})
    return {
        "name": pod.name,
        "backend": backend.name,
        "created_at": _stamp(pod.created_at),
        "containers": containers,
        "warnings": list(pod.warnings),
    }


def as_json(state: ContainerState) -> dict[str, Any]:
    """A container's state for API and page."""
    return {
        "name": state.name,
        "state": str(state.phase),
        "exit_code": state.exit_code,
        "oom_killed": state.oom_killed,
        "health": state.health,
        "error": state.error[:500],
        "image": state.image,
        "started_at": _stamp(state.started_at),
        "finished_at": _stamp(state.finished_at),
    }


def _stamp(value: datetime | None) -> str | None:
    return value.isoformat() if value else None


def exited(pod: PodState | None, container: str) -> ContainerState | None:
    """The container's state when it has exited, else None."""
    state = pod.containers.get(container) if pod else None
    return state if state is not None and state.phase is Phase.EXITED else None


def why_agent_ended(
    state: ContainerState,
    *,
    program: str,
    memory_bytes: int,
    lines: list[str],
    codes: Mapping[int, tuple[str, str]] | None = None,
) -> tuple[str, str]:
    """(reason, next step) for an agent container that exited. `codes` are further exit codes of the entry."""
    code = state.exit_code
    if code == EXIT_AGENT_MISSING:
        return (
            f"The agent's program `{program}` is not in image {state.image} (exit code {code}).",
            "Choose another image or another agent in the project's settings.",
        )
    if code in (codes or {}):
        reason, next_step = (codes or {})[code]  # type: ignore[index]
        return f"{reason}{_quote(lines)}", next_step
    if state.oom_killed:
        size = f"{memory_bytes / 1024**3:.1f} GiB"
        return (
            f"The agent was killed because it used more memory than it may ({size}; exit code {code}).",
            "Raise the memory limit in the project's settings, or give the agent a smaller task.",
        )
    if code == EXIT_SIGKILL:
        # On cgroups v1 podman does not always learn that the kernel killed for memory.
        size = f"{memory_bytes / 1024**3:.1f} GiB"
        return (
            f"The agent was killed (exit code {code}), most likely because it used more memory than it may "
            f"({size}).{_quote(lines)}",
            "Raise the memory limit in the project's settings, or prompt the run again: workspace and session are kept.",
        )
    what = "crashed" if code == EXIT_SIGSEGV else "ended"
    when = "" if code else " although it did not fail"
    return (
        f"The agent {what} in the middle of its work{when} (exit code {code}).{_quote(lines)}",
        "Look at the agent's log, then prompt the run again: workspace and session are kept.",
    )


def why_command_ended(
    code: int | None,
    state: ContainerState | None,
    *,
    memory_bytes: int,
    lines: list[str],
) -> tuple[str, str]:
    """(reason, next step) for a command that did not end with 0. `code` is None when nobody is left who knows it."""
    next_step = "Look at the agent's log, then launch a new run. What it changed is staged."
    if code is None:
        return f"The command ended, and its exit code is not known.{_quote(lines)}", next_step
    size = f"{memory_bytes / 1024**3:.1f} GiB"
    if state is not None and state.oom_killed:
        return (
            f"The command was killed because it used more memory than it may ({size}; exit code {code}).",
            "Raise the memory limit in the project's settings, then launch a new run.",
        )
    signal_name = _signal(code)
    how = f" by {signal_name}" if signal_name else ""
    return f"The command ended with exit code {code}{how}.{_quote(lines)}", next_step


def _signal(code: int) -> str:
    """The signal that a shell means by an exit code above 128 (POSIX 2.8.2), or an empty string."""
    try:
        return signal.Signals(code - 128).name
    except ValueError:
        return ""


def why_sidecar_ended(state: ContainerState, lines: list[str]) -> str:
    """Why an attempt was lost with its sidecar."""
    if state.oom_killed:
        return "the sidecar was killed because it used too much memory"
    return f"the sidecar ended with exit code {state.exit_code}.{_quote(lines)}"


def _quote(lines: list[str]) -> str:
    said = [line.strip() for line in lines if line.strip()][-QUOTED_LINES:]
    return f" Its last words: {' / '.join(said)}"[:600] if said else ""


__all__ = [
    "AGENT",
    "as_json",
    "exited",
    "keep",
    "last_lines",
    "why_agent_ended",
    "why_sidecar_ended",
]
