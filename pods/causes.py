"""Why something ended, as findings: every such sentence is made here, once. The supervisor ends a run with one of them, and whoever looks
later gets the same."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import replace

from pods.agents import EXIT_LIFECYCLE_FAILED
from pods.command import EXIT_NO_WORKDIR
from pods.findings import CODES, MAX_MESSAGE, Finding, finding, is_disk_full
from pods.reports import ContainerReport
from pods.spec import AGENT, EXIT_AGENT_MISSING, SIDECAR, Phase, Trouble

#: Lines of a log that a sentence quotes, and characters of the quotation.
QUOTED_LINES = 3
QUOTED_CHARACTERS = 600
EXIT_SIGKILL = 137
EXIT_SIGSEGV = 139
#: Exit codes of the agent's entry: the supervisor need not wait for better news.
ENTRY_CODES = frozenset({EXIT_AGENT_MISSING, EXIT_LIFECYCLE_FAILED, EXIT_NO_WORKDIR})
#: What a backend may say of a pod that it has ended → the run ends with it.
NOT_AGAIN = frozenset({"disk-full", "timed-out"})
GIB = 1024**3


def agent_ended(agent: ContainerReport, *, program: str, memory_bytes: int) -> Finding:
    """Why the agent's container ended."""
    code = agent.exit_code
    said = quoted(agent.logs)
    if code is None:
        return finding("agent-exited", f"The agent ended, and nobody knows its exit code.{said}")
    if code == EXIT_AGENT_MISSING:
        return finding(
            "agent-missing",
            f"The agent's program `{program}` is not in image {agent.image} (exit code {code}).",
        )
    if code == EXIT_LIFECYCLE_FAILED:
        return finding(
            "lifecycle-failed",
            f"A lifecycle command of devcontainer.json failed (exit code {code}).{said}",
        )
    if code == EXIT_NO_WORKDIR:
        return finding(
            "agent-exited",
            f"The folder to begin in is not in the workspace (exit code {code}).{said}",
            next_step="Launch a new run with a folder that is there; the agent's log names it.",
        )
    size = f"{memory_bytes / GIB:.1f} GiB"
    if agent.oom_killed:
        return finding(
            "out-of-memory",
            f"The agent was killed because it used more memory than it may ({size}; exit code {code}).",
            container=AGENT,
        )
    if code == EXIT_SIGKILL:
        # On cgroups v1 podman does not always learn that the kernel killed for memory.
        return finding(
            "out-of-memory",
            f"The agent was killed (exit code {code}), most likely because it used more memory than it may ({size}).{said}",
            next_step="Raise the memory limit in the project's settings, or prompt the run again: workspace and session are kept.",
            container=AGENT,
        )
    if any(is_disk_full(line) for line in agent.logs):
        return finding(
            "disk-full",
            f"The agent ended (exit code {code}) because a disk that it writes to is full.{said}",
            container=AGENT,
        )
    what = "crashed" if code == EXIT_SIGSEGV else "ended"
    when = "" if code else " although it did not fail"
    return finding(
        "agent-exited",
        f"The agent {what} in the middle of its work{when} (exit code {code}).{said}",
    )


def command_ended(
    code: int | None, command: ContainerReport | None, *, memory_bytes: int
) -> Finding:
    """Why a command did not end with 0. `code` is None when nobody is left who knows it."""
    said = quoted(command.logs) if command is not None else ""
    next_step = "Look at the agent's log, then launch a new run. What it changed is staged."
    if command is not None and command.oom_killed:
        return finding(
            "out-of-memory",
            f"The command was killed because it used more memory than it may ({memory_bytes / GIB:.1f} GiB; exit code {code}).",
            next_step="Raise the memory limit in the project's settings, then launch a new run.",
            container=AGENT,
        )
    if code is None:
        text = f"The command ended, and its exit code is not known.{said}"
    else:
        name = _signal(code)
        text = f"The command ended with exit code {code}{f' by {name}' if name else ''}.{said}"
    return finding("agent-exited", text, next_step=next_step)


def _signal(code: int) -> str:
    """The signal that a shell means by an exit code above 128 (POSIX 2.8.2), or an empty string."""
    try:
        return signal.Signals(code - 128).name
    except ValueError:
        return ""


def of_trouble(trouble: Trouble) -> Finding:
    """What a backend itself says is wrong with a pod. Raises KeyError for a code that is not in the table."""
    return finding(
        trouble.code, trouble.message, container=trouble.container or CODES[trouble.code].container
    )


def ended_by_backend(troubles: Sequence[Trouble]) -> Finding | None:
    """Why the backend ended a pod for what its run did, which a new attempt would only repeat; None: for no such thing."""
    return next((of_trouble(one) for one in troubles if one.code in NOT_AGAIN), None)


def why_lost(
    sidecar: ContainerReport | None, *, is_there: bool, troubles: Sequence[Trouble] = ()
) -> str:
    """Why a pod was lost, as the end of a sentence: with its sidecar, or from the backend altogether."""
    if not is_there:
        return "it is gone from the container backend."
    if troubles:
        return f"{troubles[0].message[:1].lower()}{troubles[0].message[1:]}"
    if sidecar is None or sidecar.state != Phase.EXITED:
        return "its sidecar does not run."
    if sidecar.oom_killed:
        return "the sidecar was killed because it used too much memory."
    return f"the sidecar ended with exit code {sidecar.exit_code}.{quoted(sidecar.logs)}"


def pod_lost(why: str, *, times: int = 1) -> Finding:
    """A pod that went without the run's fault; `times` above 1 when that has ended the run."""
    if times > 1:
        return finding("pod-lost", f"The pod was lost {times} times; the last time {why}")
    return finding("pod-lost", f"The pod was lost: {why}", next_step="A new attempt was started.")


def timed_out(wall_seconds: int) -> Finding:
    """A run that took longer than it may."""
    hours, rest = divmod(wall_seconds, 3600)
    words = f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"
    return finding(
        "timed-out",
        f"The run took longer than its wall time of {words}. What was there is staged.",
    )


def repeats_itself(sentence: str) -> Finding:
    """An agent that does the same again and again; the sentence says what."""
    return finding("loop", sentence)


def clone_failed(message: str, output: str, next_step: str) -> Finding:
    """The sidecar could not make the workspace. All three are its own words."""
    said = f" ({output})" if output else ""
    code = "disk-full" if is_disk_full(f"{message} {output}") else "clone-failed"
    step = "" if code == "disk-full" else next_step
    return finding(
        code,
        f"The workspace could not be made: {message}{said}",
        next_step=step,
        container=SIDECAR,
    )


#: Stage of the agent's refusal (`agent.refused`) → the finding, and how its sentence goes on.
REFUSALS = {
    "initialize": ("acp-refused", "did not start to speak its protocol"),
    "version": ("acp-version-mismatch", "speaks another version of its protocol"),
    "session": ("acp-refused", "opened no session"),
    "prompt": ("acp-refused", "could not answer the prompt"),
}


def agent_refused(stage: str, message: str, model_error: Finding | None) -> Finding:
    """The agent said no. When its model did so just before, the model is the cause."""
    code, what = REFUSALS.get(stage, ("acp-refused", "refused"))
    if stage != "prompt":
        return finding(code, f"The agent {what}: {message}")
    if model_error is not None:
        return replace(
            model_error,
            message=f"The agent {what}: its model did not answer. {model_error.message}"[
                :MAX_MESSAGE
            ],
        )
    return finding(
        code,
        f"The agent {what}: {message}",
        next_step="Look at the transcript and at the model provider, then prompt the run again.",
    )


def work_not_staged(message: str) -> Finding:
    """The work could not be brought to the staging forge."""
    code = "disk-full" if is_disk_full(message) else "work-not-staged"
    return finding(code, message, container=SIDECAR)


def volume_over(kind: str, used: int, inodes: int, *, most_bytes: int, most_inodes: int) -> Finding:
    """A volume that outgrew its bound on a host that cannot hold it."""
    return finding(
        "disk-full",
        f"The {kind} volume uses {used / GIB:.1f} GiB and {inodes:,} files; it may use "
        f"{most_bytes / GIB:.1f} GiB and {most_inodes:,}.",
        container=AGENT,
    )


def workspace_full(used: int, most_bytes: int) -> Finding:
    """A workspace with hardly any room left; what is written there fails."""
    return finding(
        "disk-full",
        f"The workspace is full: {used / 1024**2:,.0f} of {most_bytes / 1024**2:,.0f} MiB are used.",
        container=AGENT,
    )


def not_kept(message: str) -> Finding:
    """A run's container logs can't be written on this host; the run itself goes on."""
    if is_disk_full(message):
        step = "Free disk space on this host; the run itself goes on."
        return finding("disk-full", message, next_step=step)
    return finding("logs-not-kept", message)


def quoted(lines: Sequence[str]) -> str:
    """The last lines that say something, as the end of a sentence; empty when there are none."""
    said = [line.strip() for line in lines if line.strip()][-QUOTED_LINES:]
    return f" Its last words: {' / '.join(said)}"[:QUOTED_CHARACTERS] if said else ""
