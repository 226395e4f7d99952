"""How an agent's container starts: by `sh` alone, which any image has."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from pods.agents.profile import AgentProfile
from pods.spec import EXIT_AGENT_MISSING, STDIO_DIR

#: Exit code of the entry when one of the repository's lifecycle commands failed.
EXIT_LIFECYCLE_FAILED = 43
#: Written into the agent's home when the once-only lifecycle commands have run in this workspace.
LIFECYCLE_MARK = ".devaipod-lifecycle-done"

#: Lifecycle commands that run once for a workspace, and those that run at every start (containers.dev).
ONCE = ("onCreateCommand", "postCreateCommand")
EVERY_START = ("postStartCommand",)


def entry_argv(
    profile: AgentProfile,
    lifecycle: Mapping[str, Sequence[tuple[str, ...]]] | None = None,
    *,
    files: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """The agent container's command.

    It checks that the program is there (exit 42 when it isn't), runs the repository's lifecycle commands with their output
    on standard error, so in the container's log (exit 43 when one fails), writes `files` (path below the home → text), and
    becomes the agent with the FIFOs as standard input and output. `lifecycle` maps a command's name to the argument lists that
    it means.
    """
    program = shlex.quote(profile.program)
    lines = [
        f"if ! command -v {program} >/dev/null 2>&1; then",
        f'  echo "devaipod: the program {profile.program} is not in this image" >&2; exit {EXIT_AGENT_MISSING}; fi',
    ]
    lines += lifecycle_lines(lifecycle or {})
    # After the repository's commands: what they wrote there does not count.
    lines += file_lines(files or {})
    agent = " ".join(shlex.quote(word) for word in profile.argv)
    lines.append(f"exec {agent} <{STDIO_DIR}/in >{STDIO_DIR}/out")
    return ("sh", "-c", "\n".join(lines))


def file_lines(files: Mapping[str, str]) -> list[str]:
    """Lines of shell that write these files below the home, in the place of what was there (a link, too)."""
    lines = []
    for path, text in files.items():
        folder, _, _ = path.rpartition("/")
        target = f'"$HOME"/{shlex.quote(path)}'
        made = f'mkdir -p "$HOME"/{shlex.quote(folder)} && ' if folder else ""
        lines.append(
            f"{{ {made}rm -f {target} && printf %s {shlex.quote(text)} > {target}; }} "
            f'|| echo "devaipod: {path} could not be written into the agent\'s home" >&2'
        )
    return lines


def lifecycle_lines(commands: Mapping[str, Sequence[tuple[str, ...]]]) -> list[str]:
    """The repository's lifecycle commands as lines of shell."""
    lines = []
    once = [step for name in ONCE for step in _steps(name, commands.get(name, ()))]
    if once:
        mark = f'"${{HOME:-/tmp}}/{LIFECYCLE_MARK}"'
        lines += [f"if [ ! -e {mark} ]; then", *once, f": > {mark}; fi"]
    return lines + [step for name in EVERY_START for step in _steps(name, commands.get(name, ()))]


def _steps(name: str, commands: Sequence[tuple[str, ...]]) -> list[str]:
    steps = []
    for command in commands:
        words = " ".join(shlex.quote(word) for word in command)
        steps.append(
            f'echo "devaipod: {name}" >&2; '
            f"{words} </dev/null >&2 || {{ code=$?; "
            f'echo "devaipod: {name} ended with $code" >&2; exit {EXIT_LIFECYCLE_FAILED}; }}'
        )
    return steps
